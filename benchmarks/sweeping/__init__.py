"""The parts of `weft bench sweeps`: models, tasks, rivals, and how they are timed, compared and shown."""
