"""Changes in place: each makes the next version of the storage, through whatever chain of views leads there."""

from __future__ import annotations

from typing import Any

import torch

from weft.errors import DtypeError, OpError, ShapeError
from weft.ir.views import View, overlaps
from weft.trace.location import where
from weft.trace.lower import functional_of, table_name
from weft.trace.refused import REASONS, why_refused
from weft.trace.tensor import Traced, refuse_outside
from weft.trace.values import all_known, constant, foreign, map_tensors, nograd, operand, real_of

aten = torch.ops.aten


def in_place(func: Any, args: Any, kwargs: Any) -> Any:
    """An operation that writes its result over its first operand."""
    x = args[0]
    tensors: list[torch.Tensor] = []
    _tensors((args, kwargs), tensors)
    if type(x) is not Traced:
        return outside(func, args, kwargs, tensors)
    check_writable(x)
    if all_known(tensors):
        func(*map_tensors(args, real_of), **map_tensors(kwargs, real_of))
        x._st.changed()
        return x
    whole = functional_of(func)
    if whole is None:
        name = table_name(func)
        if name.partition(".")[0] in REASONS:
            raise OpError(why_refused(name), where=where())
        raise OpError(f"{func} in place is not possible on a traced value; write it as an expression", where=where())
    indices = _known_indices(args[1]) if whole is aten.index_put.default else None
    return _assign(x, Traced.__torch_dispatch__(whole, (), args, kwargs), func, indices)


def outside(func: Any, args: Any, kwargs: Any, tensors: list[torch.Tensor]) -> Any:
    """A change of an ordinary tensor by numbers that are at hand; OutsideWriteError if there are none yet."""
    if any(type(x) is Traced and x._st.known is None for x in tensors):
        refuse_outside(func)
    return func(*map_tensors(args, real_of), **map_tensors(kwargs, real_of))


def _tensors(value: Any, found: list[torch.Tensor]) -> None:
    if isinstance(value, torch.Tensor):
        found.append(value)
    elif isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            _tensors(item, found)


def _known_indices(indices: Any) -> list[torch.Tensor | None] | None:
    found = [index.numbers if type(index) is Traced else index for index in indices]
    unknown = any(real is None and given is not None for real, given in zip(found, indices, strict=True))
    return None if unknown else found


def _assign(x: Traced, result: Traced, func: Any, indices: Any) -> Traced:
    dtype, size, _ = x._sig  # x.shape and x.dtype would be calls of PyTorch's, each by way of __torch_function__
    if result._sig[1] != size:
        raise ShapeError(
            f"the result {result._sig[1]} of {func} does not fit into {x.tensor_type} in place", where=where()
        )
    if result._sig[0] != dtype:
        if not torch.can_cast(result._sig[0], dtype):
            raise DtypeError(
                f"a result of {result._sig[0]} cannot be put into {x.tensor_type} in place; "
                "convert the tensor first, or write it as an expression",
                where=where(),
            )
        result = aten._to_copy.default(result, dtype=dtype)
    x._st.write(x._chain, operand(x._st.graph, result), nograd(), _seeing(x, indices))
    return x


def copy(func: Any, args: Any, kwargs: Any) -> Any:
    """copy_ and assignment by index."""
    x, source = args[0], args[1]
    if type(x) is not Traced:
        return outside(func, args, kwargs, [source])
    return put(x, source if isinstance(source, torch.Tensor) else torch.tensor(source, dtype=x._sig[0]))


def fill(func: Any, args: Any, kwargs: Any) -> Any:
    """fill_ and zero_."""
    x = args[0]
    if type(x) is not Traced:
        return outside(func, args, kwargs, [args[1]])
    value = 0 if func is aten.zero_.default else args[1]
    return put(x, value if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=x._sig[0]))


def put(x: Traced, source: torch.Tensor) -> Traced:
    """Write `source`, cast and broadcast, to where `x` leads."""
    check_writable(x)
    store = x._st
    if type(source) is Traced:
        if source._st is store and source._chain == x._chain:
            return x
        if source._st.graph is not store.graph:
            source = foreign(source, store)
    if store.known is not None and all_known([source]):
        real = x.numbers
        assert real is not None
        real.copy_(source.numbers if type(source) is Traced else source)  # type: ignore[arg-type]
        store.changed()
        return x
    dtype, size, _ = x._sig
    if type(source) is not Traced:
        if source.dtype != dtype and not source.requires_grad:
            source = source.to(dtype)
        if source.dtype != dtype or source.shape != size:
            source = _as_traced(x, source)
    if type(source) is Traced:
        source = _fitted(x, source)
    store.write(x._chain, operand(store.graph, source), nograd(), _seeing(x))
    return x


def _as_traced(x: Traced, source: torch.Tensor) -> Traced:
    """A tensor of the user's own as a value of the program, to be cast and broadcast there."""
    from weft.trace.storage import Storage

    store = x._st
    signature = (source.dtype, tuple(source.shape), torch.empty(source.shape, device="meta").stride())
    ref = constant(store.graph, source)
    return Traced(Storage(store.graph, store.owner, ref, None, signature[1]), signature)


def _fitted(x: Traced, source: Traced) -> Traced:
    dtype, size, _ = x._sig
    if source._sig[0] != dtype:
        source = aten._to_copy.default(source, dtype=dtype)
    if source._sig[1] != size:
        try:
            source = aten.expand.default(source, list(size))
        except ShapeError:
            raise ShapeError(
                f"a value of {source.tensor_type} cannot be written into {x.tensor_type}; give it that shape or one "
                "that broadcasts to it",
                where=where(),
            ) from None
    return source


def assign(x: Traced, value: Any) -> Any:
    """What `place[...] = value` does once the place is found: as `put`, and leading dimensions of 1 fall away."""
    if not isinstance(value, torch.Tensor):
        # Of a number PyTorch makes a tensor of the place's dtype, and complains of what does not fit.
        value = torch.tensor(value, dtype=x._sig[0])
    extra = value.dim() - len(x._sig[1])
    if extra > 0:
        shape = value.shape
        while extra > 0 and shape[0] == 1:
            shape, extra = shape[1:], extra - 1
        value = value.reshape(shape)
    return put(x, value)


def _seeing(x: Traced, indices: Any = None) -> Any:
    """How to get from a site's shape to what is written (None where that is no site of a padded run)."""
    origin = x._st.origin
    if origin is None or not origin.has_padding():
        return None

    def see(whole: torch.Tensor) -> torch.Tensor:
        for step in x._chain:
            name, _, overload = ("reshape" if step.op == "view" else step.op).partition(".")
            whole = getattr(getattr(aten, name), overload or "default")(whole, *step.args)
        return whole if indices is None else whole[tuple(slice(None) if i is None else i for i in indices)]

    return see


_overlapping: dict[tuple[Any, Any], bool] = {}


def check_writable(x: Traced) -> None:
    """OpError for a view some of whose elements are one in memory."""
    _, size, stride = x._sig
    found = _overlapping.get((size, stride))
    if found is None:
        found = _overlapping[size, stride] = overlaps(View(0, size, stride))
    if found:
        raise OpError(
            f"this value ({x.tensor_type}) is an expanded or overlapping view: several of its elements are one in memory, "
            "so it cannot be changed in place; use .clone() first",
            where=where(),
        )
