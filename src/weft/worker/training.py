"""A loop's way through a worker: its metrics are told, and what it has learned is written down now and then.

    record = train(loaded, experiment, ask)      # Stopped, with the record of the steps done, if it ended early

The file `ask.partial` is the record of the steps done so far. A worker that dies leaves it behind, and the next one
goes on from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weft.ir.nodes import Experiment
from weft.record.format import Record, decode_record
from weft.worker.partial import WRITE_EVERY, Stopped, write_beside

if TYPE_CHECKING:
    from weft.worker.engine import Ask


def train(loaded: Any, experiment: Experiment, ask: Ask) -> Record:
    """Run a loop, from where an earlier worker left it if one did."""
    import torch

    from weft.execute.constants import to_tensor
    from weft.execute.loops import train as run
    from weft.record.build import record_of

    path = None if ask.partial is None else Path(ask.partial)
    resume = None
    if path is not None and path.exists():
        earlier = decode_record(path.read_bytes())
        resume = {name: to_tensor(value, torch.device("cpu")) for name, value in earlier.results.items()}
    watch = Writing(lambda done: record_of(loaded, done.experiment, done.outcome), path, ask.metrics)
    done = run(
        loaded, experiment, plan=ask.plan, progress=ask.progress, cancelled=ask.cancelled, watch=watch, resume=resume
    )
    record = record_of(loaded, done.experiment, done.outcome)
    if done.outcome.stopped is not None:
        raise Stopped(done.outcome.stopped, record)
    return record


@dataclass
class Writing:
    """Tells the metrics, and writes the record of the steps done every so often."""

    record: Callable[[Any], Record]
    path: Path | None
    told: Callable[[tuple[float, ...]], None]
    next: float = field(default_factory=lambda: time.monotonic() + WRITE_EVERY)

    def metrics(self, row: tuple[float, ...]) -> None:
        self.told(row)

    def step(self, done: int, partial: Callable[[], Any]) -> None:
        if self.path is None or time.monotonic() < self.next:
            return
        began = time.monotonic()
        write_beside(self.record(partial()), self.path)
        self.next = time.monotonic() + max(WRITE_EVERY, 10 * (time.monotonic() - began))
