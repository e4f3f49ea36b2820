"""Traced values that are made: by operations of the program, and by factory functions with their numbers known."""

from __future__ import annotations

import threading
from typing import Any

import torch

from weft.errors import SessionError, WeftError
from weft.ir.nodes import Op, Ref
from weft.trace.location import where
from weft.trace.lower import Lowered, lower
from weft.trace.results import Output, Result, as_argument, describe, layout_of, result_of
from weft.trace.storage import Storage
from weft.trace.tensor import Traced, resolve

local = threading.local()
"""`enabled`: the user's grad mode at the call under way in this thread (underneath, grad mode is always off)."""
_results: dict[tuple[Any, ...], Result] = {}
_recipes: dict[tuple[Any, ...], tuple[str, tuple[Any, ...]]] = {}
_Slot = type("_Slot", (int,), {"__doc__": "The place of an operand in a recipe."})


def nograd() -> bool:
    """Whether the user has grad mode off at this call."""
    enabled = getattr(local, "enabled", None)
    return not (torch.is_grad_enabled() if enabled is None else enabled)


def known(owner: Any, tensor: torch.Tensor) -> Traced:
    """A traced tensor whose numbers are at hand: what a factory function gives inside a session."""
    size, stride = tuple(tensor.shape), tensor.stride()
    storage = Storage(owner.graph, owner, known=tensor, root_size=size, layout=layout_of(size, stride))
    return Traced(storage, (tensor.dtype, size, stride), real=tensor)


def map_tensors(value: Any, change: Any) -> Any:
    """`value` with every traced tensor in it changed, through lists, tuples and dicts."""
    if type(value) is Traced:
        return change(value)
    if isinstance(value, list | tuple):
        items = [map_tensors(item, change) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return {key: map_tensors(item, change) for key, item in value.items()} if isinstance(value, dict) else value


def real_of(x: Traced) -> torch.Tensor | None:
    return x.real


def all_known(tensors: list[torch.Tensor]) -> bool:
    """Whether the numbers of all these are at hand, and no gradient is wanted of any."""
    return all(x._st.known is not None if type(x) is Traced else not x.requires_grad for x in tensors)


def on_known(func: Any, args: Any, kwargs: Any, owner: Any) -> Any:
    """An operation on numbers that are at hand gives numbers."""
    out = func(*map_tensors(args, real_of), **map_tensors(kwargs, real_of))
    if isinstance(out, torch.Tensor):
        return known(owner, out)
    return tuple(known(owner, x) if isinstance(x, torch.Tensor) else x for x in out) if isinstance(out, tuple | list) else out


def foreign(x: Traced, graph: Any) -> Any:
    """A value of another session, as a tensor; SessionError where it has no numbers yet."""
    if x._st.graph is graph:
        return x
    if x._st.known is not None or x._st.owner.done:
        return resolve(x)
    raise SessionError(
        "values of two sessions cannot be combined before they are computed; "
        "put both runs into one session, or save the value and use it after its block",
        where=where(),
    )


def pure(func: Any, args: Any, kwargs: Any) -> Any:
    """An operation that changes nothing: a node of the program, or numbers from numbers."""
    key: list[Any] = [id(func)]
    tensors: list[torch.Tensor] = []
    describe(args, key, tensors)
    if kwargs:
        key.extend(kwargs)
        describe(kwargs.values(), key, tensors)
    first = None
    for x in tensors:
        if type(x) is Traced:
            if first is None or (first.known is not None and x._st.known is None):
                first = x._st
    assert first is not None
    if first.known is not None and all_known(tensors):
        return on_known(func, args, kwargs, first.owner)
    graph = first.graph
    for x in tensors:
        if type(x) is Traced and x._st.graph is not graph:
            there = lambda each: foreign(each, graph)  # noqa: E731
            return pure(func, map_tensors(args, there), map_tensors(kwargs, there))
    return _recorded(func, args, kwargs, tuple(key), tensors, first)


def _recorded(func: Any, args: Any, kwargs: Any, key: Any, tensors: list[torch.Tensor], first: Storage) -> Any:
    graph, owner = first.graph, first.owner
    result, recipe = _results.get(key), _recipes.get(key)
    if recipe is not None:
        name, template = recipe
        arguments = _filled(graph, template, tensors)
    else:
        try:
            lowered = lower(func, args, kwargs)
        except WeftError as error:
            raise error.at(where()) from None
        if not lowered.name:
            return None
        if result is None:
            result = _results[key] = result_of(func, args, kwargs, lowered)
        _remember(key, lowered, tensors)
        name, arguments = lowered.name, as_argument(lowered.args, lambda x: operand(graph, x))
    assert result is not None
    node = graph.add(Op(name, arguments, result.floating and nograd()))
    if not result.floating:
        graph.stops.add(node.node)
    if not result.several:
        output = result.outputs[0]
        assert output is not None
        return Traced(Storage(graph, owner, node, None, output.signature[1], output.layout), output.signature)
    return tuple(_output(graph, owner, node, each, func) for each in result.outputs)


def _output(graph: Any, owner: Any, node: Ref, output: Output | None, func: Any) -> Traced | None:
    if output is None:
        return None
    if output.place is None:
        storage = Storage(graph, owner, Ref(-1))
        storage.frozen = f"this output of {func} is internal to PyTorch and cannot be used"
    else:
        storage = Storage(graph, owner, Ref(node.node, output.place), None, output.signature[1], output.layout)
    return Traced(storage, output.signature)


# -- arguments of nodes ---


def _remember(key: Any, lowered: Lowered, tensors: list[torch.Tensor]) -> None:
    """Keep how the arguments came out, for the next call with this key; not where floats or new tensors are in them."""
    if float in key or complex in key or len({id(x) for x in tensors}) < len(tensors):
        return
    places = {id(x): _Slot(at) for at, x in enumerate(tensors)}
    try:
        template = as_argument(lowered.args, lambda x: places[id(x)])
    except KeyError:
        return
    _recipes[key] = lowered.name, template


def _filled(graph: Any, template: Any, tensors: list[torch.Tensor]) -> Any:
    found = []
    for item in template:
        kind = type(item)
        if kind is _Slot:
            found.append(operand(graph, tensors[item]))
        elif kind is tuple:
            found.append(_filled(graph, item, tensors))
        else:
            found.append(item)
    return tuple(found)


def operand(graph: Any, x: torch.Tensor) -> Ref:
    """The node of an operand: a traced value's current version, or a constant."""
    if type(x) is not Traced:
        return constant(graph, x)
    ref = x._st.read(x._chain)
    if ref.node < 0:
        raise SessionError(x._st.frozen, where=where())
    return ref


def constant(graph: Any, tensor: torch.Tensor) -> Ref:
    """The node of a tensor of the user's own."""
    try:
        return graph.constant(tensor)
    except WeftError as error:
        raise error.at(where()) from None
