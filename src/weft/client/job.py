"""An experiment handed to a server: watched, waited for, cancelled, fetched."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from weft.client.http import Http, json_of
from weft.client.progress import Bar
from weft.client.values import Values
from weft.errors import JobCancelledError, UnreachableError, from_data
from weft.ir.codec import constants_of, with_constants
from weft.ir.constant import NamedConstant
from weft.ir.nodes import Experiment
from weft.record import Record, Value, decode_record, decode_results
from weft.record.locations import pointed

FINAL = frozenset({"done", "failed", "cancelled"})
PATIENCE = 60.0
"""Seconds without any answer after which a server counts as gone: a restart takes less."""
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Status:
    """A job's state, how far it is (0 to 1), what it is doing, its error and its record's hash.

    `rows` are those of a loop's history (step, loss, metrics) that are news.
    """

    state: str
    fraction: float = 0.0
    stage: str = ""
    error: dict[str, Any] | None = None
    record: str | None = None
    rows: tuple[tuple[float, ...], ...] = ()

    @property
    def ended(self) -> bool:
        return self.state in FINAL


@dataclass(frozen=True)
class Job:
    """A job by its id. `experiment` is known to whoever submitted it, and gives errors their line."""

    http: Http
    id: str
    experiment: Experiment | None = None

    @property
    def path(self) -> str:
        return f"/v1/experiments/{self.id}"

    def status(self) -> Status:
        """What the server says of the job now."""
        return _status(json_of(self.http.request("GET", self.path)))

    def events(self) -> Iterator[Status]:
        """Every change the server tells of, as it happens, until the job ends.

        A stream that breaks is taken up again (each event holds all there is to know); while that does not work either,
        the job is asked after twice a second. UnreachableError when the server is gone for a minute.
        """
        last: Status | None = None
        heard = time.monotonic()
        while last is None or not last.ended:
            try:
                for status in self._stream():
                    last, heard = status, time.monotonic()
                    yield status
            except UnreachableError:
                pass
            if last is not None and last.ended:
                return
            try:
                last, heard = self.status(), time.monotonic()
                yield last
            except UnreachableError:
                if time.monotonic() - heard > PATIENCE:
                    raise
            if not last or not last.ended:
                time.sleep(POLL_SECONDS)

    def cancel(self) -> Status:
        """Ask for the job to stop, waiting or running; RefusedError if it has ended."""
        return _status(json_of(self.http.request("DELETE", self.path)))

    def wait(self, progress: bool = True, told: Callable[[tuple[float, ...]], None] | None = None) -> Job:
        """Return when the job is done; raise its error if it failed, JobCancelledError if it was cancelled.

        `told` is called with each row of a loop's history, once.
        """
        status, last = Status("queued"), -math.inf
        with Bar(progress) as bar:
            for status in self.events():
                bar.show(status.state, status.fraction, status.stage)
                for row in status.rows:  # a stream that was taken up again begins with the first
                    if told is not None and row[0] > last:
                        last = row[0]
                        told(row)
        if status.state == "failed":
            error = from_data(status.error or {})
            if status.record is not None and "is kept" not in error.message:
                error.message += f"; what it had done by then is kept: partial() of job {self.id} has it"
            raise pointed(error, self.experiment)
        if status.state == "cancelled":
            kept = "" if status.record is None else "; what it had done by then is kept: partial() of the job has it"
            text = f"job {self.id} was cancelled{kept}; submit the experiment again to run it"
            raise JobCancelledError(text, job=self.id)
        return self

    def result(self) -> dict[str, Value]:
        """The saved values by name, of a job that is done."""
        return decode_results(self.http.request("GET", f"{self.path}/result").content)

    def record(self) -> Record:
        """What ran, on what, giving what."""
        return self._whole(decode_record(self.record_bytes()))

    def partial(self) -> Record:
        """Of a job that runs or ended early: the record of what it has so far. NotFoundError if there is none.

        Of a loop that is the steps done; of anything else its results are the saved values that are known.
        """
        return self._whole(
            decode_record(self.http.request("GET", f"{self.path}/record", params={"partial": True}).content)
        )

    def record_bytes(self) -> bytes:
        """The record's file, without the constants that the server holds beside it."""
        return self.http.request("GET", f"{self.path}/record").content

    def _whole(self, record: Record) -> Record:
        """The record with the constants that its file leaves out: the submitter's own, or fetched when they are needed."""
        constants = constants_of(record.experiment)
        missing = {digest: data.type for digest, data in constants.items() if isinstance(data, NamedConstant)}
        if not missing:
            return record
        own = constants_of(self.experiment) if self.experiment is not None else {}
        values = Values(self.http, str(json_of(self.http.request("GET", self.path))["model"]))
        found = {digest: own.get(digest) or values.constant(kind, digest) for digest, kind in missing.items()}
        nodes = with_constants(record.experiment.nodes, found)
        return replace(record, experiment=replace(record.experiment, nodes=nodes))

    def forget(self) -> None:
        """Let the server drop the results of a job that is done: they have been put elsewhere."""
        self.http.request("DELETE", f"{self.path}/result")

    def _stream(self) -> Iterator[Status]:
        with self.http.stream(f"{self.path}/events") as response:
            for line in response.iter_lines():
                if line.startswith("data:"):
                    yield _status(json.loads(line.removeprefix("data:")))


def _status(data: dict[str, Any]) -> Status:
    rows = tuple(tuple(math.nan if each is None else each for each in row) for row in data.get("rows", ()))
    return Status(data["state"], data["fraction"], data["stage"], data["error"], data["record"], rows)
