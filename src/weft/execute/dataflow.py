"""The arithmetic of an experiment: every node is computed as soon as its operands are there, and freed after its last use.

A node that depends on a read of every step of a generation (EACH) has a value for each step; the key of a value is
therefore (node, step), with step None for all others.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

import torch

from weft.errors import ExecutionError, GradientError, WeftError
from weft.execute.arithmetic import Arithmetic, Key, replaced
from weft.execute.lazy import full
from weft.execute.needed import Uses
from weft.ir.nodes import (
    EACH,
    Const,
    Experiment,
    Grad,
    Loop,
    Read,
    Ref,
    Run,
    Write,
    operands,
)


class Dataflow(Arithmetic):
    """Values as they become known. `steps` says of each generation's run how many steps it has."""

    def __init__(
        self, loaded: Any, experiment: Experiment, uses: Uses, constant: Callable[[Any], torch.Tensor]
    ) -> None:
        super().__init__(loaded, experiment, constant)
        self.uses = uses
        self.needs = [tuple({ref.node for ref in operands(node)}) for node in self.nodes]
        self.stepped = self._stepped()
        self.consumers: dict[int, list[int]] = defaultdict(list)
        self.pending: dict[Key, int] = {}
        self.uses_left: dict[Key, int] = defaultdict(int)
        self.queue: deque[Key] = deque()
        self.waiting: list[Key] | None = None  # gradients that wait, to be taken together
        self._prepare()

    # -- building ---

    def _stepped(self) -> dict[int, int]:
        """Nodes with a value for each step, and how many steps."""
        found: dict[int, int] = {}
        for index, node in enumerate(self.nodes):
            if isinstance(node, Read) and node.step == EACH:
                found[index] = _options(self.nodes[node.run])["max_new_tokens"]
            elif not isinstance(node, Read):
                counts = {found[item] for item in self.needs[index] if item in found} if found else None
                if not counts:
                    continue
                if len(counts) > 1:
                    raise self._error(
                        index, ExecutionError("values of every step of two generations of different lengths")
                    )
                if isinstance(node, Write) and node.prev.node not in found:
                    raise self._error(index, ExecutionError("a value of every step cannot be written at a single step"))
                found[index] = counts.pop()
        return found

    def keys(self, index: int) -> list[Key]:
        return [(index, step) for step in range(self.stepped[index])] if index in self.stepped else [(index, None)]

    def _operand_keys(self, key: Key) -> set[Key]:
        index, step = key
        if not self.stepped:
            return {(item, None) for item in self.needs[index]}
        return {(item, step if item in self.stepped else None) for item in self.needs[index]}

    def _prepare(self) -> None:
        for index in sorted(self.uses.needed):
            node = self.nodes[index]
            if isinstance(node, (Run, Loop)):
                continue
            for key in self.keys(index):
                wanted = self._operand_keys(key)
                self.pending[key] = len(wanted) + (1 if isinstance(node, Read) else 0)
                for item in wanted:
                    self.uses_left[item] += 1
            for item in self.needs[index]:
                self.consumers[item].append(index)
        for run, writes in self.uses.writes.items():
            for index in [*writes, *self.uses.reads[run]]:
                for key in self.keys(index):
                    self.uses_left[key] += 1  # held until its run has ended

    # -- running ---

    def start(self) -> None:
        """Compute everything that depends on no run."""
        self.queue.extend(key for key, count in self.pending.items() if count == 0)
        self.drain()

    def deliver(self, key: Key, outputs: tuple[Any, ...]) -> None:
        """A value has become known; whatever waited for it is computed."""
        self._put(key, outputs)
        self.drain()

    def has(self, key: Key) -> bool:
        return key in self.values

    def release(self, key: Key) -> None:
        """One use less; the last one frees the value."""
        self.uses_left[key] -= 1
        if self.uses_left[key] <= 0:
            self.values.pop(key, None)

    def drain(self) -> None:
        while self.queue:
            key = self.queue.popleft()
            if key in self.values:
                continue
            if self.waiting is not None and key[1] is None and isinstance(self.nodes[key[0]], Grad):
                self.waiting.append(key)
                continue
            self.compute(key)

    def compute(self, key: Key) -> None:
        """Compute a node whose operands are there; an error points at the line that it comes from."""
        try:
            outputs = self._compute(key)
        except WeftError as error:
            raise self._error(key[0], error) from None
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            raise self._error(key[0], ExecutionError(f"{type(error).__name__}: {error}")) from error
        self.computed(key, outputs)

    def computed(self, key: Key, outputs: tuple[Any, ...]) -> None:
        """A node has its value: what waits for it may go on, and what it needed may be freed."""
        self._put(key, outputs)
        for item in self._operand_keys(key):
            self.release(item)

    def _put(self, key: Key, outputs: tuple[Any, ...]) -> None:
        index, step = key
        if self.uses_left[key] > 0:
            self.values[key] = outputs
        for consumer in self.consumers[index]:
            steps = self.keys(consumer) if step is None else [(consumer, step)]
            for each in steps:
                self.pending[each] -= 1
                if self.pending[each] == 0:
                    self.queue.append(each)

    def _error(self, index: int, error: WeftError) -> WeftError:
        error.details.setdefault("node", index)
        return error.at(self.experiment.where(index))

    # -- one node ---

    def _compute(self, key: Key) -> tuple[Any, ...]:
        index, step = key
        node = self.nodes[index]
        graph = index in self.uses.with_grad and not getattr(node, "nograd", False)
        with torch.set_grad_enabled(graph):
            taken = isinstance(node, Grad)
            outputs = self._gradients(node.of, node.wrt, step) if taken else self.value(index, node, step)
            return tuple(self.target(Ref(index, out), value) for out, value in enumerate(outputs))

    def target(self, ref: Ref, value: Any) -> Any:
        """What a gradient is asked for must be part of the graph."""
        if ref not in self.uses.targets:
            return value
        whole = full(value)  # put together once: the gradient is that of this very tensor
        return whole if whole.requires_grad else whole.requires_grad_()

    def _gradients(self, of: Ref, wrt: tuple[Ref, ...], step: int | None) -> tuple[torch.Tensor, ...]:
        scalar, targets = self.get(of, step), [self.get(ref, step) for ref in wrt]
        found: tuple[torch.Tensor | None, ...] = (None,) * len(wrt)
        if scalar.requires_grad:
            found = torch.autograd.grad(
                scalar,
                targets,
                grad_outputs=torch.ones_like(scalar),
                retain_graph=True,
                create_graph=bool(self.uses.with_grad & self._later(of)),
                allow_unused=True,
            )
        return tuple(
            self._nothing(of, ref, target) if gradient is None else gradient
            for ref, target, gradient in zip(wrt, targets, found, strict=True)
        )

    def _nothing(self, of: Ref, ref: Ref, target: torch.Tensor) -> torch.Tensor:
        """The gradient of what the numbers do not depend on: 0, if they might have."""
        if self.uses.reaches(of, ref):
            return torch.zeros_like(target)
        what = self.nodes[self.uses.root.get(ref.node, ref.node)]
        raise GradientError(f"this value does not depend on {_name(what)}, so there is no gradient there")

    def _later(self, of: Ref) -> set[int]:
        return {i for i, node in enumerate(self.nodes) if isinstance(node, Grad) and node.of == of}


def _options(run: Any) -> dict[str, Any]:
    return dict(run.options)


def _name(node: Any) -> str:
    return (
        str(node.site) if isinstance(node, Read) else "a tensor of yours" if isinstance(node, Const) else "that value"
    )


__all__ = ["Dataflow", "Key", "replaced"]
