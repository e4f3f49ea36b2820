"""Which rows and positions of a site a write changes, and what is needed of a read.

    place ::= rows × positions        a box: `x[:, -1]`, `x[2:, 3:5]`, followed by any views of what is left
            | (row, position) pairs   `x[rows, positions, …] = v`
            | whole                   anything else

Only leading selections on the first two axes (batch and positions) are read off; what cannot be read off is the whole
site, which is always right.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from weft.ir.card import Card
from weft.ir.nodes import Const, ConstantData, Node, Ref, Site, ViewStep


class Box(NamedTuple):
    """Rows and positions as ranges; an axis selected by one number is gone from the view's shape."""

    rows: range
    positions: range
    one_row: bool
    one_position: bool


@dataclass(frozen=True, slots=True)
class BoxPlace:
    """A box, and the views of it that lead on to what is changed."""

    box: Box
    rest: tuple[ViewStep, ...]


@dataclass(frozen=True, slots=True)
class PairPlace:
    """One position in each of some rows."""

    rows: tuple[int, ...]
    positions: tuple[int, ...]


class Cut(NamedTuple):
    """What a chain of views takes of the first axes: ranges, which of these axes are gone, and how many views that took."""

    ranges: tuple[range, ...]
    gone: tuple[bool, ...]
    used: int


def cut(view: tuple[ViewStep, ...], sizes: tuple[int, ...]) -> Cut:
    """What a chain of views takes of the axes of those `sizes`, as far as it begins with selections of these."""
    ranges, gone, used = [range(size) for size in sizes], [False] * len(sizes), 0
    for step in view:
        found = _selected(step)
        left = [axis for axis, is_gone in enumerate(gone) if not is_gone]
        if found is None or found[0] >= len(left):
            break
        axis, chosen = left[found[0]], found[1]
        taken = ranges[axis]
        if isinstance(chosen, int):
            ranges[axis], gone[axis] = taken[chosen % len(taken) :][:1], True
        else:
            ranges[axis] = taken[chosen]
        used += 1
    return Cut(tuple(ranges), tuple(gone), used)


def box_of(view: tuple[ViewStep, ...], batch: int, pos: int) -> BoxPlace | None:
    """The box that a chain of views begins with; None if it does not begin with one smaller than the whole."""
    found = cut(view, (batch, pos))
    box = Box(found.ranges[0], found.ranges[1], found.gone[0], found.gone[1])
    return BoxPlace(box, view[found.used :]) if found.used else None


def queries_of(view: tuple[ViewStep, ...], batch: int, heads: int, pos: int) -> BoxPlace | None:
    """The rows and query positions that a chain of views of [batch, head, query, key] takes; None for all."""
    found = cut(view, (batch, heads, pos, pos))
    box = Box(found.ranges[0], found.ranges[2], found.gone[0], found.gone[2])
    return BoxPlace(box, view[found.used :]) if found.used else None


def axes_left(view: tuple[ViewStep, ...], wanted: tuple[int, ...]) -> tuple[int, ...] | None:
    """Where the `wanted` axes are after views that select along others; None where they are touched, or it is not plain."""
    left = list(range(8))
    for step in view:
        found = _selected(step)
        if found is None or left[found[0]] in wanted:
            return None
        if isinstance(found[1], int):
            del left[found[0]]
    return tuple(left.index(axis) for axis in wanted)


def _selected(step: ViewStep) -> tuple[int, int | slice] | None:
    """The axis and what is taken of it, of a select or slice on a non-negative axis."""
    name, args = step
    if name == "select.int" and args[0] >= 0:
        return args[0], args[1]
    if name == "slice.Tensor":
        dim, start, end, by = (*args, *(0, None, None, 1)[len(args) :])
        return (dim, slice(start, end, by)) if isinstance(dim, int) and dim >= 0 else None
    return None


def ints_of(data: ConstantData) -> list[int] | None:
    """The numbers of a constant vector of whole numbers; None for any other tensor."""
    if data.type.dtype != "int64" or len(data.type.shape) > 1:
        return None
    raw = data.tobytes()
    return [int.from_bytes(raw[at : at + 8], "little", signed=True) for at in range(0, len(raw), 8)]


def pairs_of(indices: tuple[ConstantData | None, ...], batch: int, pos: int) -> PairPlace | None:
    """The (row, position) pairs of an advanced index whose first two parts are constant vectors of one length."""
    if len(indices) < 2 or indices[0] is None or indices[1] is None:
        return None
    rows, positions = ints_of(indices[0]), ints_of(indices[1])
    if rows is None or positions is None or not rows or not positions:
        return None
    length = max(len(rows), len(positions))
    if {len(rows), len(positions)} - {1, length}:
        return None
    rows, positions = rows * (length // len(rows)), positions * (length // len(positions))
    if not all(-batch <= row < batch for row in rows) or not all(-pos <= place < pos for place in positions):
        return None
    return PairPlace(tuple(row % batch for row in rows), tuple(place % pos for place in positions))


def layer_of(card: Card, site: Site) -> int:
    """The layer a site lies in: -1 for those before the layers, the number of layers for those after them."""
    if site.layer is not None:
        return site.layer
    order = card.by_site[site][0]
    if order <= card.by_site[Site("embed")][0]:
        return -1
    ends = [card.by_site[Site("resid_post", layer)][0] for layer in range(card.sizes["n_layers"])]
    return bisect_left(ends, order)


def constants(nodes: Sequence[Node], refs: tuple[object, ...]) -> tuple[ConstantData | None, ...]:
    """The data of constant operands (None for the others)."""
    found = [nodes[ref.node] if isinstance(ref, Ref) else None for ref in refs]
    return tuple(node.data if isinstance(node, Const) else None for node in found)
