"""Traced values that are made: by operations of the program, and by factory functions with their numbers known."""

from __future__ import annotations

import threading
from typing import Any

import torch

from weft.errors import SessionError, WeftError
from weft.ir.nodes import Op, Ref
from weft.trace.location import where
from weft.trace.lower import Lowered, lower
from weft.trace.results import Output, Result, as_argument, describe, layout_of, remembered, result_of
from weft.trace.storage import Storage
from weft.trace.tensor import Traced, resolve, value_or_none

local = threading.local()
"""`enabled`: the user's grad mode at the call under way in this thread (underneath, grad mode is always off)."""
_results: dict[tuple[Any, ...], Result] = {}
_recipes: dict[tuple[Any, ...], tuple[str, tuple[Any, ...], Result]] = {}
_Slot = type("_Slot", (int,), {"__doc__": "The place of an operand in a recipe."})


def nograd() -> bool:
    """Whether the user has grad mode off at this call."""
    enabled = getattr(local, "enabled", None)
    return not (torch.is_grad_enabled() if enabled is None else enabled)


def known(owner: Any, tensor: torch.Tensor) -> Traced:
    """A traced tensor whose numbers are at hand: what a factory function gives inside a session."""
    size, stride = tuple(tensor.shape), tensor.stride()
    storage = Storage(owner.graph, owner, known=tensor, root_size=size, layout=layout_of(size, stride))
    return Traced(storage, (tensor.dtype, size, stride), (), 0, tensor)


def map_tensors(value: Any, change: Any) -> Any:
    """`value` with every traced tensor in it changed, through lists, tuples and dicts."""
    if type(value) is Traced:
        return change(value)
    if isinstance(value, list | tuple):
        items = [map_tensors(item, change) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return {key: map_tensors(item, change) for key, item in value.items()} if isinstance(value, dict) else value


def map_ordinary(value: Any, change: Any) -> Any:
    """`value` with every ordinary tensor in it changed, through lists, tuples and dicts."""
    if isinstance(value, torch.Tensor):
        return value if type(value) is Traced else change(value)
    if isinstance(value, list | tuple):
        items = [map_ordinary(item, change) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return {key: map_ordinary(item, change) for key, item in value.items()} if isinstance(value, dict) else value


def first_traced(value: Any) -> Any:
    """The first traced tensor in `value`, through lists, tuples and dicts."""
    if isinstance(value, list | tuple | dict):
        items = value.values() if isinstance(value, dict) else value
        return next((found for item in items if (found := first_traced(item)) is not None), None)
    return value if type(value) is Traced else None


def stand_in(like: Storage, tensor: torch.Tensor) -> Traced:
    """A tensor of the user's own as a traced value of the same session."""
    size = tuple(tensor.shape)
    storage = Storage(like.graph, like.owner, constant(like.graph, tensor), root_size=size)
    storage.frozen = (
        "a tensor of your own cannot be changed inside the block; change it before, or use a .clone() of it"
    )
    return Traced(storage, (tensor.dtype, size, torch.empty(size, device="meta").stride()))


def real_of(x: Traced) -> torch.Tensor | None:
    return x.numbers


def all_known(tensors: list[torch.Tensor]) -> bool:
    """Whether the numbers of all these are at hand, and no gradient is wanted of any."""
    return all(x._st.known is not None if type(x) is Traced else not x.requires_grad for x in tensors)


def on_known(func: Any, args: Any, kwargs: Any, owner: Any) -> Any:
    """An operation on numbers that are at hand gives numbers."""
    out = func(*map_tensors(args, real_of), **map_tensors(kwargs, real_of))
    if isinstance(out, torch.Tensor):
        return known(owner, out)
    return (
        tuple(known(owner, x) if isinstance(x, torch.Tensor) else x for x in out)
        if isinstance(out, tuple | list)
        else out
    )


def open_owner(value: Any) -> Any:
    """The open session that one of the traced tensors in `value` belongs to, or None."""
    if isinstance(value, list | tuple | dict):
        items = value.values() if isinstance(value, dict) else value
        return next((found for item in items if (found := open_owner(item)) is not None), None)
    return value._st.owner if type(value) is Traced and not value._st.owner.done else None


def kept_here(x: Traced, owner: Any) -> Traced | None:
    """A value of an earlier session that was kept and not saved, in the session `owner` (None: the one that is open)."""
    then = x._st.owner
    if x._kept not in then.kept or value_or_none(x) is not None:
        return None
    if owner is None and not then.model.sessions:
        return None
    from weft.trace.kept import held

    return held(then.model.sessions[-1] if owner is None else owner, then.kept[x._kept])


def foreign(x: Traced, store: Storage) -> Any:
    """A value of another session, for the session of `store`: a tensor, or by its digest where it was kept.

    SessionError where it has no numbers yet.
    """
    if x._st.graph is store.graph:
        return x
    if (here := kept_here(x, store.owner)) is not None:
        return here
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
    floats: list[float] = []
    describe(args, key, tensors, floats)
    if kwargs:
        key.extend(kwargs)
        describe(kwargs.values(), key, tensors, floats)
    first, mixed = _leading(tensors)
    if first.known is not None and all_known(tensors):
        return on_known(func, args, kwargs, first.owner)
    if mixed:
        there = lambda each: foreign(each, first)  # noqa: E731
        return pure(func, map_tensors(args, there), map_tensors(kwargs, there))
    return _recorded(func, args, kwargs, tuple(key), tensors, floats, first)


def _leading(tensors: list[torch.Tensor]) -> tuple[Storage, bool]:
    """The storage that says which program an operation belongs to, and whether values of another are among the operands."""
    first, mixed = None, False
    for x in tensors:
        if type(x) is Traced:
            store = x._st
            if first is None or (first.known is not None and store.known is None):
                first, mixed = store, mixed or (first is not None and first.graph is not store.graph)
            elif store.graph is not first.graph:
                mixed = True
    assert first is not None
    return first, mixed


def _recorded(
    func: Any, args: Any, kwargs: Any, key: Any, tensors: list[torch.Tensor], floats: list[float], first: Storage
) -> Any:
    graph = first.graph
    exact = _exact(key, tensors, floats)
    recipe = _recipes.get(exact)
    if recipe is not None:
        name, template, result = recipe
        arguments = _filled(graph, template, tensors)
    else:
        try:
            lowered = lower(func, args, kwargs)
        except WeftError as error:
            raise error.at(where()) from None
        if not lowered.name:
            return None
        result = _results.get(key)
        if result is None:
            result = remembered(_results, key, result_of(func, args, kwargs, lowered))
        _keep(exact, lowered, tensors, result)
        name, arguments = lowered.name, as_argument(lowered.args, lambda x: operand(graph, x))
    if result.floating:
        node = graph.add(Op(name, arguments, nograd()))
    else:
        node = graph.add(Op(name, arguments))
        graph.stops.add(node.node)
    if result.several:
        return tuple(_output(graph, first.owner, node, each, func) for each in result.outputs)
    output = result.outputs[0]
    assert output is not None
    return Traced(Storage(graph, first.owner, node, None, output.signature[1], output.layout), output.signature)


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


def _exact(key: Any, tensors: list[torch.Tensor], floats: list[float]) -> Any:
    """A call's key with its floats, and which of its operands are one and the same: then the arguments are settled."""
    if floats:
        key = (*key, *[value.hex() for value in floats])
    count = len(tensors)
    if count > 1 and (tensors[0] is tensors[1] if count == 2 else len({id(x) for x in tensors}) < count):
        key = (*key, "same", *[next(i for i, y in enumerate(tensors) if y is x) for x in tensors])
    return key


def _keep(exact: Any, lowered: Lowered, tensors: list[torch.Tensor], result: Result) -> None:
    """Keep how the arguments came out, for the next call like it; not where there are new tensors in them."""
    places = {id(x): _Slot(at) for at, x in enumerate(tensors)}
    try:
        template = as_argument(lowered.args, lambda x: places[id(x)])
    except KeyError:
        return
    remembered(_recipes, exact, (lowered.name, template, result))


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
