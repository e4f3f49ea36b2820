"""Views: they make no node, they only lengthen a chain. Offsets, sizes and strides are worked out without PyTorch.

Indexing with numbers and slices (`x[:, -1, 3]`) comes down to several views; what it came down to is remembered, so that
a sweep does not take every index apart again.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import torch

from weft.errors import BoundsError, OpError, ShapeError, WeftError
from weft.ir.nodes import ViewStep
from weft.ir.views import View
from weft.ir.views import step as view_step
from weft.trace.location import where
from weft.trace.lower import lower
from weft.trace.results import describe, remembered
from weft.trace.storage import NOGRAD
from weft.trace.tensor import Signature, Traced
from weft.trace.values import nograd

aten = torch.ops.aten
_Seen = tuple[tuple[ViewStep, ...], Signature, int]
"""The steps, what is seen through them, and how much further on in memory it begins."""
_seen: dict[tuple[Any, ...], _Seen] = {}
_indexed: dict[tuple[Any, ...], _Seen] = {}
_SAME_STORAGE = (aten.alias.default, aten.lift_fresh.default)


def through(x: Traced, seen: _Seen, real: torch.Tensor | None = None) -> Traced:
    """`x` through the steps remembered."""
    _, signature, offset = seen
    return Traced(x._st, signature, x._chain + _steps(seen), x._offset + offset, real)


def _steps(seen: _Seen) -> tuple[ViewStep, ...]:
    """The steps, as the user's grad mode has them."""
    steps, signature, _ = seen
    if not torch.is_grad_enabled() and signature[0].is_floating_point and nograd() and not _detached(steps):
        return (*steps, NOGRAD)
    return steps


def _detached(steps: tuple[ViewStep, ...]) -> bool:
    return bool(steps) and steps[-1].op == "detach"


def view(func: Any, args: Any, kwargs: Any) -> Any:
    """One view of a traced tensor."""
    x = args[0]
    if type(x) is not Traced:
        raise OpError(f"{func} of an ordinary tensor by a traced one is not possible", where=where())
    key: list[Any] = [id(func)]
    describe(args, key, [], [])
    if kwargs:
        key.extend(kwargs)
        describe(kwargs.values(), key, [], [])
    found = tuple(key)
    seen = _seen.get(found)
    if seen is None:
        seen = remembered(_seen, found, _look(func, x, args, kwargs))
    real = x.numbers
    return through(x, seen, None if real is None else func(real, *args[1:], **kwargs))


def _look(func: Any, x: Traced, args: Any, kwargs: Any) -> _Seen:
    dtype, size, stride = x._sig
    if func in _SAME_STORAGE:
        return (), x._sig, 0
    step = _step(func, args, kwargs)
    try:
        found = view_step(View(0, size, stride), step.op, step.args)
    except ShapeError as error:
        kind = BoundsError if step.op == "select.int" else ShapeError
        raise kind(f"{step.op} does not fit {x.tensor_type}: {error.message}", where=where()) from None
    except WeftError as error:
        raise error.at(where()) from None
    if (found.sizes, found.strides, found.offset) == (size, stride, 0) and step.op != "detach":
        return (), x._sig, 0  # nothing is left out or turned round: PyTorch itself makes no view of some of these
    return (step,), (dtype, found.sizes, found.strides), found.offset


def _step(func: Any, args: Any, kwargs: Any) -> ViewStep:
    if func in (aten.view.default, aten._unsafe_view.default, aten._reshape_alias.default):
        return ViewStep("view", (tuple(args[1]),))
    if func is aten.view.dtype:
        raise OpError("viewing memory as another dtype is not possible; use .to(dtype)", where=where())
    try:
        lowered = lower(func, args, kwargs)
    except WeftError as error:
        raise error.at(where()) from None
    return ViewStep(lowered.name, tuple(_plain(arg) for arg in lowered.args[1:]))


def _plain(value: Any) -> Any:
    return tuple(_plain(item) for item in value) if isinstance(value, list | tuple) else value


def parts(func: Any, args: Any, kwargs: Any) -> Any:
    """unbind and split: several views, each with a chain of its own."""
    x = args[0]
    if func is aten.unbind.int:
        dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
        return tuple(aten.select.int(x, dim, index) for index in range(x._sig[1][dim]))
    sizes, dim = args[1], kwargs.get("dim", args[2] if len(args) > 2 else 0)
    length = x._sig[1][dim]
    if func is aten.chunk.default:
        sizes = max(1, -(-length // sizes))
    if isinstance(sizes, int):
        sizes = [min(sizes, length - start) for start in range(0, length, sizes)] if length and sizes > 0 else [0]
    if sum(sizes) != length:
        raise ShapeError(f"cannot split a length of {length} into {list(sizes)}", where=where())
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return tuple(aten.slice.Tensor(x, dim, at, at + size) for at, size in zip(starts, sizes, strict=True))


# -- indexing with numbers and slices ---


def _number(value: Any) -> bool:
    return value is None or type(value) is int


def basic(index: Any) -> Any:
    """An index of numbers, slices, None and ... as a key; None if there is anything else in it (so None itself is 0.5)."""
    kind = type(index)
    if kind is int or index is Ellipsis:
        return index
    if kind is slice:
        start, stop, step = index.start, index.stop, index.step
        return ("slice", start, stop, step) if _number(start) and _number(stop) and _number(step) else None
    if index is None:
        return 0.5
    if kind is not tuple:
        return None
    found = tuple([basic(item) for item in index])
    return None if None in found else found


def sizes(args: tuple[Any, ...]) -> Any:
    """Arguments that are whole numbers, or lists of them, as a key; None if there is anything else among them."""
    found = []
    for arg in args:
        if type(arg) is int:
            found.append(arg)
        elif isinstance(arg, tuple | list) and all(type(item) is int for item in arg):
            found.append(tuple(arg))
        else:
            return None
    return tuple(found)


def indexed(x: Traced, key: Any) -> Traced | None:
    """`x[index]` for an index met before, `key` being its `basic` form."""
    seen = _indexed.get((x._sig, key))
    return None if seen is None or x._st.known is not None else through(x, seen)


def is_there(value: Any, x: Traced, key: Any) -> TypeGuard[Traced]:
    """Whether `value` is the very view that `x[index]` gives, for an index met before: `x[index] += y` puts it back."""
    if type(value) is not Traced or value._st is not x._st:
        return False
    seen = _indexed.get((x._sig, key))
    return seen is not None and value._chain == x._chain + _steps(seen)


def remember(x: Traced, key: Any, found: Any) -> None:
    """Keep what `x[index]` came down to."""
    if type(found) is Traced and found._st is x._st and found._chain[: len(x._chain)] == x._chain:
        steps = tuple(step for step in found._chain[len(x._chain) :] if step is not NOGRAD)
        remembered(_indexed, (x._sig, key), (steps, found._sig, found._offset - x._offset))
