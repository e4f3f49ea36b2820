"""The table of jobs: what was accepted, and what became of it. Durable; every change is one transaction.

queued ──▶ running ──▶ done | failed | cancelled
   ▲          │
   └──────────┘  the worker, or the server, died under it
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, fields
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from weft.errors import NotFoundError

FINAL = frozenset({"done", "failed", "cancelled"})
METADATA = sa.MetaData()
JOBS = sa.Table(
    "jobs",
    METADATA,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("model", sa.String(400), nullable=False),
    sa.Column("model_key", sa.String(64), nullable=False),
    sa.Column("experiment", sa.String(64), nullable=False),
    sa.Column("plan", sa.String(40), nullable=False),
    sa.Column("locations", sa.Integer, nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("submitted", sa.Float, nullable=False),
    sa.Column("started", sa.Float),
    sa.Column("finished", sa.Float),
    sa.Column("error", sa.JSON),
    sa.Column("record", sa.String(64)),
    sa.Column("owner", sa.String(64)),  # the key it was sent with, once there are keys
    sa.Index("jobs_same", "experiment", "model_key", "plan"),
    sa.Index("jobs_waiting", "model", "state", "submitted"),
)


@dataclass(frozen=True)
class JobRow:
    """One job. `model_key` is the hash of the model's fingerprint: the same name may hold another model tomorrow."""

    id: str
    model: str
    model_key: str
    experiment: str
    plan: str = "auto"
    locations: int = 0
    state: str = "queued"
    attempts: int = 0
    submitted: float = 0.0
    started: float | None = None
    finished: float | None = None
    error: dict[str, Any] | None = None
    record: str | None = None
    owner: str | None = None

    @property
    def body(self) -> str:
        """The store's key of the posted experiment."""
        return f"bodies/{self.id}"

    @property
    def record_file(self) -> str:
        """The store's key of the record."""
        return f"records/{self.record}.safetensors"


class Jobs:
    """The table in its database. Calls block for a moment; the event loop makes them in a thread."""

    def __init__(self, url: str) -> None:
        self.engine = sa.create_engine(url)
        if self.engine.dialect.name == "sqlite":
            event.listen(self.engine, "connect", _durable_sqlite)
        METADATA.create_all(self.engine)

    def close(self) -> None:
        self.engine.dispose()

    def add(self, job: JobRow) -> None:
        with self.engine.begin() as connection:
            connection.execute(JOBS.insert().values(**asdict(job)))

    def get(self, job: str) -> JobRow:
        found = self._one(sa.select(JOBS).where(JOBS.c.id == job))
        if found is None:
            raise NotFoundError(f"this server has no job {job!r}; it may belong to another server", job=job)
        return found

    def same(self, experiment: str, model_key: str, plan: str) -> JobRow | None:
        """The latest job of this experiment on this model that is done, or on its way."""
        named = (JOBS.c.experiment == experiment) & (JOBS.c.model_key == model_key) & (JOBS.c.plan == plan)
        useful = JOBS.c.state.in_(["queued", "running", "done"])
        return self._one(sa.select(JOBS).where(named & useful).order_by(JOBS.c.submitted.desc()).limit(1))

    def next(self, model: str) -> JobRow | None:
        """The job of this model that has waited longest."""
        waiting = (JOBS.c.model == model) & (JOBS.c.state == "queued")
        return self._one(sa.select(JOBS).where(waiting).order_by(JOBS.c.submitted, JOBS.c.id).limit(1))

    def start(self, job: str) -> bool:
        return self._change(job, {"queued"}, state="running", started=time.time(), attempts=JOBS.c.attempts + 1)

    def requeue(self, job: str) -> bool:
        return self._change(job, {"running"}, state="queued")

    def finish(self, job: str, state: str, *, error: dict[str, Any] | None = None, record: str | None = None) -> bool:
        """End a job; False if it had ended already, which then stands."""
        return self._change(job, {"queued", "running"}, state=state, finished=time.time(), error=error, record=record)

    def cancel_queued(self, job: str) -> bool:
        return self._change(job, {"queued"}, state="cancelled", finished=time.time())

    def forget(self, job: str, record: str) -> bool:
        """The job has a record no longer; whether some other job still has the same one."""
        with self.engine.begin() as connection:
            connection.execute(JOBS.update().where(JOBS.c.id == job).values(record=None))
            query = sa.select(sa.func.count()).select_from(JOBS).where(JOBS.c.record == record)
            return bool(connection.execute(query).scalar())

    def recover(self) -> None:
        """After a start: what was running when the server died is queued again, and that attempt does not count."""
        running = JOBS.update().where(JOBS.c.state == "running")
        with self.engine.begin() as connection:
            connection.execute(running.values(state="queued", attempts=JOBS.c.attempts - 1))

    def waiting(self) -> list[JobRow]:
        """Every job not ended, oldest first."""
        query = sa.select(JOBS).where(JOBS.c.state.not_in(FINAL)).order_by(JOBS.c.submitted)
        with self.engine.connect() as connection:
            return [_row(found) for found in connection.execute(query).mappings()]

    def _one(self, query: sa.Select[Any]) -> JobRow | None:
        with self.engine.connect() as connection:
            found = connection.execute(query).mappings().first()
        return None if found is None else _row(found)

    def _change(self, job: str, states: set[str], **values: Any) -> bool:
        query = JOBS.update().where((JOBS.c.id == job) & JOBS.c.state.in_(states)).values(**values)
        with self.engine.begin() as connection:
            return connection.execute(query).rowcount == 1


def _row(found: sa.RowMapping) -> JobRow:
    return JobRow(**{each.name: found[each.name] for each in fields(JobRow)})


def _durable_sqlite(connection: Any, _: Any) -> None:
    """Accepted means accepted: a commit is on the disk before 202 is sent."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA busy_timeout=10000")
