"""Running experiments. `run` is the one way in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from weft.execute import gather, loops, planned, reference
from weft.execute.arithmetic import Known
from weft.execute.keeping import apart, as_saves
from weft.ir.nodes import Experiment
from weft.ir.outcome import Outcome


def run(
    loaded: Any,
    experiment: Experiment,
    *,
    plan: str = "auto",
    memory: int | None = None,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    known: Known | None = None,
) -> Outcome:
    """Run an experiment on a loaded model: the saved values, the edits counted, the work done.

    `plan` "reference" is the slow, obvious way; "auto" is the least work that gives the same numbers, in `memory` bytes
    above the model (None: half of what is free), where its rows can be kept apart. `known` is told of saved values as
    they come, where there is more than one pass; a keep's name has `keeping.PREFIX`.
    """
    if loops.has_loop(experiment):
        outcome = loops.train(loaded, experiment, plan=plan, progress=progress, cancelled=cancelled).outcome
        if outcome.stopped is not None:
            raise outcome.stopped
        return outcome
    plain = as_saves(experiment)
    if plan == "reference":
        return apart(reference.run(loaded, plain, progress, cancelled, known))
    looked = gather.run(loaded, plain, progress, cancelled)
    return apart(planned.run(loaded, plain, progress, cancelled, memory, known) if looked is None else looked)


__all__ = ["run"]
