"""Running experiments. `run` is the one way in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from weft.execute import loops, planned, reference
from weft.execute.keeping import apart, as_saves
from weft.ir.nodes import Experiment
from weft.ir.outcome import Outcome


def run(
    loaded: Any,
    experiment: Experiment,
    *,
    plan: str = "auto",
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Outcome:
    """Run an experiment on a loaded model: the saved values, the edits counted, the work done.

    `plan` "reference" is the slow, obvious way; "auto" is the least work that gives the same numbers.
    """
    if loops.has_loop(experiment):
        outcome = loops.train(loaded, experiment, plan=plan, progress=progress, cancelled=cancelled).outcome
        if outcome.stopped is not None:
            raise outcome.stopped
        return outcome
    way = reference.run if plan == "reference" else planned.run
    return apart(way(loaded, as_saves(experiment), progress, cancelled))


__all__ = ["run"]
