"""A loop's body in two: what a batch alone decides, computed once where the batch comes again, and what training changes.

    split(nodes, step, order_of) -> Split(before, frontier, step, entries)

    before   the part that no carried value reaches; it saves the values at the frontier
    step     the rest, with a slot wherever a value of the frontier stands, and the gradient
    entries  runs with an edit that depends on carried values: the layer below which nothing does, so that a step's
             pass begins there with the stream that `before` has computed (and gradients end there)

Both have the numbering of the body, so that a node means the same in all three.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from weft.execute.needed import Uses
from weft.ir.causality import Dependencies, OrderOf
from weft.ir.nodes import Const, Experiment, Node, Param, Read, Ref, Run, Save, Site, Slot, Write, operands

BESIDE = Slot("beside", 0)
"""Stands where a node of the body has no part in a step."""


class Split(NamedTuple):
    """`entries`: by run, its first layer and the name under which `before` saves what enters it."""

    before: Experiment
    frontier: dict[Ref, str]
    step: Experiment
    entries: dict[int, tuple[int, str]]


def split(step: Experiment, count: int, order_of: OrderOf, layers: int) -> Split:
    """Split the experiment `step`, whose first `count` nodes are the body; `layers` is 0 where none can be left out."""
    nodes = step.nodes
    uses = Uses(step, order_of)
    dependent = _dependent(nodes, order_of)
    cuts, entries = _entries(nodes, uses, dependent, order_of, layers)
    live = {index for index in uses.needed if _is_live(nodes, index, uses, dependent, cuts, order_of)}
    wanted = {ref for index in live for ref in _operands(nodes[index]) if ref.node not in live}
    frontier = {ref: f"{ref.node}.{ref.out}" for ref in sorted(wanted) if not isinstance(nodes[ref.node], _AT_HAND)}
    return Split(
        _before(nodes[:count], frontier, entries),
        frontier,
        Experiment(tuple(_in_step(nodes, index, live) for index in range(len(nodes)))),
        {run: (layer, f"enters {run}") for run, layer in entries.items()},
    )


_AT_HAND = (Const, Param, Slot)


def _operands(node: Node) -> list[Ref]:
    return list(operands(node))


def _dependent(nodes: Sequence[Node], order_of: OrderOf) -> set[int]:
    """The nodes whose value depends on a carried one, through the model too."""
    graph = Dependencies(nodes, order_of)
    wanted_by: list[list[int]] = [[] for _ in range(len(graph))]
    for index in range(len(graph)):
        for need in graph.needs(index):
            wanted_by[need].append(index)
    stack = [index for index, node in enumerate(nodes) if isinstance(node, Slot) and node.kind == "carried"]
    seen: set[int] = set()
    while stack:
        index = stack.pop()
        if index not in seen:
            seen.add(index)
            stack.extend(wanted_by[index])
    return seen


def _entries(
    nodes: Sequence[Node], uses: Uses, dependent: set[int], order_of: OrderOf, layers: int
) -> tuple[dict[int, int], dict[int, int]]:
    """Of each run that training changes: the place from which on it is made anew each step, and the layer it enters."""
    cuts: dict[int, int] = {}
    entries: dict[int, int] = {}
    for run, writes in uses.writes.items():
        changed = [uses.root[write] for write in writes if write in dependent and write in uses.needed]
        if not changed:
            continue
        node = nodes[run]
        cuts[run] = -1
        if not isinstance(node, Run) or node.kind != "tokens":
            continue
        first = min(_order(nodes, root, order_of) for root in changed)
        for layer in range(layers, 0, -1):
            place = order_of(run, Site("resid_post", layer - 1))
            if place is not None and place <= first:
                cuts[run], entries[run] = place, layer
                break
    return cuts, entries


def _order(nodes: Sequence[Node], index: int, order_of: OrderOf) -> int:
    read = nodes[index]
    assert isinstance(read, Read)
    found = order_of(read.run, read.site)
    return 1 << 62 if found is None else found


def _is_live(
    nodes: Sequence[Node], index: int, uses: Uses, dependent: set[int], cuts: dict[int, int], order_of: OrderOf
) -> bool:
    """Whether a node is computed in every step: it depends on what is carried, or is part of a pass that does."""
    node = nodes[index]
    if index in dependent or isinstance(node, Save):
        return True
    if isinstance(node, Read | Write):
        root = uses.root[index]
        read = nodes[root]
        assert isinstance(read, Read)
        return read.run in cuts and _order(nodes, root, order_of) >= cuts[read.run]
    return isinstance(node, Run) and index in cuts


def _in_step(nodes: Sequence[Node], index: int, live: set[int]) -> Node:
    node = nodes[index]
    return node if index in live or isinstance(node, _AT_HAND) else BESIDE


def _before(body: tuple[Node, ...], frontier: dict[Ref, str], entries: dict[int, int]) -> Experiment:
    nodes: list[Node] = list(body)
    for run, layer in entries.items():
        nodes += [Read(run, Site("resid_post", layer - 1)), Save(f"enters {run}", Ref(len(nodes)))]
    nodes += [Save(name, ref) for ref, name in frontier.items()]
    return Experiment(tuple(nodes))
