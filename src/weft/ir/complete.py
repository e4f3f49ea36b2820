"""Whether gradients would be complete: everything on the way from a scalar to its targets must carry them.

The way back from a value leads through the operands of operations, and from a read through the model to whatever was
written, or stands as a target, earlier in the same run. `detach` ends it on purpose; what was recorded while grad mode
was off would end it silently, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from weft.errors import GradientError, WeftError
from weft.ir.causality import Dependencies, Place
from weft.ir.limits import Limits, hold
from weft.ir.nodes import Grad, Node, Op, Read, Ref, Run, Update, Write
from weft.ir.types import TensorType

Located = Callable[[WeftError, int], WeftError]


class Gradients:
    """Checks the Grad nodes of one causal program; how many nodes it visits for all of them is limited."""

    def __init__(self, graph: Dependencies, types: Sequence[Sequence[TensorType]], limits: Limits) -> None:
        self.graph = graph
        self.nodes = graph.nodes
        self.limits = limits
        self.visits = 0
        self.floating = [any(type_.category == "float" for type_ in outputs) for outputs in types]
        self.known: dict[int, list[int]] = {}
        self.version = {key: index for index, key in graph.place.items() if isinstance(self.nodes[index], Write)}

    def check_all(self, located: Located) -> None:
        """GradientError, made by `located` to point at its node, for the first Grad that would be incomplete.

        Gradients of one scalar share one walk: a gradient asked for site by site costs little more than one.
        """
        groups: dict[int, dict[int, Grad]] = {}
        for index, node in enumerate(self.nodes):
            if isinstance(node, Grad):
                groups.setdefault(node.of.node, {})[index] = node
        for group in groups.values():
            try:
                self._check(tuple(group.values()))
            except GradientError:
                for index, node in group.items():  # which of them is it?
                    try:
                        self._check((node,))
                    except WeftError as error:
                        raise located(error, index) from None
            except WeftError as error:
                raise located(error, next(iter(group))) from None

    def _check(self, grads: tuple[Grad, ...]) -> None:
        """GradientError unless the scalar depends on each target, and nothing between them would lose gradient."""
        targets = {ref.node for grad in grads for ref in grad.wrt}
        first: dict[int, Place] = {}  # of each run, the first place of a target that the model goes on with
        for index in filter(self._last_version, targets):
            run, place = self.graph.place[index]
            first[run] = min(first.get(run, place), place)
        reached = self._walk(grads[0].of.node, targets, first)
        latest: dict[int, Place] = {}
        for index in reached:
            if self._is_read(index):
                run, place = self.graph.place[index]
                latest[run] = max(latest.get(run, place), place)
        for grad in grads:
            for ref in grad.wrt:
                if ref.node not in reached and not self._before(ref.node, latest):
                    raise GradientError(
                        f"the scalar {shown(grad.of)} does not depend on the target {shown(ref)}, so there is no "
                        "gradient; is the target a value from before an edit, or behind detach()?"
                    )

    def _last_version(self, index: int) -> bool:
        """Whether node `index` is a site's last version, the one that the model goes on with."""
        key = self.graph.place.get(index)
        return key is not None and self.version.get(key, index) == index

    def _before(self, index: int, latest: dict[int, Place]) -> bool:
        """Whether the model leads from node `index` to a read that the scalar depends on."""
        if not self._last_version(index):
            return False
        run, place = self.graph.place[index]
        return run in latest and latest[run] > place

    def _is_read(self, index: int) -> bool:
        return index < len(self.nodes) and isinstance(self.nodes[index], Read)

    def _walk(self, start: int, targets: set[int], first: dict[int, Place]) -> dict[int, bool]:
        """Every node that gradient reaches from `start`, and whether a target is it or lies behind it."""
        reached: dict[int, bool] = {}
        stack = [start]
        while stack:
            index = stack[-1]
            needs = self._needs(index)
            if index not in reached:
                reached[index] = False
                stack.extend(need for need in needs if need not in reached)
                continue
            stack.pop()
            if reached[index]:
                continue
            behind = any(map(reached.__getitem__, needs))
            if not behind and first and self._is_read(index):
                run, place = self.graph.place[index]
                behind = run in first and first[run] < place
            if behind:
                self._carries(index)
            reached[index] = behind or index in targets
        self.visits += len(reached)
        hold(self.limits, "gradient_visits", self.visits)
        return reached

    def _needs(self, index: int) -> list[int]:
        """What gradient passes to from number `index`: nothing from a detach, nothing into what is not floating."""
        if (found := self.known.get(index)) is None:
            node: Node | None = self.nodes[index] if index < len(self.nodes) else None
            ends = isinstance(node, Op) and node.name == "detach"
            needs = [] if ends else self.graph.needs(index)
            found = self.known[index] = [each for each in needs if each >= len(self.nodes) or self.floating[each]]
        return found

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
