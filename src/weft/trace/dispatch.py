"""From a PyTorch call to a node.

on_function   a call of torch's Python interface: turns autograd off, answers for finished sessions
on_dispatch   what the call came down to: a view, a change in place, a copy, or a pure operation
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from weft.errors import BoundsError, GradientError, OpError
from weft.trace import changes, viewing
from weft.trace.constants import DTYPES
from weft.trace.location import call as under_way
from weft.trace.location import where
from weft.trace.lower import WHOLE
from weft.trace.masks import without_masks
from weft.trace.results import layout_of, misfit
from weft.trace.tensor import Traced, answer_calls, resolve
from weft.trace.values import (
    constant,
    first_traced,
    kept_here,
    known,
    local,
    map_ordinary,
    map_tensors,
    open_owner,
    pure,
    stand_in,
)

aten = torch.ops.aten
_no_function = torch._C.DisableTorchFunctionSubclass
_is_grad_enabled, _set_grad_enabled = torch.is_grad_enabled, torch._C._set_grad_enabled
Handler = Callable[[Any, Any, Any], Any]


def on_function(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call of torch's Python interface with at least one traced tensor among its arguments."""
    if _any_done(args) or (kwargs and _any_done(kwargs.values())):
        return _after(func, args, kwargs)
    special = _FUNCTIONS.get(func)
    if special is not None:
        return special(*args, **kwargs)
    whole = WHOLE.get(func)
    if whole is not None:
        with _no_function():
            return pure(whole, args, kwargs)
    return _taken_apart(func, args, kwargs)


def _taken_apart(func: Any, args: Any, kwargs: Any) -> Any:
    """The call itself, with autograd off and the user's grad mode remembered; what it comes down to is dispatched."""
    outer, enabled, held = getattr(local, "enabled", None), _is_grad_enabled(), under_way.held
    if outer is None:
        local.enabled = enabled
    if held is None:
        under_way.held = []
    _set_grad_enabled(False)
    try:
        if _wants_grad(args) or (kwargs and _wants_grad(kwargs.values())):
            args, kwargs = _leaves_traced(func, args, kwargs)
        with _no_function():
            return func(*args, **kwargs)
    except IndexError as error:
        raise BoundsError(str(error), where=where()) from None
    except RuntimeError as error:
        raise misfit(func, (args, kwargs), error) from None
    finally:
        local.enabled, under_way.held = outer, held
        _set_grad_enabled(enabled)


def _any_done(values: Any) -> bool:
    """Whether a value of a session that has ended is among the arguments."""
    for value in values:
        kind = type(value)
        if kind is Traced:
            if value._st.owner.state == "done":
                return True
        elif (kind is tuple or kind is list) and _any_done(value):
            return True
    return False


def _wants_grad(values: Any) -> bool:
    """Whether an ordinary tensor that requires grad is among the arguments."""
    for value in values:
        kind = type(value)
        if (kind is tuple or kind is list) and _wants_grad(value):
            return True
        if kind is not Traced and isinstance(value, torch.Tensor) and value.requires_grad:
            return True
    return False


def _leaves_traced(func: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The same arguments with such tensors as constants of the program.

    What a call does first to a weight alone (linear transposes it, einsum permutes it) would else happen outside the
    program, with autograd off, and its gradient would be lost.
    """
    if type(args[0]) is not Traced and _writes(func, kwargs):
        return args, kwargs  # refused further down
    store = first_traced((args, kwargs))._st
    leaf = lambda x: stand_in(store, x) if x.requires_grad else x  # noqa: E731
    return map_ordinary(args, leaf), map_ordinary(kwargs, leaf)


def _writes(func: Any, kwargs: Any) -> bool:
    """Whether a function changes its first argument, or one given as `out`."""
    name = getattr(func, "__name__", "")
    return name == "__setitem__" or name.startswith("__i") or name[-1:] == "_" != name[-2:-1] or "out" in kwargs


def _after(func: Any, args: Any, kwargs: Any) -> Any:
    """The same call on the numbers of those whose block has ended; of what was kept, on the value where the model is."""
    owner = open_owner((args, kwargs))

    def number(x: Traced) -> Any:
        if not x._st.owner.done:
            return x
        here = kept_here(x, owner)
        return resolve(x) if here is None else here

    return func(*map_tensors(args, number), **map_tensors(kwargs, number))


# -- what a call comes down to ---

_handlers: dict[int, Handler] = {}


def on_dispatch(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One ATen operation with at least one traced tensor among its operands."""
    handler = _handlers.get(id(func))
    if handler is None:
        handler = _handlers[id(func)] = _handler_of(func)
    return handler(func, args, kwargs)


def _handler_of(func: Any) -> Handler:
    schema, name = func._schema, func._schema.name.split("::")[1]
    if func in _BY_OVERLOAD:
        return _BY_OVERLOAD[func]
    if name in ("index", "index_put", "index_put_", "_index_put_impl_") and func is not aten.index.Tensor_out:
        return _index
    if name in _METADATA:
        return _metadata
    if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
        return _composite
    if schema.is_mutable:
        writes = [arg for arg in schema.arguments if arg.alias_info is not None and arg.alias_info.is_write]
        return changes.in_place if name.endswith("_") and len(writes) == 1 and writes[0].name == "self" else _out
    returns = schema.returns
    return viewing.view if len(returns) == 1 and returns[0].alias_info is not None else pure


def _index(func: Any, args: Any, kwargs: Any) -> Any:
    func, args = without_masks(func, args)
    is_pure = func in (aten.index.Tensor, aten.index_put.default, aten.where.self)
    return pure(func, args, kwargs) if is_pure else changes.in_place(func, args, kwargs)


def _composite(func: Any, args: Any, kwargs: Any) -> Any:
    """What PyTorch takes apart itself, but did not (below autograd, as in inference mode)."""
    return func.decompose(*args, **kwargs)


def _out(func: Any, args: Any, kwargs: Any) -> Any:
    raise OpError(f"{func} writes into tensors given to it, which is not possible here; use its result", where=where())


def _metadata(func: Any, args: Any, kwargs: Any) -> Any:
    raise OpError(
        f"{func} changes a tensor's size or strides themselves; use the form that gives a new view instead",
        where=where(),
    )


def _look(func: Any, args: Any, kwargs: Any) -> Any:
    use = {"equal": "an answer", "allclose": "an answer"}.get(func._schema.name.split("::")[1], "a number")
    return func(*map_tensors(args, lambda x: resolve(x, use)), **kwargs)


_METADATA = frozenset(
    "set_ resize_ resize_as_ as_strided as_strided_ t_ transpose_ squeeze_ unsqueeze_ swapaxes_ swapdims_ detach_".split()
)
_BY_OVERLOAD: dict[Any, Handler] = {
    aten.copy_.default: changes.copy,
    **dict.fromkeys((aten.fill_.Scalar, aten.fill_.Tensor, aten.zero_.default), changes.fill),
    **dict.fromkeys(
        (aten.unbind.int, aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default), viewing.parts
    ),
    aten.masked_select.default: _index,
    **dict.fromkeys((aten._local_scalar_dense.default, aten.equal.default, aten.allclose.default), _look),
}


# -- calls answered before they are taken apart ---


def _getitem(x: Any, index: Any) -> Any:
    if type(x) is not Traced or (key := viewing.basic(index)) is None:
        return _taken_apart(torch.Tensor.__getitem__, (x, index), {})
    found = viewing.indexed(x, key)
    if found is None:
        found = _taken_apart(torch.Tensor.__getitem__, (x, index), {})
        viewing.remember(x, key, found)
    return found


def _setitem(x: Any, index: Any, value: Any) -> None:
    """Always by the view that reading there gives, met before or not: the same code must give the same program."""
    key = viewing.basic(index) if type(x) is Traced and isinstance(value, (torch.Tensor, int, float)) else None
    if key is None:
        _taken_apart(torch.Tensor.__setitem__, (x, index, value), {})
    elif viewing.is_there(value, x, key):
        changes.check_writable(value)
    else:
        changes.assign(_getitem(x, index), value)


def _view_of(func: Any) -> Any:
    """A method that gives a view: as for indexing, what it came down to is remembered."""

    def call(x: Any, *args: Any, **kwargs: Any) -> Any:
        if type(x) is not Traced or kwargs or (given := viewing.sizes(args)) is None:
            return _taken_apart(func, (x, *args), kwargs)
        found = viewing.indexed(x, (id(func), given))
        if found is None:
            found = _taken_apart(func, (x, *args), {})
            viewing.remember(x, (id(func), given), found)
        return found

    return call


def _autograd_grad(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
    if args or any(value for name, value in kwargs.items() if name not in ("create_graph", "retain_graph")):
        raise GradientError("use weft.grad(scalar, [tensors]) inside a session", where=where())
    scalar = outputs[0] if isinstance(outputs, list | tuple) else outputs
    targets = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
    return tuple(scalar._st.owner.grad(scalar, targets))


def _autograd_backward(tensors: Any, *args: Any, **kwargs: Any) -> None:
    for x in tensors if isinstance(tensors, list | tuple) else [tensors]:
        x.backward()


def _matmul(a: Any, b: Any, **kwargs: Any) -> Any:
    """A vector times a matrix: PyTorch takes the result's extra dimension away in place, which a view does here."""
    if kwargs or a.dim() != 1 or b.dim() != 2:
        return _taken_apart(torch.matmul, (a, b), kwargs)
    return _taken_apart(torch.matmul, (a.unsqueeze(0), b), {}).squeeze(0)


def _pinv(x: Any, *args: Any, **kwargs: Any) -> Any:
    """With tolerances as numbers; PyTorch would make tensors of them on the way."""
    if (
        args
        or any(isinstance(value, torch.Tensor) for value in kwargs.values())
        or "rcond" in kwargs
        or "out" in kwargs
    ):
        return _taken_apart(torch.linalg.pinv, (x, *args), kwargs)
    with _no_function():
        return pure(aten.linalg_pinv.atol_rtol_float, (x,), kwargs)


def _pinverse(x: Any, rcond: float = 1e-15) -> Any:
    return _pinv(x, atol=0.0, rtol=rcond)


_VIEWS = "select narrow transpose permute unsqueeze squeeze expand view reshape flatten movedim diagonal unfold".split()
_FUNCTIONS: dict[Any, Any] = {
    torch.Tensor.__getitem__: _getitem,
    torch.Tensor.__setitem__: _setitem,
    **{getattr(torch.Tensor, name): _view_of(getattr(torch.Tensor, name)) for name in _VIEWS},
    torch.matmul: _matmul,
    torch.Tensor.matmul: _matmul,
    torch.linalg.pinv: _pinv,
    **dict.fromkeys((torch.pinverse, torch.Tensor.pinverse), _pinverse),
    torch.autograd.grad: _autograd_grad,
    torch.autograd.backward: _autograd_backward,
}


answer_calls(on_function, on_dispatch)

__all__ = ["DTYPES", "constant", "known", "layout_of", "on_dispatch", "on_function"]
