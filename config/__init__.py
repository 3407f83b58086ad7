"""Settings: the defaults with their comments, the typed structs, the loader, durations, logging."""

from typing import Final

VERSION: Final = "0.1.0"
