"""The worker's loop: jobs in, records out, errors as data.

The main thread runs jobs. A second thread reads the socket, so that a cancellation arrives while a job runs, and so
that a worker whose server is gone ends at once instead of finishing work that nobody can fetch.
"""

from __future__ import annotations

import math
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weft.errors import ExecutionError, JobCancelledError, WeftError
from weft.ir.limits import Limits
from weft.ir.nodes import Experiment
from weft.record.channel import Channel
from weft.record.format import write_record
from weft.record.held import held_in
from weft.record.locations import pointed, read_body
from weft.record.messages import CancelJob, Cancelled, Done, Failed, Message, Progress, Ready, RunJob, Unready
from weft.record.tensors import Value
from weft.worker.engine import Ask, Engine
from weft.worker.partial import Stopped

REPORT_EVERY = 0.05
"""Seconds between two reports of progress: a sweep has thousands of steps and nobody reads them all."""


@dataclass
class Inbox:
    """What the server has asked for: jobs in order, and which of them to stop."""

    channel: Channel
    jobs: queue.SimpleQueue[RunJob] = field(default_factory=queue.SimpleQueue)
    cancelled: set[str] = field(default_factory=set)

    def listen(self) -> None:
        """Read until the server is gone, then end this process, whatever it is doing."""
        while True:
            match self.channel.receive():
                case None:
                    os._exit(0)
                case RunJob() as job:
                    self.jobs.put(job)
                case CancelJob(job):
                    self.cancelled.add(job)
                case other:
                    print(f"weft.worker: ignored {other!r}", file=sys.stderr)


@dataclass
class Worker:
    """One model's engine at the end of a channel."""

    channel: Channel
    engine: Engine
    limits: Limits
    inbox: Inbox
    reported: float = 0.0
    rows: list[list[float | None]] = field(default_factory=list[list[float | None]])

    def serve(self) -> None:
        """Announce the model, then run jobs until the server is gone."""
        from weft.ir.cardjson import card_to_json

        card = card_to_json(self.engine.card).encode()
        self.channel.send(Ready(self.engine.fingerprint(), card))
        while True:
            job = self.inbox.jobs.get()
            self.channel.send(self.run(job))
            self.inbox.cancelled.discard(job.job)
            self.engine.free()

    def run(self, job: RunJob) -> Message:
        """Run one job; the message that answers it. Nothing a job does ends the worker's loop."""
        experiment: Experiment | None = None
        began = time.monotonic()
        self.rows = []
        try:
            held = held_in(job.values)
            experiment = read_body(Path(job.experiment).read_bytes(), job.locations, self.limits, held)
            kept: list[dict[str, Any]] = []
            ask = Ask(
                job.plan,
                self.limits,
                lambda done, stage: self._report(job.job, done, stage),
                lambda: job.job in self.inbox.cancelled,
                lambda name, value: kept.append(_kept(Path(f"{job.record}.{len(kept)}"), name, value)),
                lambda row: self.rows.append([number if math.isfinite(number) else None for number in row]),
                job.partial or None,
            )
            record = self.engine.record(experiment, ask)
            write_record(record, Path(job.record))
            return Done(job.job, record.hash, time.monotonic() - began, kept)
        except Stopped as stopped:
            try:
                write_record(stopped.record, Path(job.record))
            except OSError as error:
                print(f"weft.worker: what job {job.job} had done cannot be written: {error}", file=sys.stderr)
                return _ended(job.job, stopped.error, experiment)
            return _ended(job.job, stopped.error, experiment, stopped.record.hash)
        except Exception as error:
            return _ended(job.job, error, experiment)

    def _report(self, job: str, fraction: float, stage: str) -> None:
        now = time.monotonic()
        if now - self.reported >= REPORT_EVERY or fraction >= 1:
            self.reported = now
            rows, self.rows = self.rows, []
            self.channel.send(Progress(job, min(max(float(fraction), 0.0), 1.0), stage, rows))


def _ended(job: str, error: Exception, experiment: Experiment | None, record: str | None = None) -> Message:
    """The answer to a job that was not done; `record` is that of what it had done by then."""
    match error:
        case JobCancelledError():
            return Cancelled(job, record)
        case WeftError():
            return Failed(job, pointed(error, experiment).to_data(), record)
        case MemoryError():
            text = f"the job needs more memory than the server has ({error})"
            return Failed(job, ExecutionError(text).to_data(), record)
        case _:
            traceback.print_exception(error, file=sys.stderr)
            text = f"the job failed while it ran: {type(error).__name__}: {error}"
            return Failed(job, ExecutionError(text, kind=type(error).__name__).to_data(), record)


def _kept(path: Path, name: str, value: Value) -> dict[str, Any]:
    """A value that stays, in a file of its own for the server to take."""
    path.write_bytes(value.data)
    entry = {"name": name, "dtype": value.type.dtype, "shape": list(value.type.shape), "digest": value.digest()}
    return {**entry, "file": str(path)}


def serve(channel: Channel, make: Callable[[], Engine], limits: Limits) -> None:
    """Load the model by calling `make`, and serve it; a model that cannot be loaded is reported, with the reason."""
    inbox = Inbox(channel)
    threading.Thread(target=inbox.listen, daemon=True).start()
    try:
        worker = Worker(channel, make(), limits, inbox)
    except WeftError as error:
        channel.send(Unready(error.to_data()))
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        message = f"the model could not be loaded: {type(error).__name__}: {error}"
        channel.send(Unready(ExecutionError(message).to_data()))
    else:
        worker.serve()
