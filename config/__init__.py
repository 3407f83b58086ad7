"""Settings: the defaults with their comments, the typed structs, the loader, durations, logging."""
