"""What is read of a run's logits: whole rows at certain places can be made for many runs at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import NamedTuple

import torch

from weft.execute.lazy import mesh
from weft.ir.nodes import Const, Node, Op, Ref, ViewStep
from weft.plan.forks import Fork
from weft.plan.places import box_of, constants, pairs_of


class Reading(NamedTuple):
    """Rows and positions at which all logits are read."""

    rows: torch.Tensor
    positions: torch.Tensor


FEW = 1024
"""Entries of a `gather` that are few: of more, columns are copied and rows unembedded run by run for little."""
Consumers = Mapping[int, Sequence[int]]


def reading_of(nodes: Sequence[Node], consumers: Consumers, index: int, fork: Fork) -> Reading | None:
    """Where the logits read by node `index` are wanted whole; None where it is not one selection, or only entries are."""
    users = consumers[index]
    if len(users) != 1:
        return None
    node = nodes[users[0]]
    batch, pos = len(fork.tokens), fork.pos
    if not isinstance(node, Op) or not node.args or node.args[0] != Ref(index):
        return None
    if node.name in ("select.int", "slice.Tensor"):
        place = box_of((ViewStep(node.name, node.args[1:]),), batch, pos)
        if place is None or _only_entries(nodes, consumers, users[0], place.box.one_position):
            return None
        return Reading(*mesh(place.box.rows, place.box.positions))
    if node.name == "index.Tensor" and len(node.args[1]) == 2:
        pairs = pairs_of(constants(nodes, node.args[1]), batch, pos)
        if pairs is None or _only_entries(nodes, consumers, users[0], True):
            return None
        return Reading(torch.tensor(pairs.rows), torch.tensor(pairs.positions))
    return None


def _only_entries(nodes: Sequence[Node], consumers: Consumers, index: int, one_position: bool) -> bool:
    """Whether everything taken of selected logits is a few constant vocabulary entries."""
    axis = 1 if one_position else 2
    users = [nodes[user] for user in consumers[index]]
    return bool(users) and all(isinstance(user, Op) and _entry(nodes, user, Ref(index), axis) for user in users)


def _entry(nodes: Sequence[Node], user: Op, selected: Ref, axis: int) -> bool:
    if not user.args or user.args[0] != selected:
        return False
    if user.name == "select.int":
        return user.args[1] == axis
    if user.name == "gather":
        return user.args[1] in (axis, -1) and _constant(nodes, user.args[2], FEW)
    return user.name == "index.Tensor" and len(user.args[1]) == 2 and all(_constant(nodes, ref) for ref in user.args[1])


def _constant(nodes: Sequence[Node], ref: object, most: float = inf) -> bool:
    """Whether it is a constant, of at most so many numbers."""
    node = nodes[ref.node] if isinstance(ref, Ref) else None
    return isinstance(node, Const) and node.data.type.numel <= most
