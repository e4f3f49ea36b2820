"""What is asked of the planner in its golden tests: runs as forks, written by hand."""

from __future__ import annotations

from typing import Any

from weft.plan.forks import Fork

LAYERS = 3
A, B = (1, 2, 3, 4), (5, 6, 7)


def fork(run: int, *rows: tuple[int, ...], at: tuple[int, ...] | None = None, **changes: Any) -> Fork:
    """A run of those rows, edited in `layer` from the positions `at` on; by default not at all, and read at the end."""
    pos = max(map(len, rows))
    starts = tuple(pos - len(row) for row in rows)
    first = tuple(map(len, rows)) if at is None else at
    facts: dict[str, Any] = {"layer": LAYERS if at is None else 0, "last": LAYERS - 1, **changes}
    return Fork(run, rows, starts, pos, first, **facts)


PREFIX = tuple(range(20))

ASKED: dict[str, tuple[Fork, ...]] = {
    # A clean run, and two that are patched from it at the last position, in different layers.
    "sweep": (fork(0, A, B), fork(2, A, B, at=(3, 2), layer=1), fork(4, A, B, at=(3, 2), layer=2)),
    # The same tokens again are the same states; only what is read of them is computed.
    "twice": (fork(0, A, last=0), fork(1, A, last=1), fork(2, B, last=-1)),
    # Of a run that is only patched from, and of a base that is only attended to, the last layer ends with z.
    "up_to_z": (fork(0, B, half=True), fork(2, A, at=(3,), layer=1, looked=(3,))),
    # An edit of one row leaves the others as they are.
    "one_row": (fork(0, A, B), fork(1, A, B, at=(1, 3), layer=1)),
    # Edits above the last layer that is read change nothing.
    "unread": (fork(0, A), fork(1, A, at=(2,), layer=2, last=0)),
    # Prompts that nobody else uses are run by their edited runs themselves.
    "alone": (fork(0, A, at=(3,), layer=2), fork(1, B, at=(0,), layer=0)),
    # A common beginning is computed once, for bases and for edited runs.
    "prefix": (
        fork(0, (*PREFIX, 30, 31, 32), (*PREFIX, 40)),
        fork(1, (*PREFIX, 30, 31, 32), (*PREFIX, 40), at=(21, 20), layer=1),
        fork(2, (*PREFIX, 50, 51), at=(21,), layer=1),
    ),
    # A run whose edit needs the values of an edited run comes after it; those with gradients have passes of their own.
    "chain": (
        fork(0, A),
        fork(1, A, at=(1,), layer=1),
        fork(2, A, at=(2,), layer=2, level=1),
        fork(3, A, at=(3,), layer=1, grad=True),
    ),
}
