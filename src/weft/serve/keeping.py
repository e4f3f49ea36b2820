"""The table of values kept under names: whose, of which model, how large, until when."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, fields
from typing import Any

import sqlalchemy as sa

from weft.errors import NotFoundError
from weft.ir.types import TensorType
from weft.serve.jobs import METADATA

KEPT = sa.Table(
    "kept",
    METADATA,
    sa.Column("scope", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(400), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("dtype", sa.String(20), nullable=False),
    sa.Column("shape", sa.JSON, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("expires", sa.Float, nullable=False),
    sa.Column("experiment", sa.String(64), nullable=False),
)


@dataclass(frozen=True)
class KeptRow:
    """One value by name. `scope` is a key and a model, `experiment` the one that gave it."""

    scope: str
    name: str
    digest: str
    dtype: str
    shape: list[int]
    created: float
    expires: float
    experiment: str

    @property
    def type(self) -> TensorType:
        return TensorType(self.dtype, tuple(self.shape))


class Keeping:
    """The table, in the database of the jobs."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        METADATA.create_all(engine)

    def put(self, row: KeptRow) -> None:
        """Keep a value under a name; one that had the name before has it no longer."""
        with self.engine.begin() as connection:
            connection.execute(KEPT.delete().where(_named(row.scope, row.name)))
            connection.execute(KEPT.insert().values(**asdict(row)))

    def all(self, scope: str) -> list[KeptRow]:
        """What is kept in a scope and has not expired, by name."""
        living = (KEPT.c.scope == scope) & (KEPT.c.expires > time.time())
        with self.engine.connect() as connection:
            return [
                _row(each)
                for each in connection.execute(sa.select(KEPT).where(living).order_by(KEPT.c.name)).mappings()
            ]

    def get(self, scope: str, name: str) -> KeptRow:
        found = next((row for row in self.all(scope) if row.name == name), None)
        if found is None:
            raise NotFoundError(f"no value is kept as {name!r} for this model; it was freed, or has expired", name=name)
        return found

    def free(self, row: KeptRow) -> bool:
        """The name stands for nothing any longer; whether another name still stands for the same value."""
        with self.engine.begin() as connection:
            connection.execute(KEPT.delete().where(_named(row.scope, row.name)))
            same = (KEPT.c.scope == row.scope) & (KEPT.c.digest == row.digest)
            return bool(connection.execute(sa.select(sa.func.count()).select_from(KEPT).where(same)).scalar())

    def renew(self, scope: str, digest: str, expires: float) -> None:
        """A value that is used lives longer."""
        named = (KEPT.c.scope == scope) & (KEPT.c.digest == digest)
        with self.engine.begin() as connection:
            connection.execute(KEPT.update().where(named).values(expires=expires))

    def expire(self) -> set[tuple[str, str]]:
        """Forget what has expired; what is left, as (scope, digest)."""
        with self.engine.begin() as connection:
            connection.execute(KEPT.delete().where(KEPT.c.expires <= time.time()))
            return {(row.scope, row.digest) for row in connection.execute(sa.select(KEPT.c.scope, KEPT.c.digest))}


def _named(scope: str, name: str) -> sa.ColumnElement[bool]:
    return (KEPT.c.scope == scope) & (KEPT.c.name == name)


def _row(found: sa.RowMapping) -> KeptRow:
    values: dict[str, Any] = {each.name: found[each.name] for each in fields(KeptRow)}
    return KeptRow(**values)
