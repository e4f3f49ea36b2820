"""Running one operation of the table on real tensors.

    call("softmax.int", (x, -1))      → (tensor,)

The public overload is called, which checks its arguments; the values of index operands are checked here before that,
since on an accelerator one index out of range would end everyone's work.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from weft.errors import BoundsError, OpError, ShapeError
from weft.ir.nodes import Dtype, ViewStep
from weft.ir.optable import REQUIRED, OpSpec, spec_of
from weft.ir.optable.bounds import Bound, bounds
from weft.ir.types import DTYPES
from weft.ir.views import STEPS

TORCH_DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPES}

# A recorded view may find other strides here than it had: reshape gives the same numbers whatever they are.
AS = {"view": "reshape"}


class _Kernel:
    """One row of the table made ready: the overload, and which arguments go by keyword."""

    __slots__ = ("call", "keywords", "positional", "spec")

    def __init__(self, spec: OpSpec) -> None:
        self.spec = spec
        name, _, overload = AS.get(spec.name, spec.name).partition(".")
        self.call: Callable[..., Any] = getattr(getattr(torch.ops.aten, name), overload or "default")
        schema = self.call._schema  # type: ignore[attr-defined]
        by_keyword = {each.name for each in schema.arguments if each.kwarg_only}
        self.keywords = tuple((at, p.name) for at, p in enumerate(spec.params) if p.name in by_keyword)
        self.positional = len(spec.params) - len(self.keywords)


@cache
def _kernel(name: str) -> _Kernel:
    return _Kernel(spec_of(name))


def call(name: str, args: tuple) -> tuple[torch.Tensor, ...]:
    """What `name` gives for `args` (tensors in the places of operands). BoundsError for an index out of range."""
    kernel = _kernel(name)
    if kernel.spec.index:
        check_bounds(kernel.spec, args)
    if name in DENSE:
        args = tuple(_dense(arg) for arg in args)
    if (guard := GUARDS.get(name)) is not None:
        guard(name, *args)
    given = [_argument(arg) for arg in args]
    keywords = {key: given[at] for at, key in kernel.keywords if at < len(given)}
    found = kernel.call(*given[: kernel.positional], **keywords)
    return (found,) if isinstance(found, torch.Tensor) else tuple(found)


# On an expanded operand these read past its end (found by fuzzing: median along the expanded dimension).
DENSE = frozenset("median.dim nanmedian.dim median nanmedian kthvalue mode sort sort.stable topk argsort".split())


def _dense(arg: Any) -> Any:
    if isinstance(arg, torch.Tensor) and 0 in arg.stride() and arg.numel():
        return arg.contiguous() if any(n > 1 and t == 0 for n, t in zip(arg.shape, arg.stride(), strict=True)) else arg
    return arg


def _argument(arg: Any) -> Any:
    if isinstance(arg, Dtype):
        return TORCH_DTYPES[arg.name]
    return list(arg) if isinstance(arg, tuple) else arg


def check_bounds(spec: OpSpec, args: tuple) -> None:
    """BoundsError if a value of an index operand points outside what it indexes."""
    missing = tuple(param.default for param in spec.params[len(args) :])
    if REQUIRED in missing:
        raise OpError(f"{spec.name} was given {len(args)} arguments: {spec.signature}")
    full = args + missing
    for bound in bounds(spec, full):
        tensor = full[bound.place] if bound.item is None else full[bound.place][bound.item]
        if isinstance(tensor, torch.Tensor) and tensor.numel() and tensor.device.type != "meta":
            _check(spec, bound, tensor.detach())


def _check(spec: OpSpec, bound: Bound, tensor: torch.Tensor) -> None:
    if tensor.dtype.is_floating_point or tensor.dtype == torch.bool:
        return  # refused by the op's own rule
    if bound.ignore is not None:
        tensor = tensor[tensor != bound.ignore]
        if not tensor.numel():
            return
    low, high = (int(each) for each in torch.aminmax(tensor))
    if low < bound.low or high >= bound.high:
        wrong = low if low < bound.low else high
        raise BoundsError(
            f"{spec.name}: `{spec.params[bound.place].name}` holds {wrong}, but only {bound.low} to {bound.high - 1} "
            f"are there; check the indices with .clamp or a mask"
        )


def view(tensor: torch.Tensor, step: ViewStep) -> torch.Tensor:
    """The part of `tensor` that one step of a chain of views leads to, sharing its memory.

    `tensor` must be laid out as the chain was recorded on; ShapeError where that makes the step impossible.
    """
    if step.op not in STEPS:
        raise OpError(f"{step.op} is no view; views are {', '.join(STEPS)}")
    shape = step.args[0] if step.op in ("view", "reshape") else None
    if shape is None:
        return call(step.op, (tensor, *step.args))[0]
    try:
        return tensor.view(shape)
    except RuntimeError as error:
        raise ShapeError(f"{step.op}{step.args} on shape {list(tensor.shape)}: {error}") from None


def _no_overflow(name: str, x: torch.Tensor, y: torch.Tensor | float, mode: str | None) -> None:
    """The least integer divided by -1 has no value; the processor stops the whole process for it."""
    if mode != "trunc" or x.dtype.is_floating_point or x.dtype == torch.bool or not x.numel():
        return
    divisor = y if isinstance(y, torch.Tensor) else torch.tensor(y)
    if not divisor.dtype.is_floating_point and bool((divisor == -1).any()):
        least = torch.iinfo(torch.result_type(x, y)).min
        if bool((x == least).any()):
            raise BoundsError(f"{name}: {least} divided by -1 does not fit its dtype; convert with .double()")


GUARDS: dict[str, Callable[..., None]] = {"div.Tensor_mode": _no_overflow, "div.Scalar_mode": _no_overflow}
