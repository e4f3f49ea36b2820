"""Whether a gradient would be complete: everything on the way from the scalar to its targets must carry it.

The way back from a value leads through the operands of operations, and from a read through the model to whatever was
written, or stands as a target, earlier in the same run. `detach` ends it on purpose; what was recorded while grad mode
was off would end it silently, and is refused.
"""

from __future__ import annotations

from weft.errors import GradientError
from weft.ir.causality import Dependencies, Place
from weft.ir.limits import Limits, hold
from weft.ir.nodes import Grad, Op, Read, Ref, Run, Update, Write
from weft.ir.types import TensorType

Types = list[tuple[TensorType, ...]]


class Gradients:
    """Checks the Grad nodes of one program; the number of nodes it visits for all of them is limited."""

    def __init__(self, graph: Dependencies, types: Types, limits: Limits) -> None:
        self.graph = graph
        self.nodes = graph.nodes
        self.types = types
        self.limits = limits
        self.visits = 0
        self.version: dict[tuple[int, Place], int] = {}
        for index, key in graph.place.items():
            if isinstance(self.nodes[index], Write):
                self.version[key] = index

    def check(self, node: Grad) -> None:
        """GradientError unless `node.of` depends on each target, and nothing between them would lose gradient."""
        wrt = {ref.node for ref in node.wrt}
        sites = self._model_targets(wrt)
        reached = self._walk(node.of.node, wrt, sites)
        latest: dict[int, Place] = {}
        for index in reached:
            if isinstance(self.nodes[index] if index < len(self.nodes) else None, Read):
                run, place = self.graph.place[index]
                latest[run] = max(latest.get(run, place), place)
        for ref in node.wrt:
            key = self.graph.place.get(ref.node)
            if ref.node not in reached and not (ref.node in sites and key and latest.get(key[0], (-1, -1)) > key[1]):
                raise GradientError(
                    f"the scalar {shown(node.of)} does not depend on the target {shown(ref)}, so there is no gradient; "
                    "is the target a value from before an edit, or behind detach()?"
                )

    def _model_targets(self, wrt: set[int]) -> set[int]:
        """The targets that the model itself goes on with: a site's last version."""
        found: set[int] = set()
        for index in wrt:
            if (key := self.graph.place.get(index)) is not None and self.version.get(key, index) == index:
                found.add(index)
        return found

    def _walk(self, start: int, wrt: set[int], sites: set[int]) -> dict[int, bool]:
        """Every node that gradient reaches from `start`, and whether a target lies behind it."""
        first: dict[int, Place] = {}
        for index in sites:
            run, place = self.graph.place[index]
            first[run] = min(first.get(run, place), place)
        reached: dict[int, bool] = {}
        stack = [(start, False)]
        while stack:
            index, done = stack.pop()
            if not done and index in reached:
                continue
            needs = self._needs(index)
            if not done:
                self.visits += 1
                reached[index] = False
                stack.append((index, True))
                stack.extend((need, False) for need in needs if need not in reached)
                continue
            behind = any(reached[need] for need in needs) or self._through_model(index, first)
            if behind:
                self._carries(index)
            reached[index] = behind or index in wrt
        hold(self.limits, "gradient_visits", self.visits)
        return reached

    def _through_model(self, index: int, first: dict[int, Place]) -> bool:
        if index >= len(self.nodes) or not isinstance(self.nodes[index], Read):
            return False
        run, place = self.graph.place[index]
        return run in first and first[run] < place

    def _needs(self, index: int) -> list[int]:
        """What gradient passes to from number `index`: nothing from a detach, nothing into what is not floating."""
        if index >= len(self.nodes):
            return self.graph.needs(index)
        node = self.nodes[index]
        if isinstance(node, Op) and node.name == "detach":
            return []
        needs = self.graph.needs(index)
        return [need for need in needs if need >= len(self.nodes) or self._floating(need)]

    def _floating(self, index: int) -> bool:
        return any(type_.category == "float" for type_ in self.types[index])

    def _carries(self, index: int) -> None:
        """GradientError if node `index`, behind which a target lies, would not pass its gradient on."""
        node = self.nodes[index] if index < len(self.nodes) else None
        if isinstance(node, Op | Update) and node.nograd:
            what = node.name if isinstance(node, Op) else "a change in place"
            raise GradientError(
                f"node {index} ({what}) lies between the scalar and a target but was recorded with grad mode off "
                "(no_grad, or inside an autograd.Function): the gradient would be incomplete; move it out, or detach()"
            )
        if isinstance(node, Grad):
            raise GradientError(f"node {index} is itself a gradient; gradients of gradients are not supported")
        if isinstance(node, Read):
            run = self.nodes[node.run]
            if isinstance(run, Run) and run.kind == "generate":
                raise GradientError(
                    "a gradient through a generation is not supported; run the tokens it gave, s.run(g.tokens), instead"
                )


def shown(ref: Ref) -> str:
    return f"%{ref.node}.{ref.out}" if ref.out else f"%{ref.node}"
