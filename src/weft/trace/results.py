"""What a call's result looks like: found once, then remembered.

It depends only on the op, the operands' dtype, size and strides, and the other arguments (of floats the type alone).
PyTorch's meta kernels find it, and the op table's own rule is held against them: the meta kernels take a hundred
microseconds, a sweep traces thousands of ops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from weft.errors import DtypeError, OpError, ProgramError, ShapeError, WeftError
from weft.ir.nodes import Dtype
from weft.ir.optable import infer
from weft.ir.types import TensorType
from weft.trace.constants import NAMES, type_of
from weft.trace.location import where
from weft.trace.lower import Lowered, our_dtype
from weft.trace.tensor import Signature, Traced


class Output(NamedTuple):
    """One output of a call. `place` says which of the public op's outputs it is; None: internal to PyTorch."""

    signature: Signature
    layout: tuple[int, ...]
    place: int | None


class Result(NamedTuple):
    """What is remembered of a call. An output that is no tensor is None; `floating`: gradients may pass through it."""

    outputs: tuple[Output | None, ...]
    several: bool
    floating: bool


_MOST = 1 << 16


def remembered(memory: dict[Any, Any], key: Any, value: Any) -> Any:
    """Keep `value` under `key`; a memory that has grown too large begins anew."""
    if len(memory) >= _MOST:
        memory.clear()
    memory[key] = value
    return value


def describe(values: Any, key: list[Any], tensors: list[torch.Tensor], floats: list[float]) -> None:
    """Append to `key` what a result's shape depends on, to `tensors` every operand, and to `floats` what it does not."""
    for value in values:
        kind = type(value)
        if kind is Traced:
            key.append(value._sig)
            tensors.append(value)
        elif kind is int or kind is bool:
            key.append(kind)
            key.append(value)
        elif kind is float:
            key.append(float)
            floats.append(value)
        elif kind is list or kind is tuple:
            key.append(len(value))
            describe(value, key, tensors, floats)
        elif isinstance(value, torch.Tensor):
            key.append((value.dtype, value.shape, value.stride()))
            tensors.append(value)
        elif isinstance(value, tuple | list):
            key.append(len(value))
            describe(tuple(value), key, tensors, floats)
        else:
            key.append(value)


def result_of(func: Any, args: Any, kwargs: Any, lowered: Lowered) -> Result:
    """Run the meta kernel; its complaint, or the op table's, is an error at the user's line."""
    device = "cpu" if func._schema.name in _AS_IT_RUNS and _elements(args) <= _SMALL else "meta"
    try:
        out = func(*_empty(args, device), **{name: _empty(value, device) for name, value in kwargs.items()})
    except WeftError:
        raise
    except (RuntimeError, IndexError, TypeError, ValueError, NotImplementedError) as error:
        raise misfit(func, (args, kwargs), error) from None
    several = isinstance(out, list | tuple)
    found = [_signature(item) if isinstance(item, torch.Tensor) else None for item in (out if several else (out,))]
    places = lowered.outputs if lowered.outputs is not None else tuple(range(len(found)))
    outputs = tuple(
        None if signature is None else Output(signature, layout_of(*signature[1:]), place)
        for signature, place in zip(found, places, strict=True)
    )
    _agree(lowered, outputs)
    floating = any(output is not None and output.signature[0].is_floating_point for output in outputs)
    return Result(outputs, several, floating)


def _signature(tensor: torch.Tensor) -> Signature:
    return tensor.dtype, tuple(tensor.shape), tensor.stride()


_AS_IT_RUNS = frozenset(
    f"aten::{name}"
    for name in "scaled_dot_product_attention native_batch_norm _native_batch_norm_legit_no_training".split()
)
"""Their results lie otherwise in memory than the meta kernels say; what shares memory later depends on it."""
_SMALL = 1 << 20


def _elements(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel()
    return sum(_elements(item) for item in value) if isinstance(value, list | tuple) else 0


def _empty(value: Any, device: str) -> Any:
    """The same arguments without numbers: on the meta device, or zeros."""
    if isinstance(value, torch.Tensor):
        dtype, size, stride = value._sig if type(value) is Traced else _signature(value)
        if device == "meta":
            return torch.empty_strided(size, stride, dtype=dtype, device=device)
        extent = 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if 0 not in size else 0
        return torch.zeros(extent, dtype=dtype).as_strided(size, stride)
    if isinstance(value, list | tuple):
        return [_empty(item, device) for item in value]
    return torch.device(device) if isinstance(value, torch.device) else value


def _agree(lowered: Lowered, outputs: tuple[Output | None, ...]) -> None:
    """Hold the op table's rule against PyTorch's: a rule that differs must not reach a program."""
    try:
        types = infer(lowered.name, tuple(_typed(arg) for arg in lowered.args))
    except WeftError as error:
        raise error.at(where()) from None
    for output in outputs:
        if output is None or output.place is None:
            continue
        expected = TensorType(NAMES[output.signature[0]], output.signature[1])
        if types[output.place] != expected:
            raise OpError(
                f"weft's rule for {lowered.name} gives {types[output.place]} where PyTorch gives {expected}; "
                "this is a fault in weft: please report it with this line",
                where=where(),
            )


def _typed(value: Any) -> Any:
    if type(value) is Traced:
        return value.tensor_type
    if isinstance(value, torch.Tensor):
        return type_of(value)
    if isinstance(value, list | tuple):
        return tuple(_typed(item) for item in value)
    return our_dtype(value) if isinstance(value, torch.dtype) else value


def as_argument(value: Any, operand: Callable[[torch.Tensor], Any]) -> Any:
    """An argument in the form that nodes hold; `operand` gives the node of a tensor."""
    if isinstance(value, torch.Tensor):
        return operand(value)
    if isinstance(value, list | tuple) and not isinstance(value, Dtype):
        return tuple(as_argument(item, operand) for item in value)
    return our_dtype(value) if isinstance(value, torch.dtype) else value


def misfit(func: Any, given: Any, error: Exception) -> ProgramError:
    """PyTorch's complaint about shapes or dtypes as weft's error at the user's line."""
    tensors: list[torch.Tensor] = []
    _collect(given, tensors)
    types = ", ".join(_shown(x) for x in tensors)
    schema = getattr(func, "_schema", None)
    name = schema.name.split("::")[1] if schema is not None else getattr(func, "__name__", str(func))
    text = str(error).split("\n")[0]
    kind = DtypeError if "dtype" in text or "scalar type" in text else ShapeError
    return kind(f"{name} does not fit its operands ({types}): {text}", where=where())


def _shown(x: torch.Tensor) -> str:
    return str(x.tensor_type) if type(x) is Traced else f"{NAMES.get(x.dtype, x.dtype)}{list(x.shape)}"


def _collect(value: Any, found: list[torch.Tensor]) -> None:
    if isinstance(value, torch.Tensor):
        found.append(value)
    elif isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            _collect(item, found)


def layout_of(size: Any, stride: Any) -> tuple[int, ...]:
    """The order of dimensions in memory of a dense tensor; () where it is 0, 1, … ."""
    order = sorted(range(len(size)), key=lambda dim: (-stride[dim] if size[dim] != 1 else 0, dim))
    expected, dense = 1, True
    for dim in reversed([dim for dim in order if size[dim] != 1]):
        dense, expected = dense and stride[dim] == expected, expected * size[dim]
    if not dense or 0 in size:
        return ()
    moved = [dim for dim in order if size[dim] != 1]
    if moved == sorted(moved):
        return ()
    return (*moved, *(dim for dim in range(len(size)) if size[dim] == 1))
