"""One served model: its worker process, kept alive, and its jobs, one after another.

Everything that happens (a message from the worker, its death, a new job, a wish to cancel) comes through one inbox, so
that each is dealt with in turn and no two see the host half changed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from weft.errors import ExecutionError, ModelError, WeftError, from_data
from weft.ir.types import TensorType
from weft.record.format import read_facts
from weft.record.messages import CancelJob, Cancelled, Done, Failed, Message, Progress, Ready, RunJob, Unready
from weft.serve.board import Board
from weft.serve.child import Child
from weft.serve.jobs import JobRow, Jobs
from weft.serve.keeping import Keeping, KeptRow
from weft.serve.metrics import Metrics
from weft.serve.settings import ModelSpec, Settings
from weft.serve.store import Store
from weft.serve.values import Values, scope_of

log = logging.getLogger("weft.serve")
LOADS = 3
"""How often a worker may die while it loads its model before the model is given up."""


@dataclass(frozen=True)
class _Cancel:
    job: str


@dataclass(frozen=True)
class _Dead:
    pass


def _queue() -> asyncio.Queue[Message | _Cancel | _Dead | None]:
    return asyncio.Queue()


@dataclass(frozen=True)
class Shared:
    """What all hosts of a server use."""

    settings: Settings
    jobs: Jobs
    store: Store
    board: Board
    metrics: Metrics
    values: Values
    keeping: Keeping

    def expire(self) -> None:
        """Free the values that nobody has used for so long."""
        if self.values.due():
            self.values.expire(self.keeping.expire())


@dataclass
class Host:
    """`await host.run()` for as long as the server lives. `state` is loading, ready, restarting or failed."""

    spec: ModelSpec
    shared: Shared
    state: str = "loading"
    error: WeftError | None = None
    card: bytes = b""
    card_file: Path | None = None
    key: str = ""
    fingerprint: dict[str, Any] = field(default_factory=dict[str, Any])
    worker: int | None = None
    _inbox: asyncio.Queue[Message | _Cancel | _Dead | None] = field(default_factory=_queue)
    _current: JobRow | None = None
    _cancelling: set[str] = field(default_factory=set[str])

    def wake(self) -> None:
        """Tell the host that a job has come."""
        self._inbox.put_nowait(None)

    def cancel(self, job: str) -> None:
        """Ask for a running job to stop."""
        self._inbox.put_nowait(_Cancel(job))

    async def run(self) -> None:
        """Keep a worker alive and give it jobs, until cancelled or until the model turns out not to load."""
        failures = 0
        while self.error is None:
            child = await self._spawn()
            reader = asyncio.create_task(self._read(child))
            ready, status = False, 0
            try:
                ready = await self._attend(child)
            finally:
                reader.cancel()
                self.worker = None
                status = await child.end()
            failures = 0 if ready else failures + 1
            await self._after(status, failures)

    async def _spawn(self) -> Child:
        options = [f"--option={name}={value}" for name, value in self.spec.options.items()]
        limits = json.dumps(asdict(self.shared.settings.limits))
        child = await Child.spawn(
            "weft.worker", "--source", self.spec.origin, "--loader", self.spec.loader, "--limits", limits, *options
        )
        self.worker = child.process.pid
        return child

    async def _read(self, child: Child) -> None:
        while (message := await child.receive()) is not None:
            self._inbox.put_nowait(message)
        self._inbox.put_nowait(_Dead())

    async def _attend(self, child: Child) -> bool:
        """Serve with this worker until it is gone; whether it ever had its model."""
        ready = False
        while True:
            if ready and self._current is None:
                await self._next(child)
            match await self._inbox.get():
                case _Dead():
                    return ready
                case Unready(error):
                    await self._give_up(from_data(error))
                    return False
                case Ready(fingerprint, card):
                    await self._ready(fingerprint, card)
                    ready = True
                case _Cancel(job):
                    await self._stop(child, job)
                case Progress(job, fraction, stage, rows) if self._is(job):
                    self.shared.board.add(job, rows)
                    self.shared.board.post(job, state="running", fraction=fraction, stage=stage)
                case (Done() | Failed() | Cancelled()) as message if self._is(message.job):
                    await self._answered(message)
                case _:
                    pass

    def _is(self, job: str) -> bool:
        return self._current is not None and self._current.id == job

    async def _ready(self, fingerprint: dict[str, Any], card: bytes) -> None:
        self.fingerprint, self.card = fingerprint, card
        facts = json.dumps(fingerprint, sort_keys=True).encode()
        self.key = hashlib.sha256(facts).hexdigest()
        self.card_file = self.shared.settings.folder / "cards" / f"{hashlib.sha256(card).hexdigest()}.json"
        await asyncio.to_thread(self.card_file.write_bytes, card)
        self.state = "ready"
        log.info("model %s is ready (worker %s)", self.spec.name, self.worker)

    async def _next(self, child: Child) -> None:
        """Give the worker the job that has waited longest, if there is one."""
        shared = self.shared
        while (job := await asyncio.to_thread(shared.jobs.next, self.spec.name)) is not None:
            if job.model_key != self.key:
                text = f"the model {job.model!r} was changed on the server while this job waited; submit it again"
                await self._end(job, "failed", error=ModelError(text))
            elif not await asyncio.to_thread(shared.store.has, job.body):
                await self._end(
                    job, "failed", error=ExecutionError("the server lost this experiment's file; submit it again")
                )
            elif await asyncio.to_thread(shared.jobs.start, job.id):
                self._current = replace(job, attempts=job.attempts + 1)
                shared.board.post(job.id, state="running", fraction=0.0, stage="starting")
                shared.metrics.running.labels(self.spec.name).set(1)
                body = str(await asyncio.to_thread(shared.store.local, job.body))
                values = str(shared.values.folder(scope_of(job.owner, job.model)))
                spool, partial = str(self._spool(job)), str(self._partial(job))
                await child.send(RunJob(job.id, body, spool, job.plan, job.locations, values, partial))
                return

    async def _answered(self, message: Done | Failed | Cancelled) -> None:
        job = self._current
        assert job is not None
        self._current = None
        match message:
            case Done(record=record, kept=kept):
                try:
                    await asyncio.to_thread(self._store, replace(job, record=record), kept)
                    await self._end(job, "done", record=record)
                except OSError as error:
                    text = f"the server could not keep the record: {error}"
                    await self._end(job, "failed", error=ExecutionError(text))
            case Failed(error=error, record=record):
                await self._end_early(job, "failed", self._spool(job), record, from_data(error))
            case Cancelled(record=record):
                await self._end_early(job, "cancelled", self._spool(job), record)

    async def _end_early(
        self, job: JobRow, state: str, path: Path, record: str | None, error: WeftError | None = None
    ) -> None:
        """End a job that was not done; the record of what it did is kept, wherever it lies."""
        if record is not None:
            try:
                await asyncio.to_thread(self.shared.store.put, replace(job, record=record).record_file, path)
            except OSError as lost:
                log.error("the record of job %s could not be kept: %s", job.id, lost)
                record = None
        await self._end(job, state, error=error, record=record)

    async def _left_behind(self, job: JobRow) -> str | None:
        """The name of the record of what was known when its worker died."""
        try:
            return str((await asyncio.to_thread(read_facts, self._partial(job)))["hash"])
        except (OSError, WeftError):
            return None

    def _store(self, job: JobRow, kept: list[dict[str, Any]]) -> None:
        """Put a job's record where it stays, its larger results by their digests, and what it keeps under its names."""
        shared, scope = self.shared, scope_of(job.owner, job.model)
        shared.store.put(job.record_file, self._spool(job))
        shared.values.note_results(scope, shared.store.local(job.record_file))
        now = time.time()
        for each in kept:
            kind = TensorType(each["dtype"], tuple(each["shape"]))
            shared.values.put(scope, each["digest"], kind, Path(each["file"]))
            until = now + shared.settings.keep_seconds
            row = KeptRow(scope, each["name"], each["digest"], kind.dtype, list(kind.shape), now, until, job.experiment)
            shared.keeping.put(row)

    async def _stop(self, child: Child, job: str) -> None:
        """Pass on the wish to cancel; a worker that does not come back in time is killed, and only then."""
        if not self._is(job):
            await cancel_waiting(self.shared, job)  # its worker died between the wish and now, and it waits again
        if not self._is(job) or job in self._cancelling:
            return
        self._cancelling.add(job)
        await child.send(CancelJob(job))
        loop = asyncio.get_running_loop()
        loop.call_later(self.shared.settings.cancel_seconds, self._kill_if_still, child, job)

    def _kill_if_still(self, child: Child, job: str) -> None:
        if self._is(job):
            child.kill()

    async def _after(self, status: int, failures: int) -> None:
        """The worker is gone: its job runs again, unless it was to stop or has had its attempts."""
        self.shared.metrics.restarts.labels(self.spec.name).inc()
        log.warning("the worker of %s ended (%s)", self.spec.name, _ended(status))
        job, self._current = self._current, None
        if job is not None:
            await self._again(job, status)
        if self.error is None:
            self.state = "restarting"
            if failures >= LOADS:
                text = f"the model {self.spec.name!r} cannot be served: its worker {_ended(status)} each time"
                await self._give_up(ModelError(text))
            elif failures:
                await asyncio.sleep(0.2 * 2**failures)

    async def _again(self, job: JobRow, status: int) -> None:
        if job.id in self._cancelling:
            await self._end_early(job, "cancelled", self._partial(job), await self._left_behind(job))
        elif job.attempts >= self.shared.settings.attempts:
            text = (
                f"the worker {_ended(status)} in the middle of this job, {job.attempts} times out of {job.attempts}; "
                "it may need more memory than the server has: ask for less at a time"
            )
            error = ExecutionError(text, attempts=job.attempts)
            await self._end_early(job, "failed", self._partial(job), await self._left_behind(job), error)
        else:
            await asyncio.to_thread(self.shared.jobs.requeue, job.id)
            self.shared.board.post(job.id, state="queued", fraction=0.0, stage="the worker is restarted")

    async def _give_up(self, error: WeftError) -> None:
        self.state, self.error = "failed", error
        log.error("model %s: %s", self.spec.name, error)
        while (job := await asyncio.to_thread(self.shared.jobs.next, self.spec.name)) is not None:
            await self._end(job, "failed", error=error)

    async def _end(self, job: JobRow, state: str, *, error: WeftError | None = None, record: str | None = None) -> None:
        """Write down how a job ended, then tell those who watch, then forget its file: in this order."""
        shared, data = self.shared, None if error is None else error.to_data()
        await asyncio.to_thread(shared.jobs.finish, job.id, state, error=data, record=record)
        fraction = 1.0 if state == "done" else 0.0
        shared.board.post(job.id, state=state, fraction=fraction, stage="", error=data, record=record)
        shared.metrics.ended.labels(self.spec.name, state).inc()
        shared.metrics.running.labels(self.spec.name).set(0)
        self._cancelling.discard(job.id)
        await asyncio.to_thread(shared.store.delete, job.body)
        await asyncio.to_thread(self._partial(job).unlink, missing_ok=True)
        for left in self._spool(job).parent.glob(f"{job.id}.*"):
            await asyncio.to_thread(left.unlink, missing_ok=True)

    def _partial(self, job: JobRow) -> Path:
        return self.shared.settings.folder / "partial" / f"{job.id}.safetensors"

    def _spool(self, job: JobRow) -> Path:
        return self.shared.settings.folder / "spool" / f"{job.id}.safetensors"


async def cancel_waiting(shared: Shared, job: str) -> bool:
    """Cancel a job that no worker has yet; False if one has, or if it has ended."""
    if not await asyncio.to_thread(shared.jobs.cancel_queued, job):
        return False
    row = await asyncio.to_thread(shared.jobs.get, job)
    shared.board.post(job, state="cancelled", stage="")
    shared.metrics.ended.labels(row.model, "cancelled").inc()
    await asyncio.to_thread(shared.store.delete, row.body)
    return True


def _ended(status: int) -> str:
    return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
