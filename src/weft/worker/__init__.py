"""The process that owns one model and runs jobs on it, one after another: `python -m weft.worker`."""
