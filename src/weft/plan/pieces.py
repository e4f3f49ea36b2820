"""A plan: which tokens of which rows are computed, in which layers, and what is computed together.

    plan   ::= pass*                       in this order
    pass   ::= piece+                      through the layers together
    piece  ::= tokens [first, end of row) × layers [layer, last]

A piece belongs to one row of one run, or to no run: then it is a base, the row without edits, and whoever has the same
tokens may use it. Where a piece does not begin with the row, the keys before it are another piece's (`before`); where it
does not begin with the first layer, what enters it is the base's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from weft.errors import ExecutionError
from weft.plan.forks import Fork

Row = tuple[int, ...]


class Piece(NamedTuple):
    """Tokens from `first` on of `row`, computed in the layers from `layer` to `last`.

    `layer` is `last + 1` where nothing is computed, and only what enters there is looked at. `run` is the run it is for
    (None: a base), `at` which of that run's rows. With `half`, nothing of the last layer is needed that comes after `z`.
    """

    row: Row
    first: int
    layer: int
    last: int
    before: int | None = None
    run: int | None = None
    at: int = 0
    half: bool = False

    @property
    def depth(self) -> tuple[int, bool]:
        """How far up it is computed: pieces compare by it."""
        return self.last, not self.half

    @property
    def length(self) -> int:
        return len(self.row) - self.first


@dataclass(frozen=True)
class Plan:
    """The pieces by number, and the passes that compute them. A pass of the planner takes a plan and gives a plan.

    `bases` finds the piece that has the end of an unedited row; `layers` is how many the model has.
    """

    forks: tuple[Fork, ...]
    layers: int
    pieces: Mapping[int, Piece]
    passes: tuple[tuple[int, ...], ...]
    bases: Mapping[Row, int] = field(default_factory=dict[Row, int])

    def chain(self, number: int) -> list[int]:
        """A piece and those that hold the tokens before it, the beginning of the row first."""
        found = [number]
        while (before := self.pieces[found[-1]].before) is not None:
            found.append(before)
        return found[::-1]

    @cached_property
    def of_run(self) -> dict[int, list[int]]:
        """The pieces that belong to each run."""
        found: dict[int, list[int]] = {fork.run: [] for fork in self.forks}
        for number, piece in self.pieces.items():
            if piece.run is not None:
                found[piece.run].append(number)
        return found


def naive(forks: tuple[Fork, ...], layers: int) -> Plan:
    """What is asked for: every run by itself, all of its rows through all layers."""
    pieces: dict[int, Piece] = {}
    passes: list[tuple[int, ...]] = []
    for fork in sorted(forks, key=lambda each: each.level):
        mine = range(len(pieces), len(pieces) + len(fork.tokens))
        pieces.update(
            (number, Piece(row, 0, 0, layers - 1, None, fork.run, at))
            for at, (number, row) in enumerate(zip(mine, fork.tokens, strict=True))
        )
        passes.append(tuple(mine))
    return Plan(forks, layers, pieces, tuple(passes))


def check(plan: Plan) -> Plan:
    """The plan itself, if every number that is asked for is computed, once, from what is there by then.

    Raises ExecutionError, naming the piece or run that is at fault: that is a fault in weft, not in the experiment.
    """
    made: dict[int, int] = {}
    for time, numbers in enumerate(plan.passes):
        for number in numbers:
            if number in made:
                raise _wrong(f"piece {number} is computed twice")
            made[number] = time
    if made.keys() != plan.pieces.keys():
        raise _wrong(f"pieces {sorted(made.keys() ^ plan.pieces.keys())} are in no pass, or in one without being there")
    for number, piece in plan.pieces.items():
        _check_piece(plan, number, piece, made)
    ends: dict[int, int] = {}
    for fork in sorted(plan.forks, key=lambda each: each.level):
        times = _check_fork(plan, fork, made)
        if times and any(ends.get(level, -1) >= min(times) for level in range(fork.level)):
            raise _wrong(f"run %{fork.run} comes before one whose values it may need")
        ends[fork.level] = max([ends.get(fork.level, -1), *times])
    return plan


def _check_piece(plan: Plan, number: int, piece: Piece, made: Mapping[int, int]) -> None:
    if not 0 <= piece.first < len(piece.row) or not 0 <= piece.layer <= piece.last + 1 <= plan.layers:
        raise _wrong(f"piece {number} has no such tokens or layers")
    if (piece.before is None) != (piece.first == 0):
        raise _wrong(f"piece {number} begins at position {piece.first}, after {piece.before}")
    if piece.before is not None:
        other = plan.pieces[piece.before]
        if other.run is not None or other.layer or other.last < piece.last or made[piece.before] >= made[number]:
            raise _wrong(f"piece {number} attends to {piece.before}, which is not there for it")
        if other.first >= piece.first or other.row[: piece.first] != piece.row[: piece.first]:
            raise _wrong(f"piece {number} attends to {piece.before}, whose tokens are others")
    if piece.layer:
        base = plan.bases.get(piece.row)
        if base is None or any(_late(plan, each, piece, made[number], made) for each in plan.chain(base)):
            raise _wrong(f"nothing is there to enter piece {number} at layer {piece.layer}")


def _late(plan: Plan, base: int, piece: Piece, time: int, made: Mapping[int, int]) -> bool:
    return plan.pieces[base].depth < (piece.layer - 1, True) or made[base] >= time


def _check_fork(plan: Plan, fork: Fork, made: Mapping[int, int]) -> list[int]:
    """The times of a run's pass (none, or one), after checking that all of its rows are covered."""
    own = {plan.pieces[number].at: plan.pieces[number] for number in plan.of_run[fork.run]}
    depth, matters = (fork.last, not fork.half), fork.matters(plan.layers)
    for at, row in enumerate(fork.tokens):
        piece = own.get(at)
        changed = matters and fork.own(at)
        if piece is None or (changed and not fork.within(at) and row in plan.bases):
            base = plan.bases.get(row)
            if (
                (changed and piece is None)
                or base is None
                or any(plan.pieces[n].depth < depth for n in plan.chain(base))
            ):
                raise _wrong(f"row {at} of run %{fork.run} is computed by nobody up to layer {fork.last}")
        if piece is None:
            continue
        if piece.row != row or piece.depth < depth or piece.first > fork.first[at]:
            raise _wrong(f"row {at} of run %{fork.run} is not what was asked for")
        if piece.layer > fork.layer:
            raise _wrong(f"row {at} of run %{fork.run} is edited before layer {piece.layer}, where it begins")
    times = sorted({made[number] for number in plan.of_run[fork.run]})
    if len(times) > 1 or len(own) != len(plan.of_run[fork.run]):
        raise _wrong(f"run %{fork.run} is in several passes, or a row of it twice")
    return times


def _wrong(text: str) -> ExecutionError:
    return ExecutionError(f"the plan is not valid: {text}; this is a fault in weft")
