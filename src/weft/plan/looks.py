"""Where a read value is looked at: the first position of each row that anything is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from weft.ir.nodes import Node, Op, Ref, ViewStep, Write, arg_refs
from weft.plan.places import BoxPlace, PairPlace, box_of, constants, pairs_of

Consumers = Mapping[int, Sequence[int]]


def looked_from(nodes: Sequence[Node], consumers: Consumers, index: int, batch: int, pos: int) -> tuple[int, ...]:
    """The first position, counted in the presentation, that is looked at in each row of a site's value; `pos` if none.

    A write to the site is no look, but what is made of the written value is.
    """
    found = [pos] * batch
    for user in consumers.get(index, ()):
        if _passes_on(nodes, user, index):
            least = looked_from(nodes, consumers, user, batch, pos)
        else:
            least = _first(_place(nodes, nodes[user], index, batch, pos), batch, pos)
        found = [min(pair) for pair in zip(found, least, strict=True)]
    return tuple(found)


def _passes_on(nodes: Sequence[Node], user: int, index: int) -> bool:
    """Whether a node gives the same value with some places replaced, and nothing else."""
    node, given = nodes[user], nodes[index]
    if isinstance(node, Op):
        return node.name == "index_put" and node.args[0] == Ref(index) and Ref(index) not in arg_refs(node.args[1:])
    if not isinstance(node, Write):
        return False
    if node.prev == Ref(index):
        return node.value != Ref(index)
    return not node.view and isinstance(given, Op) and given.name == "index_put" and given.args[0] == node.prev


def _place(nodes: Sequence[Node], node: Node, index: int, batch: int, pos: int) -> BoxPlace | PairPlace | None:
    """What an operation takes of its first operand; None for all of it."""
    if not isinstance(node, Op) or not node.args or node.args[0] != Ref(index):
        return None
    if node.name in ("select.int", "slice.Tensor"):
        return box_of((ViewStep(node.name, node.args[1:]),), batch, pos)
    if node.name == "index.Tensor":
        return pairs_of(constants(nodes, node.args[1]), batch, pos)
    return None


def _first(place: BoxPlace | PairPlace | None, batch: int, pos: int) -> list[int]:
    if place is None:
        return [0] * batch
    found = [pos] * batch
    if isinstance(place, BoxPlace):
        for row in place.box.rows:
            found[row] = min(place.box.positions, default=pos)
    else:
        for row, position in zip(place.rows, place.positions, strict=True):
            found[row] = min(found[row], position)
    return found
