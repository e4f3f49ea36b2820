"""What is known of a job that has not ended: the file `ask.partial` has it while it runs, and its error when it fails.

    with Partial(loaded, experiment, ask, started) as partial:      # Stopped, with the record of what was known
        run(loaded, experiment, known=partial.add)

The record is the job's own but for what is not there yet: it has fewer results, and its count of edits says only how
many are asked for.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from weft.ir.nodes import Experiment, Write
from weft.ir.outcome import Edits, Outcome
from weft.record.format import Record, write_record

if TYPE_CHECKING:
    from weft.worker.engine import Ask

WRITE_EVERY = 1.0
"""Seconds between two records of what is known so far; writing them takes at most a tenth of the time."""


class Stopped(Exception):
    """A job has ended early: why, and the record of what it did."""

    def __init__(self, error: Exception, record: Record) -> None:
        super().__init__(str(error))
        self.error, self.record = error, record


@dataclass
class Partial:
    """The saved values of an experiment without a loop, as they become known.

    A thread writes them, since the next value, or pass, may be long in coming. A job of less than a second writes none.
    """

    loaded: Any
    experiment: Experiment
    ask: Ask
    started: float
    known: dict[str, Any] = field(default_factory=dict[str, Any])
    _ended: threading.Event = field(default_factory=threading.Event)
    _writer: threading.Thread | None = None

    def add(self, name: str, value: Any) -> None:
        """A saved value is known."""
        from weft.execute.keeping import PREFIX

        if name.startswith(PREFIX):
            return
        self.known[name] = value
        if self.ask.partial is not None and self._writer is None:
            self._writer = threading.Thread(target=self._write, args=(Path(self.ask.partial),), daemon=True)
            self._writer.start()

    def record(self) -> Record:
        """The record of what is known now."""
        from weft.record.build import record_of

        edits = Edits(sum(isinstance(node, Write) for node in self.experiment.nodes), 0, 0)
        outcome = Outcome(dict(self.known), edits, seconds=time.time() - self.started, plan=self.ask.plan)
        return record_of(self.loaded, self.experiment, outcome, started=self.started)

    def __enter__(self) -> Partial:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        if self._writer is not None:
            self._writer.join()  # the server takes the file away: none is to come after that
        if isinstance(error, Exception) and self.known:
            raise Stopped(error, self.record()) from error

    def _write(self, path: Path) -> None:
        count, pause = 0, WRITE_EVERY - (time.time() - self.started)
        while not self._ended.wait(max(0.0, pause)):
            began = time.monotonic()
            if len(self.known) > count:
                count = len(self.known)
                write_beside(self.record(), path)
            pause = max(WRITE_EVERY, 10 * (time.monotonic() - began))


def write_beside(record: Record, path: Path) -> None:
    """Put a record in the place of the one before in one go. A full disk costs the record, not the job."""
    beside = path.with_name(path.name + ".new")
    try:
        write_record(record, beside)
        os.replace(beside, path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        print(f"weft.worker: what is known so far cannot be written: {error}", file=sys.stderr)
