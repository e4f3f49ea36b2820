"""What one node of an experiment gives, from the values of its operands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from weft.errors import ExecutionError
from weft.execute import kernels
from weft.execute.lazy import Lazy, LazySite, full
from weft.ir.nodes import (
    Apply,
    Const,
    Experiment,
    Keep,
    Loop,
    Op,
    Param,
    Ref,
    Save,
    Slot,
    Update,
    ViewStep,
    Write,
)
from weft.ir.views import apply_chain

Key = tuple[int, int | None]
Known = Callable[[str, torch.Tensor], None]
"""Is told of a saved value (detached, changed by nobody) as soon as it is known."""


class Arithmetic:
    """Values by node and step, and what can be made of them. `constant` makes a tensor of a constant's data."""

    def __init__(self, loaded: Any, experiment: Experiment, constant: Callable[[Any], torch.Tensor]) -> None:
        self.loaded, self.experiment, self.constant = loaded, experiment, constant
        self.nodes = experiment.nodes
        self.values: dict[Key, tuple[Any, ...]] = {}
        self.saved: dict[str, Any] = {}
        self.known: Known | None = None
        self.given: dict[int, tuple[Any, ...]] = {}  # what the slots of a loop's body hold in this step
        self.stepped: Mapping[int, int] = {}

    def value(self, key: int, node: Any, step: int | None) -> tuple[Any, ...]:
        match node:
            case Const(data):
                return (self.constant(data),)
            case Param(name):
                return (self.loaded.param(name).detach(),)
            case Apply(part, arg):
                return (self.loaded.apply(part, self.get(arg, step)),)
            case Op(name, args):
                return self._op(name, args, step)
            case Write(prev, view, value):
                return (self._write(prev, view, value, step),)
            case Update(base, view, value, layout):
                return (replaced(self.get(base, step), view, self.get(value, step), layout),)
            case Save(name, value):
                self._save(name, self.get(value, step), step)
                return ()
            case Slot():
                return self.given[key]
            case Keep() | Loop():
                raise ExecutionError(
                    f"{type(node).__name__.lower()} has its place in the program, but nothing runs it yet"
                )
        raise ExecutionError(f"a node of kind {type(node).__name__} cannot be computed")

    def get(self, ref: Ref, step: int | None) -> torch.Tensor:
        """An operand's numbers."""
        return full(self.held(ref, step))

    def held(self, ref: Ref, step: int | None) -> Any:
        """An operand, perhaps not put together yet."""
        return self.values[ref.node, step if ref.node in self.stepped else None][ref.out]

    def _op(self, name: str, args: tuple[Any, ...], step: int | None) -> tuple[Any, ...]:
        first = self.held(args[0], step) if args and isinstance(args[0], Ref) else None
        if isinstance(first, Lazy):
            answer = first.op(name, self._args(args[1:], step))
            if answer is not None:
                return (answer,)
        return kernels.call(name, self._args(args, step))

    def _write(self, prev: Ref, view: tuple[ViewStep, ...], value: Ref, step: int | None) -> Any:
        base, new = self.held(prev, step), self.held(value, step)
        if not isinstance(base, LazySite):
            return replaced(full(base), view, full(new))
        if isinstance(new, LazySite) and not view and new.layout is base.layout:
            return new  # an indexed write: already this site with some places replaced
        return base.written(view, full(new))

    def _args(self, arg: Any, step: int | None) -> Any:
        if type(arg) is Ref:
            return self.get(arg, step)
        return tuple([self._args(item, step) for item in arg]) if isinstance(arg, tuple) else arg

    def _save(self, name: str, value: torch.Tensor, step: int | None) -> None:
        kept = value.detach().clone()
        if step is None:
            self.saved[name] = kept
            if self.known is not None:
                self.known(name, kept)
        else:
            self.saved.setdefault(name, {})[step] = kept


def replaced(
    base: torch.Tensor, view: tuple[ViewStep, ...], value: torch.Tensor, layout: tuple[int, ...] = ()
) -> torch.Tensor:
    """A copy of `base` in which the part that `view` leads to is `value`."""
    if layout:
        back = sorted(range(len(layout)), key=lambda dim: layout[dim])
        result = base.permute(layout).clone(memory_format=torch.contiguous_format).permute(back)
    else:
        result = base.clone(memory_format=torch.contiguous_format)
    if len(view) == 1 and view[0].op == "select.int":  # the most common write; what follows gives the same
        result.select(*view[0].args).copy_(value)
        return result
    offset, sizes, strides = apply_chain(tuple(base.shape), layout, view)
    result.as_strided(sizes, strides, offset).copy_(value)
    return result
