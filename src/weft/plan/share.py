"""Share: equal states are one state.

Rows without edits are computed once, whoever asks for them, and rows with a common beginning share that too. An edited
run is like its base up to the layer of its first edit, so it begins there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from weft.plan.forks import Fork
from weft.plan.pieces import Piece, Plan, Row

SHARED_AT_LEAST = 16
"""A common beginning shorter than this is not worth a pass of its own."""


def share(plan: Plan) -> Plan:
    """Give every distinct row a base, and take from the runs what their base has."""
    pieces, of = _bases(row for fork in plan.forks for row in fork.tokens)
    pieces = {number: piece._replace(last=plan.layers - 1) for number, piece in pieces.items()}
    alone = _alone(plan.forks, plan.layers, pieces, of)
    taken = {row: pieces.pop(of[row]) for row in alone}
    bases = {row: number for row, number in of.items() if row not in taken}
    next_number = max(of.values(), default=-1) + 1
    passes: list[tuple[int, ...]] = [
        (number,) for number in sorted(pieces, key=lambda each: pieces[each].before is not None)
    ]
    for fork in sorted(plan.forks, key=lambda each: each.level):
        mine: list[int] = []
        for at, row in enumerate(fork.tokens):
            if row in taken:
                pieces[next_number] = taken[row]._replace(run=fork.run, at=at)
            elif fork.own(at):
                pieces[next_number] = Piece(row, 0, fork.layer, plan.layers - 1, None, fork.run, at)
            else:
                continue
            mine.append(next_number)
            next_number += 1
        if mine:
            passes.append(tuple(mine))
    return replace(plan, pieces=pieces, passes=tuple(passes), bases=bases)


def worth_sharing(rows: Sequence[Row]) -> bool:
    """Whether rows of one run have anything in common, or lengths that differ: packed, they then cost less."""
    pieces, _ = _bases(rows)
    return (
        len({len(row) for row in rows}) > 1
        or len(pieces) < len(rows)
        or any(p.before is not None for p in pieces.values())
    )


def _bases(rows: Iterable[Row]) -> tuple[dict[int, Piece], dict[Row, int]]:
    """A piece for each distinct row: whole, or the rest of a row that begins as another does."""
    groups: dict[Row, list[Row]] = defaultdict(list)
    for row in dict.fromkeys(rows):
        groups[row[:SHARED_AT_LEAST] if len(row) > SHARED_AT_LEAST else row].append(row)
    pieces: dict[int, Piece] = {}
    of: dict[Row, int] = {}

    def add(row: Row, first: int = 0, before: int | None = None) -> int:
        of[row] = len(pieces)
        pieces[of[row]] = Piece(row, first, 0, 0, before)
        return of[row]

    for members in groups.values():
        common = _common(members)
        if len(members) < 2 or common < SHARED_AT_LEAST:
            for row in members:
                add(row)
            continue
        longest = max(members, key=len)
        root = add(longest)
        for row in members:
            if row is not longest:
                add(row, min(common, len(row) - 1), root)
    return pieces, of


def _common(rows: Sequence[Row]) -> int:
    low, high = min(rows), max(rows)
    return next((at for at, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))


def _alone(forks: Sequence[Fork], layers: int, pieces: dict[int, Piece], of: dict[Row, int]) -> list[Row]:
    """Rows that are cheaper run whole by each of their users than once for all with a suffix for each.

    That looks ahead: what a user would compute is its suffix in the layers from its edit to its last read. A row that
    others branch from stays, and so does a branch that is edited before it begins.
    """
    suffixes: dict[Row, int] = defaultdict(int)
    users: dict[Row, int] = defaultdict(int)
    least: dict[Row, int] = {}
    read: set[Row] = {pieces[piece.before].row for piece in pieces.values() if piece.before is not None}
    for fork in forks:
        matters = fork.matters(layers)
        for at, row in enumerate(fork.tokens):
            if not (matters and fork.own(at)):
                read.add(row)
                continue
            users[row] += 1
            least[row] = min(fork.first[at], least.get(row, len(row)))
            suffixes[row] += (len(row) - fork.first[at]) * max(fork.last + 1 - fork.layer, 0)
    return [
        row
        for row, count in users.items()
        if row not in read
        and least[row] >= pieces[of[row]].first
        and count * len(row) * layers <= len(row) * layers + suffixes[row]
    ]
