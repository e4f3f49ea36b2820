"""Gradients of many runs that went through the model together, taken in one backward pass.

The runs of a pass share its graph, so each gradient by itself would go back through the tokens of all. Gradients may be
taken of the sum of their scalars where no scalar depends on what another's gradient is asked for: its part is then 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from weft.execute.dataflow import Dataflow, Key
from weft.execute.needed import Uses
from weft.ir.nodes import Grad, Read


@contextmanager
def together(flow: Dataflow) -> Iterator[None]:
    """Meanwhile gradients wait; they are taken at the end, or when `settle` is called."""
    flow.waiting = []
    try:
        yield
        settle(flow)
    finally:
        flow.waiting = None


def settle(flow: Dataflow) -> None:
    """Take the gradients that wait, and compute what waits for them."""
    while flow.waiting:
        waiting, flow.waiting = flow.waiting, []
        for group in _groups(flow.uses, waiting):
            _take(flow, group)
        flow.drain()


def _groups(uses: Uses, keys: list[Key]) -> list[list[Key]]:
    """Gradients whose scalars do not depend on one another's targets."""
    groups: list[list[tuple[Key, set[int], set[int]]]] = []
    for key in keys:
        node = uses.nodes[key[0]]
        assert isinstance(node, Grad)
        mine = (key, uses.closure([node.of.node]), _targets(uses, node))
        home = next((g for g in groups if all(_apart(mine, other) for other in g)), None)
        if home is None:
            groups.append([mine])
        else:
            home.append(mine)
    return [[key for key, _, _ in group] for group in groups]


def _targets(uses: Uses, node: Grad) -> set[int]:
    """What a scalar must not depend on if it is not to disturb this gradient: its targets, and for sites their runs."""
    found = {ref.node for ref in node.wrt}
    reads = [uses.nodes[uses.root.get(index, index)] for index in found]
    return found | {read.run for read in reads if isinstance(read, Read)}


def _apart(a: tuple[Key, set[int], set[int]], b: tuple[Key, set[int], set[int]]) -> bool:
    return not (a[1] & b[2] or b[1] & a[2])


def _take(flow: Dataflow, keys: list[Key]) -> None:
    found = _jointly(flow, keys) if len(keys) > 1 else None
    for number, key in enumerate(keys):
        if found is None:
            flow.compute(key)
        else:
            flow.computed(key, found[number])


def _jointly(flow: Dataflow, keys: list[Key]) -> list[tuple[torch.Tensor, ...]] | None:
    """The gradients of each; None where one of them has to be taken by itself, to say what is wrong with it."""
    nodes = [node for index, _ in keys if isinstance(node := flow.nodes[index], Grad)]
    scalars = [flow.get(node.of, None) for node in nodes]
    targets = [[flow.get(ref, None) for ref in node.wrt] for node in nodes]
    if not all(scalar.requires_grad for scalar in scalars):
        return None
    gradients = torch.autograd.grad(
        scalars,
        [target for each in targets for target in each],
        grad_outputs=[torch.ones_like(scalar) for scalar in scalars],
        retain_graph=True,
        allow_unused=True,
    )
    taken = iter(gradients)
    found = [tuple(next(taken) for _ in each) for each in targets]
    return None if any(gradient is None for each in found for gradient in each) else found
