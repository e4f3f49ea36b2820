"""Rows as segments: every distinct row of tokens once, those with a common beginning sharing it, and forks from these.

    root    ::= a whole row
    branch  ::= the rest of a row that begins as a root does
    fork    ::= the suffix of an edited row, from its first edited position on

A pass computes segments of one kind together. Each token of a segment has a place in the pass's packed tensors.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Row = tuple[int, ...]


@dataclass(eq=False)
class Segment:
    """Tokens [first, length) of `row`. `parent` computes those before; `at` is its place in its pass's packed tensors.

    It enters at `layer`, and `last` is the last layer anybody needs it in.
    """

    row: Row
    first: int
    parent: Segment | None = None
    layer: int = 0
    last: int = -1
    number: int = 0
    at: int = 0
    run: int = -1
    run_row: int = -1

    @property
    def length(self) -> int:
        return len(self.row) - self.first


@dataclass
class Tree:
    """The distinct rows of some runs: roots, and branches off them; `of` finds a row's segment."""

    roots: list[Segment] = field(default_factory=list)
    branches: list[Segment] = field(default_factory=list)
    of: dict[Row, Segment] = field(default_factory=dict)

    def chain(self, row: Row) -> list[Segment]:
        """The segments that hold a row's tokens, the first tokens first."""
        segment = self.of[row]
        return [segment] if segment.parent is None else [segment.parent, segment]


SHARED_AT_LEAST = 16
"""A common beginning shorter than this is not worth a pass of its own."""


def tree(rows: Sequence[Row]) -> Tree:
    """Share what is worth sharing: rows are grouped by their beginnings; the rest of each is a branch."""
    found = Tree()
    groups: dict[Row, list[Row]] = defaultdict(list)
    for row in dict.fromkeys(rows):
        groups[row[:SHARED_AT_LEAST] if len(row) > SHARED_AT_LEAST else row].append(row)
    for members in groups.values():
        common = _common(members)
        if len(members) < 2 or common < SHARED_AT_LEAST:
            for row in members:
                _root(found, row)
            continue
        longest = max(members, key=len)
        root = _root(found, longest)
        for row in members:
            if row is not longest:
                branch = Segment(row, min(common, len(row) - 1), root)
                found.of[row] = branch
                found.branches.append(branch)
    for segments in (found.roots, found.branches):
        segments.sort(key=lambda each: (-each.length, each.row))
        for number, segment in enumerate(segments):
            segment.number = number
    return found


def without(found: Tree, rows: Mapping[Row, int]) -> dict[Row, Segment]:
    """Take rows out of the tree whose only user is a fork of its own: there is nothing to share with it.

    `rows` name the first position edited in each. Gives for each row the segment that it would have been: the fork
    computes that itself. A root that others branch from stays, and so does a branch that is edited before it begins.
    """
    parents = {id(branch.parent) for branch in found.branches}
    taken: dict[Row, Segment] = {}
    for row, edited in rows.items():
        segment = found.of[row]
        if edited < segment.first:
            continue
        if segment.parent is not None:
            found.branches.remove(segment)
        elif id(segment) not in parents:
            found.roots.remove(segment)
        else:
            continue
        taken[row] = segment
        del found.of[row]
    for segments in (found.roots, found.branches):
        for number, segment in enumerate(segments):
            segment.number = number
    return taken


def _root(found: Tree, row: Row) -> Segment:
    segment = found.of[row] = Segment(row, 0)
    found.roots.append(segment)
    return segment


def _common(rows: Sequence[Row]) -> int:
    low, high = min(rows), max(rows)
    return next((at for at, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))


def fork_from(found: Tree, row: Row, first: int) -> Segment:
    """The segment whose keys come right before position `first` of a row."""
    segment = found.of[row]
    return segment.parent if segment.parent is not None and first <= segment.first else segment
