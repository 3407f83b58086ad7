"""The subcommands of run.py that are more than a call: one file each."""
