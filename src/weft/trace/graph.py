"""The program as it grows: nodes appended one by one, each with the user's line, each checked for causality at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import torch

from weft.errors import CausalityError, GradientError, Location
from weft.ir.causality import Frontiers, Place, place_of
from weft.ir.nodes import Const, Experiment, Node, Op, Read, Ref, Save, Site, Slot, Write, operands
from weft.trace.constants import TensorConstant, version_of
from weft.trace.location import Lines, here
from weft.trace.location import Place as Line
from weft.trace.location import where as resolve_here

if TYPE_CHECKING:
    from weft.ir.card import Card


class Graph:
    """An experiment under construction."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.cards: dict[int, Card] = {}
        self.nodes: list[Node] = []
        self.places: list[Line | None] = []
        self.frontiers = Frontiers(self.order_of)
        self.constants: dict[tuple[int, int], tuple[torch.Tensor, Ref]] = {}
        self.changed_leaves: list[tuple[torch.Tensor, Ref]] = []
        self.stops: set[int] = set()
        """Nodes through which no gradient passes by nature: what they give is not floating point, or is detached."""
        self.shown: dict[int, tuple[Place, Location | None]] = {}

    def add(self, node: Node) -> Ref:
        """Append `node` with the user's line; CausalityError at that line if it would need its own consequences."""
        index = len(self.nodes)
        place = here()
        try:
            self.frontiers.note(index, node)
        except CausalityError as error:
            error.at(place.resolve() if place else None)
            raise
        self.nodes.append(node)
        self.places.append(place)
        return Ref(index)

    def constant(self, tensor: torch.Tensor) -> Ref:
        """The node of a tensor of the user's own; the same tensor, unchanged, is one node."""
        key = (id(tensor), version_of(tensor))
        met = self.constants.get(key)
        if met is not None:
            node = self.nodes[met[1].node]
            if isinstance(node, Slot):
                return met[1]
            # Changes made through NumPy or .data are not counted: a look at the numbers finds them.
            if isinstance(node, Const) and isinstance(node.data, TensorConstant) and node.data.is_still(tensor):
                return met[1]
            self.changed_leaves.append(met)
        ref = self.add(Const(TensorConstant(tensor, where=None)))
        self.constants[key] = (tensor, ref)
        return ref

    def without_gradient(self, value: Ref) -> Ref:
        """`value`, through which no gradient may pass (it was made into something else while grad mode was off)."""
        node = self.nodes[value.node]
        if isinstance(node, Op) and node.nograd:
            return value
        if isinstance(node, Const) and isinstance(node.data, TensorConstant) and not node.data.source.requires_grad:
            return value
        return self.add(Op("alias", (value,), True))

    def location(self, ref: Ref) -> Location | None:
        place = self.places[ref.node]
        return place.resolve() if place else None

    def check_constants(self) -> None:
        """TraceError if a large constant was changed in place after it was met."""
        for node, place in zip(self.nodes, self.places, strict=True):
            if type(node) is Const and isinstance(node.data, TensorConstant) and not node.data.copied:
                node.data.where = place.resolve() if place else None
                node.data.check_unchanged()

    def experiment(self) -> Experiment:
        """The program so far, with the user's lines."""
        return Experiment(tuple(self.nodes), Lines(tuple(self.places)))

    def use_card(self, run: int, card: Card) -> None:
        """The card that holds for run number `run` (raw modules: it depends on the inputs' shapes)."""
        self.cards[run] = card

    def show(self, ref: Ref, where: Location | None) -> None:
        """Remember that everything `ref` depends on has been looked at: no later write may change it."""
        for index in self.ancestors([ref]):
            node = self.nodes[index]
            if isinstance(node, Read):
                order = self._order(node)
                if node.run not in self.shown or self.shown[node.run][0] < order:
                    self.shown[node.run] = (order, where)

    def check_nograd(self, scalar: Ref, targets: list[Ref]) -> None:
        """GradientError if the gradient would go through something recorded under no_grad (detach is meant)."""
        wanted = {ref.node for ref in targets}
        for index in sorted(self.ancestors([scalar], self.stops)):
            node = self.nodes[index]
            if (
                getattr(node, "nograd", False)
                and index not in self.stops
                and wanted & self.ancestors([Ref(index)], self.stops)
            ):
                raise GradientError(
                    f"the gradient would go through a value computed under torch.no_grad ({self.location(Ref(index))}); "
                    "compute it with grad mode on, or .detach() it if no gradient should pass",
                    where=resolve_here(),
                )

    def leaves(self) -> list[tuple[torch.Tensor, Ref]]:
        """The user's tensors that require grad, with their nodes."""
        met = [*self.constants.values(), *self.changed_leaves]
        return [(tensor, ref) for tensor, ref in met if tensor.requires_grad]

    def ancestors(self, roots: list[Ref], ends: Collection[int] = ()) -> set[int]:
        """Every node that `roots` depend on, through the model too: a read depends on the writes at or below it.

        What the nodes in `ends` depend on is left out.
        """
        writes = self._writes_by_run()
        seen: set[int] = set()
        stack = [ref.node for ref in roots]
        while stack:
            index = stack.pop()
            if index in seen:
                continue
            seen.add(index)
            if index in ends:
                continue
            node = self.nodes[index]
            stack.extend(ref.node for ref in operands(node))
            if isinstance(node, Read):
                stack.append(node.run)
                stack.extend(write for write, order in writes.get(node.run, ()) if order <= self._order(node))
        return seen

    def only(self, roots: dict[str, Ref]) -> tuple[Experiment, dict[int, int]]:
        """The part of the program that `roots` need, saved under their names, and where each old node went."""
        keep = sorted(self.ancestors(list(roots.values())))
        moved = {old: new for new, old in enumerate(keep)}
        nodes = [renumber(self.nodes[old], moved) for old in keep]
        places = [self.places[old] for old in keep]
        nodes += [Save(name, Ref(moved[ref.node], ref.out)) for name, ref in roots.items()]
        return Experiment(tuple(nodes), Lines((*places, *(None for _ in roots)))), moved

    def order_of(self, run: int, site: Site) -> int | None:
        """The site's place in the pass of that run; None for the tokens and lengths of a generation."""
        found = self.cards.get(run, self.card).by_site.get(site)
        return found[0] if found else None

    def _order(self, node: Read) -> Place:
        return place_of(self.order_of, node)

    def _writes_by_run(self) -> dict[int, list[tuple[int, Place]]]:
        found: dict[int, list[tuple[int, Place]]] = {}
        for index, node in enumerate(self.nodes):
            if isinstance(node, Write):
                read = self.read_of(index)
                found.setdefault(read.run, []).append((index, self._order(read)))
        return found

    def read_of(self, index: int) -> Read:
        """The Read at the bottom of a chain of writes."""
        node = self.nodes[index]
        while isinstance(node, Write):
            node = self.nodes[node.prev.node]
        assert isinstance(node, Read)
        return node


def renumber(node: Node, moved: dict[int, int]) -> Node:
    """`node` with its operands (and a Read's run) named by their new numbers."""
    if isinstance(node, Const):
        return node
    if isinstance(node, Read):
        return dataclasses.replace(node, run=moved[node.run])
    changes: dict[str, Any] = {f.name: _moved(getattr(node, f.name), moved) for f in dataclasses.fields(node)}
    return dataclasses.replace(node, **changes)


def _moved(value: object, moved: dict[int, int]) -> object:
    if isinstance(value, Ref):
        return Ref(moved[value.node], value.out)
    return tuple(_moved(item, moved) for item in value) if type(value) is tuple else value
