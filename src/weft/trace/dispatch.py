"""From a PyTorch call to a node.

    on_function   a call of torch's Python interface: turns autograd off, answers for finished sessions
    on_dispatch   what the call came down to: a view, a change in place, a copy, or a pure operation

What a call's result looks like depends only on the op, the operands' dtype, size and strides, and the other arguments
(of floats the type alone). It is found once, by PyTorch's meta kernels, held against the op table's own rule, and then
remembered: the meta kernels take a hundred microseconds, a sweep traces thousands of ops.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import torch

from weft.errors import BoundsError, DtypeError, GradientError, OpError, ShapeError, WeftError
from weft.ir.nodes import Dtype, Op, Ref, ViewStep
from weft.ir.optable import infer
from weft.ir.types import TensorType
from weft.trace.constants import DTYPES, NAMES, type_of
from weft.trace.location import where
from weft.trace.lower import WHOLE, functional_of, lower
from weft.trace.storage import Storage, same_session
from weft.trace.tensor import Signature, Traced, refuse_outside, resolve

aten = torch.ops.aten
_no_function = torch._C.DisableTorchFunctionSubclass
_is_grad_enabled, _set_grad_enabled = torch.is_grad_enabled, torch._C._set_grad_enabled


class Shape(NamedTuple):
    """What is remembered of a call: for each output its signature (None: no tensor) and offset; whether it is a tuple."""

    outputs: tuple[tuple[Signature, int] | None, ...]
    several: bool


_local = threading.local()
"""`enabled`: the user's grad mode at the call under way in this thread."""
_shapes: dict[tuple[Any, ...], Shape] = {}
_kinds: dict[Any, str] = {}


def on_function(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call of torch's Python interface with at least one traced tensor among its arguments."""
    if _finished(args) or (kwargs and _finished(tuple(kwargs.values()))):
        return _after(func, args, kwargs)
    special = _FUNCTIONS.get(func)
    if special is not None:
        return special(*args, **kwargs)
    whole = WHOLE.get(func)
    if whole is not None:
        with _no_function():
            return _pure(whole, args, kwargs)
    return _taken_apart(func, args, kwargs)


def _taken_apart(func: Any, args: Any, kwargs: Any) -> Any:
    """The call itself, with autograd off and the user's grad mode remembered; what it comes down to is dispatched."""
    outer, enabled = getattr(_local, "enabled", None), _is_grad_enabled()
    if outer is None:
        _local.enabled = enabled
    _set_grad_enabled(False)
    try:
        with _no_function():
            return func(*args, **kwargs)
    finally:
        _local.enabled = outer
        _set_grad_enabled(enabled)


def _finished(values: tuple[Any, ...]) -> bool:
    for value in values:
        kind = type(value)
        if kind is Traced:
            return value._st.owner.done
        if (kind is tuple or kind is list) and value and _finished(tuple(value)):
            return True
    return False


def _after(func: Any, args: Any, kwargs: Any) -> Any:
    """After the block: the same call on the numbers."""
    return func(*_map(args, resolve), **_map(kwargs, resolve))


def _map(value: Any, change: Any) -> Any:
    if type(value) is Traced:
        return change(value)
    if isinstance(value, list | tuple):
        items = [_map(item, change) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return {key: _map(item, change) for key, item in value.items()} if isinstance(value, dict) else value


def on_dispatch(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One ATen operation with at least one traced tensor among its operands."""
    kind = _kinds.get(func)
    if kind is None:
        kind = _kinds[func] = _kind_of(func)
    if kind == "pure":
        return _pure(func, args, kwargs)
    if kind == "view":
        return _view(func, args, kwargs)
    if kind == "index":
        func, args = _without_masks(func, args)
        kind = "pure" if func in (aten.index.Tensor, aten.index_put.default, aten.where.self) else "inplace"
        return _pure(func, args, kwargs) if kind == "pure" else _inplace(func, args, kwargs)
    return _HANDLERS[kind](func, args, kwargs)


def _kind_of(func: Any) -> str:
    schema, name = func._schema, func._schema.name.split("::")[1]
    if func in (aten.copy_.default,):
        return "copy"
    if func in (aten.fill_.Scalar, aten.fill_.Tensor, aten.zero_.default):
        return "fill"
    if func in (aten.unbind.int, aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default):
        return "parts"
    if name in ("index", "index_put", "index_put_", "_index_put_impl_") and func is not aten.index.Tensor_out:
        return "index"
    if func is aten._local_scalar_dense.default:
        return "look"
    if name in (
        "set_",
        "resize_",
        "resize_as_",
        "as_strided",
        "as_strided_",
        "t_",
        "transpose_",
        "squeeze_",
        "unsqueeze_",
        "swapaxes_",
        "swapdims_",
        "detach_",
    ):
        return "metadata"
    if schema.is_mutable:
        writes = [arg for arg in schema.arguments if arg.alias_info is not None and arg.alias_info.is_write]
        return "inplace" if name.endswith("_") and len(writes) == 1 and writes[0].name == "self" else "out"
    returns = schema.returns
    return "view" if returns and returns[0].alias_info is not None and len(returns) == 1 else "pure"


# -- signatures ---


def _key(value: Any) -> Any:
    kind = type(value)
    if kind is Traced:
        return value._sig
    if kind is float:
        return float
    if kind is int or kind is bool:
        return (kind, value)
    if kind is list or kind is tuple:
        return tuple(_key(item) for item in value)
    if isinstance(value, torch.Tensor):
        return (value.dtype, tuple(value.shape), value.stride())
    return value


def _traced(value: Any, found: list[Traced]) -> None:
    kind = type(value)
    if kind is Traced:
        found.append(value)
    elif kind is list or kind is tuple:
        for item in value:
            _traced(item, found)


def _operands(args: Any, kwargs: Any) -> list[Traced]:
    found: list[Traced] = []
    for value in args:
        _traced(value, found)
    for value in kwargs.values():
        _traced(value, found)
    return found


def _to_meta(value: Any) -> Any:
    if type(value) is Traced:
        dtype, size, stride = value._sig
        return torch.empty_strided(size, stride, dtype=dtype, device="meta")
    if isinstance(value, torch.Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    if isinstance(value, list | tuple):
        return [_to_meta(item) for item in value]
    return torch.device("meta") if isinstance(value, torch.device) else value


def _shape_of(func: Any, args: Any, kwargs: Any, key: Any) -> Shape:
    """Run the meta kernel; its complaint becomes weft's error at the user's line."""
    try:
        out = func(*(_to_meta(arg) for arg in args), **{name: _to_meta(value) for name, value in kwargs.items()})
    except WeftError:
        raise
    except (RuntimeError, IndexError, TypeError, ValueError, NotImplementedError) as error:
        raise _shape_error(func, args, kwargs, error) from None
    several = isinstance(out, list | tuple)
    outputs = tuple(
        ((item.dtype, tuple(item.shape), item.stride()), item.storage_offset())
        if isinstance(item, torch.Tensor)
        else None
        for item in (out if several else (out,))
    )
    shape = _shapes[key] = Shape(outputs, several)
    return shape


def _shape_error(func: Any, args: Any, kwargs: Any, error: Exception) -> WeftError:
    given = ", ".join(str(x.tensor_type) for x in _operands(args, kwargs))
    name = func._schema.name.split("::")[1]
    text = str(error).split("\n")[0]
    cls = BoundsError if isinstance(error, IndexError) else DtypeError if "dtype" in text else ShapeError
    return cls(f"{name} does not fit its operands ({given}): {text}", where=where())


# -- known values ---


def _all_known(operands: list[Traced], args: Any, kwargs: Any) -> bool:
    if any(x._st.known is None for x in operands):
        return False
    return not any(_wants_grad(value) for value in (*args, *kwargs.values()))


def _wants_grad(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_wants_grad(item) for item in value)
    return isinstance(value, torch.Tensor) and type(value) is not Traced and value.requires_grad


def known(owner: Any, tensor: torch.Tensor) -> Traced:
    """A traced tensor whose numbers are at hand: what a factory function gives inside a session."""
    storage = Storage(
        owner.graph, owner, known=tensor, root_size=tuple(tensor.shape), layout=layout_of(tensor.shape, tensor.stride())
    )
    return Traced(storage, (tensor.dtype, tuple(tensor.shape), tensor.stride()), real=tensor)


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


# -- pure operations ---


def _pure(func: Any, args: Any, kwargs: Any) -> Any:
    operands = _operands(args, kwargs)
    first = operands[0]._st
    owner = first.owner
    if first.known is not None and _all_known(operands, args, kwargs):
        out = func(*_map(args, lambda x: x.real), **_map(kwargs, lambda x: x.real))
        return _map_real(out, lambda item: known(owner, item))
    graph = first.graph if len(operands) == 1 else same_session([x._st for x in operands])
    key = (func, *[_key(arg) for arg in args], *[(name, _key(value)) for name, value in kwargs.items()])
    shape = _shapes.get(key)
    lowered = lower(func, args, kwargs)
    if not lowered.name:
        return None
    if shape is None:
        shape = _shape_of(func, args, kwargs, key)
        _agree(lowered, shape, key)
    refs = tuple(_operand(graph, arg) for arg in lowered.args)
    base = graph.add(Op(lowered.name, refs, _nograd()))
    if not shape.several:
        signature = shape.outputs[0][0]  # type: ignore[index]
        return Traced(Storage(graph, owner, base, root_size=signature[1], layout=_layout(signature)), signature)
    mapped = lowered.outputs if lowered.outputs is not None else tuple(range(len(shape.outputs)))
    results = []
    for output, place in zip(shape.outputs, mapped, strict=True):
        if output is None:
            results.append(None)
        elif place is None:
            results.append(_unavailable(graph, owner, output[0], func))
        else:
            results.append(_result(graph, owner, Ref(base.node, place), output[0]))
    return tuple(results)


def _result(graph: Any, owner: Any, ref: Ref, signature: Signature) -> Traced:
    return Traced(Storage(graph, owner, ref, root_size=signature[1], layout=_layout(signature)), signature)


_layouts: dict[Any, tuple[int, ...]] = {}


def _layout(signature: Signature) -> tuple[int, ...]:
    found = _layouts.get(signature)
    if found is None:
        found = _layouts[signature] = layout_of(signature[1], signature[2])
    return found


def _unavailable(graph: Any, owner: Any, signature: Signature, func: Any) -> Traced:
    storage = Storage(graph, owner, Ref(-1))
    storage.frozen = f"this output of {func} is internal to PyTorch and cannot be used"
    return Traced(storage, signature)


def _map_real(out: Any, wrap: Any) -> Any:
    if isinstance(out, torch.Tensor):
        return wrap(out)
    if isinstance(out, list | tuple):
        return (
            type(out)(_map_real(item, wrap) for item in out)
            if not hasattr(out, "_fields")
            else tuple(_map_real(item, wrap) for item in out)
        )
    return out


def _operand(graph: Any, value: Any) -> Any:
    kind = type(value)
    if kind is Traced:
        ref = value._st.read(value._chain)
        if ref.node < 0:
            raise OpError(value._st.frozen, where=where())
        return ref
    if isinstance(value, torch.Tensor):
        return constant(graph, value)
    if kind is list or kind is tuple:
        return tuple(_operand(graph, item) for item in value)
    if kind is torch.dtype:
        return Dtype(NAMES[value])
    return value


def constant(graph: Any, tensor: torch.Tensor) -> Ref:
    """The node of a tensor of the user's own; boolean index masks are turned into indices by the caller."""
    try:
        return graph.constant(tensor)
    except WeftError as error:
        raise error.at(where()) from None


def _agree(lowered: Any, shape: Shape, key: Any) -> None:
    """Hold the op table's rule against PyTorch's: a rule that differs must not reach a program."""
    try:
        types = infer(lowered.name, tuple(_typed(arg) for arg in lowered.args))
    except WeftError as error:
        _shapes.pop(key, None)
        raise error.at(where()) from None
    mapped = lowered.outputs if lowered.outputs is not None else tuple(range(len(shape.outputs)))
    for output, place in zip(shape.outputs, mapped, strict=True):
        if output is None or place is None:
            continue
        expected = TensorType(NAMES[output[0][0]], tuple(output[0][1]))
        if types[place] != expected:
            _shapes.pop(key, None)
            raise OpError(
                f"weft's rule for {lowered.name} gives {types[place]} where PyTorch gives {expected}; "
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
    return Dtype(NAMES[value]) if isinstance(value, torch.dtype) else value


# -- views ---


def _view(func: Any, args: Any, kwargs: Any) -> Any:
    x = args[0]
    if type(x) is not Traced:
        raise OpError(f"{func} of an ordinary tensor by a traced one is not possible", where=where())
    key = (func, x._sig, *[_key(arg) for arg in args[1:]], *[(n, _key(v)) for n, v in kwargs.items()])
    shape = _shapes.get(key)
    if shape is None:
        shape = _shape_of(func, args, kwargs, key)
    output = shape.outputs[0]
    assert output is not None
    step = _steps.get(key)
    if step is None:
        step = _steps[key] = _step(func, args, kwargs)
    real = x.real
    chain = x._chain if step is None else (*x._chain, step)
    offset = x.storage_offset() + output[1]
    return Traced(x._st, output[0], chain, offset, func(real, *args[1:], **kwargs) if real is not None else None)


_steps: dict[Any, ViewStep | None] = {}


def _step(func: Any, args: Any, kwargs: Any) -> ViewStep | None:
    if func in (aten.view.default, aten._unsafe_view.default, aten._reshape_alias.default):
        return ViewStep("view", (tuple(args[1]),))
    if func in (aten.view.dtype,):
        raise OpError("viewing memory as another dtype is not possible; use .to(dtype)", where=where())
    lowered = lower(func, args, kwargs)
    return ViewStep(lowered.name, tuple(_plain(arg) for arg in lowered.args[1:]))


def _plain(value: Any) -> Any:
    return tuple(_plain(item) for item in value) if isinstance(value, list | tuple) else value


def _parts(func: Any, args: Any, kwargs: Any) -> Any:
    """unbind and split: several views, each with a chain of its own."""
    x, dim = args[0], 0
    if func is aten.unbind.int:
        dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
        return tuple(aten.select.int(x, dim, index) for index in range(x.shape[dim]))
    sizes, dim = args[1], kwargs.get("dim", args[2] if len(args) > 2 else 0)
    length = x.shape[dim]
    if func is aten.chunk.default:
        sizes = max(1, -(-length // sizes))
    if isinstance(sizes, int):
        sizes = [min(sizes, length - start) for start in range(0, length, sizes)] if length and sizes > 0 else [0]
    if sum(sizes) != length:
        raise ShapeError(f"cannot split a length of {length} into {list(sizes)}", where=where())
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return tuple(aten.slice.Tensor(x, dim, at, at + size) for at, size in zip(starts, sizes, strict=True))


# -- masks as indices ---


def _without_masks(func: Any, args: Any) -> tuple[Any, Any]:
    """Boolean masks as indices, so that no shape depends on data; a traced mask only as the condition of a where."""
    indices: list[Any] = []
    for index in args[1]:
        if isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8):
            mask = index.real if type(index) is Traced else index
            if mask is None:
                return _where_masked(func, args, index)
            indices.extend(mask.nonzero(as_tuple=True))
        else:
            indices.append(index)
    return func, (args[0], indices, *args[2:])


def _where_masked(func: Any, args: Any, mask: Traced) -> tuple[Any, Any]:
    x, given = args[0], [index for index in args[1] if index is not None]
    plain = len(given) == 1 and args[1][0] is mask and mask.shape == x.shape[: mask.dim()]
    if func is aten.index.Tensor or not plain or args[2].numel() != 1 or (len(args) > 3 and args[3]):
        raise OpError(
            "indexing with a traced boolean mask gives a shape that depends on the model's numbers; "
            "use torch.where(mask, value, x), or x * mask",
            where=where(),
        )
    while mask.dim() < x.dim():
        mask = aten.unsqueeze.default(mask, -1)
    value = args[2] if args[2].dtype == x.dtype else args[2].to(x.dtype)
    if func is aten.index_put.default:
        return aten.where.self, (mask, value.reshape(()), x)
    return aten.masked_fill_.Tensor, (x, mask, value.reshape(()))


# -- changes in place ---


def _inplace(func: Any, args: Any, kwargs: Any) -> Any:
    x = args[0]
    if type(x) is not Traced:
        refuse_outside(func)
    _check_writable(x)
    operands = _operands(args, kwargs)
    if _all_known(operands, args, kwargs):
        func(*_map(args, lambda item: item.real), **_map(kwargs, lambda item: item.real))
        x._st.version += 1
        return x
    pure = functional_of(func)
    if pure is None:
        raise OpError(f"{func} in place is not possible on a traced value; write it as an expression", where=where())
    return _assign(x, pure(*args, **kwargs), func, _known_indices(args[1]) if pure is aten.index_put.default else None)


def _known_indices(indices: Any) -> list[torch.Tensor | None] | None:
    found = [index.real if type(index) is Traced else index for index in indices]
    unknown = any(real is None and given is not None for real, given in zip(found, indices, strict=True))
    return None if unknown else found


def _assign(x: Traced, result: Any, func: Any, indices: Any = None) -> Traced:
    if result.shape != x.shape:
        raise ShapeError(
            f"the result {tuple(result.shape)} of {func} does not fit into {x.tensor_type} in place", where=where()
        )
    if result.dtype != x.dtype:
        if not torch.can_cast(result.dtype, x.dtype):
            raise DtypeError(f"a result of {result.dtype} cannot be put into {x.tensor_type} in place", where=where())
        result = aten.to.dtype(result, x.dtype)
    x._st.write(x._chain, result.ref, _nograd(), _seeing(x, indices))
    return x


def _nograd() -> bool:
    """Whether the user has grad mode off at this call (underneath it always is)."""
    enabled = getattr(_local, "enabled", None)
    return not (_is_grad_enabled() if enabled is None else enabled)


def _copy(func: Any, args: Any, kwargs: Any) -> Any:
    x, source = args[0], args[1]
    if type(x) is not Traced:
        refuse_outside(func)
    _check_writable(x)
    if type(source) is Traced and source._st is x._st and source._chain == x._chain:
        return x
    if x._st.known is not None and _all_known(_operands((x, source), {}), (source,), {}):
        x.real.copy_(source.real if type(source) is Traced else source)  # type: ignore[union-attr]
        x._st.version += 1
        return x
    if isinstance(source, torch.Tensor) and type(source) is not Traced:
        owner = x._st.owner
        stride = torch.empty(source.shape, device="meta").stride()
        source = _result(owner.graph, owner, constant(owner.graph, source), (source.dtype, tuple(source.shape), stride))
    same_session([x._st, source._st])
    if source.dtype != x.dtype:
        source = aten.to.dtype(source, x.dtype)
    if source.shape != x.shape:
        try:
            source = aten.expand.default(source, list(x.shape))
        except ShapeError:
            raise ShapeError(
                f"a value of {source.tensor_type} cannot be written into {x.tensor_type}; give it that shape or one "
                "that broadcasts to it",
                where=where(),
            ) from None
    x._st.write(x._chain, source.ref, _nograd(), _seeing(x))
    return x


def _seeing(x: Traced, indices: Any = None) -> Any:
    """How to get from a site's shape to what is written (None where that is no site of a padded run)."""
    origin = x._st.origin
    if origin is None or not bool((origin.run.start > 0).any()):
        return None

    def see(whole: torch.Tensor) -> torch.Tensor:
        for step in x._chain:
            name, _, overload = ("reshape" if step.op == "view" else step.op).partition(".")
            whole = getattr(getattr(aten, name), overload or "default")(whole, *step.args)
        return whole if indices is None else whole[tuple(slice(None) if i is None else i for i in indices)]

    return see


def _fill(func: Any, args: Any, kwargs: Any) -> Any:
    value = 0 if func is aten.zero_.default else args[1]
    if not isinstance(value, torch.Tensor):
        value = torch.tensor(value, dtype=args[0].dtype if type(args[0]) is Traced else None)
    return _copy(func, (args[0], value), {})


def _check_writable(x: Traced) -> None:
    if any(step == 0 and size > 1 for step, size in zip(x._sig[2], x._sig[1], strict=True)):
        raise OpError(
            f"this value ({x.tensor_type}) is an expanded view: several of its elements are one in memory, so it cannot "
            "be changed in place; use .clone() first",
            where=where(),
        )


def _out(func: Any, args: Any, kwargs: Any) -> Any:
    raise OpError(f"{func} writes into tensors given to it, which is not possible here; use its result", where=where())


def _metadata(func: Any, args: Any, kwargs: Any) -> Any:
    raise OpError(
        f"{func} changes a tensor's size or strides themselves; use the form that gives a new view instead",
        where=where(),
    )


def _look(func: Any, args: Any, kwargs: Any) -> Any:
    return resolve(args[0], "a number").item()


_HANDLERS = {
    "copy": _copy,
    "fill": _fill,
    "parts": _parts,
    "inplace": _inplace,
    "out": _out,
    "metadata": _metadata,
    "look": _look,
}


# -- calls answered before they are taken apart ---


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


_FUNCTIONS: dict[Any, Any] = {
    torch.matmul: _matmul,
    torch.Tensor.matmul: _matmul,
    torch.autograd.grad: _autograd_grad,
    torch.autograd.backward: _autograd_backward,
}


__all__ = ["DTYPES", "constant", "known", "layout_of", "on_dispatch", "on_function"]
