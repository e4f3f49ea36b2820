"""What of an experiment has to be run at all: the part that its results depend on."""

from __future__ import annotations

from collections import defaultdict

from weft.ir.causality import OrderOf, place_of
from weft.ir.nodes import Experiment, Grad, Keep, Read, Ref, Run, Save, Write, operands


class Uses:
    """Which nodes of an experiment are needed, and who uses whom.

    Without `order_of` a run that is read runs whole, with all its edits; with it, an edit is needed only if something
    later in the model is (edits that are not have no effect on anything read).

    `reads` and `writes` of a run by number; `final` is the last write to each read's site (the read itself if there is
    none): what the model goes on with. `with_grad` are the nodes that some gradient goes through.
    """

    def __init__(self, experiment: Experiment, order_of: OrderOf | None = None) -> None:
        self.nodes = experiment.nodes
        self.order_of = order_of
        self.reads: dict[int, list[int]] = defaultdict(list)
        self.writes: dict[int, list[int]] = defaultdict(list)
        self.root: dict[int, int] = {}
        self.final: dict[int, int] = {}
        self._index()
        saved = [i for i, node in enumerate(self.nodes) if isinstance(node, Save | Keep)]
        self.needed = self.closure(saved)
        for root in self.final:
            self.final[root] = root
        for index in sorted(self.root):
            if index in self.needed:
                self.final[self.root[index]] = index
        grads = [node.of.node for i, node in enumerate(self.nodes) if isinstance(node, Grad) and i in self.needed]
        self.with_grad = self.closure(grads) if grads else set()
        self.targets: set[Ref] = {
            r for i, n in enumerate(self.nodes) if isinstance(n, Grad) and i in self.needed for r in n.wrt
        }

    def graded(self) -> set[int]:
        """The runs that a gradient passes through: it starts in them, or comes in by an edit."""
        begun = (self.nodes[self.root.get(ref.node, ref.node)] for ref in self.targets)  # of a write, its site
        found = {node.run for node in begun if isinstance(node, Read)}
        before = -1
        while len(found) > before:  # a read may be written before the edit that it depends on
            before = len(found)
            self._spread(found)
        return found

    def _spread(self, found: set[int]) -> None:
        """Add the runs that what depends on a gradient's targets, and on the runs found so far, is written into."""
        reached: set[int] = {ref.node for ref in self.targets}
        for index in sorted(self.with_grad):
            node = self.nodes[index]
            if isinstance(node, Read):
                if node.run in found:
                    reached.add(index)
            elif any(ref.node in reached for ref in operands(node)):
                reached.add(index)
                if isinstance(node, Write):
                    read = self.nodes[self.root[index]]
                    assert isinstance(read, Read)
                    found.add(read.run)

    def _index(self) -> None:
        for index, node in enumerate(self.nodes):
            if isinstance(node, Read):
                self.reads[node.run].append(index)
                self.root[index] = self.final[index] = index
            elif isinstance(node, Write):
                root = self.root[index] = self.root[node.prev.node]
                self.final[root] = index
                read = self.nodes[root]
                assert isinstance(read, Read)
                self.writes[read.run].append(index)

    def closure(self, roots: list[int]) -> set[int]:
        """Everything that `roots` depend on."""
        seen: set[int] = set()
        stack = list(roots)
        while stack:
            index = stack.pop()
            if index in seen:
                continue
            seen.add(index)
            node = self.nodes[index]
            stack.extend(ref.node for ref in operands(node))
            if isinstance(node, Read):
                stack.append(node.run)
                stack.extend(self._before(node))
            elif isinstance(node, Run) and self.order_of is None:
                stack.extend(self.writes[index])
                stack.extend(self.root[write] for write in self.writes[index])
        return seen

    def reaches(self, of: Ref, target: Ref) -> bool:
        """Whether a value depends on a target as it is written, even where none of the numbers happen to: its gradient
        is then 0. (Of what is connected by the model alone, a graph without it is a fault, and no reason for zeros.)"""
        return target.node in self.closure([of.node])

    def _before(self, read: Read) -> list[int]:
        """The writes of a run that come before a site of it."""
        if self.order_of is None:
            return []
        run = self.nodes[read.run]
        if isinstance(run, Run) and run.kind == "generate":  # every step of it may come after any other
            return self.writes[read.run]
        place = place_of(self.order_of, read)
        found = []
        for write in self.writes[read.run]:
            other = self.nodes[self.root[write]]
            assert isinstance(other, Read)
            if place_of(self.order_of, other) < place:
                found.append(write)
        return found

    def runs(self) -> list[int]:
        """The runs that are needed, in the order written."""
        return [i for i, node in enumerate(self.nodes) if isinstance(node, Run) and i in self.needed]
