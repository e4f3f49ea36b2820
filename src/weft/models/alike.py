"""Which layers of a model are built alike, so that what is found out about one need not be found out about the others.

layers(twin, "model.layers")       # {0: 0, 1: 0, …, 79: 0}: the first that each is like
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from weft.ir.nodes import Site
from weft.ir.types import TensorType

Observe = Callable[..., dict[Site, TensorType]]
"""`observe(wanted)`: the types of the wanted sites (none given: of every site) in a run of one size, in order."""
_NUMBERS = frozenset(("layer_idx", "layer_id", "layer_number", "layer_index", "block_idx"))
"""Attributes that say which layer a module is in; all else that is plain data must be equal."""


def signature(module: nn.Module) -> tuple[Any, ...]:
    """What a module is built of: equal for two that do the same with other weights."""
    return tuple((path, type(each), _data(each), _shapes(each)) for path, each in module.named_modules())


def _data(module: nn.Module) -> tuple[tuple[str, Any], ...]:
    plain = bool | int | float | str | None
    return tuple(
        (name, value) for name, value in vars(module).items() if isinstance(value, plain) and name not in _NUMBERS
    )


def _shapes(module: nn.Module) -> tuple[Any, ...]:
    own = {**module._parameters, **module._buffers}
    return tuple((name, None if each is None else (each.shape, each.dtype)) for name, each in own.items())


def observed(twin: nn.Module, path: str, runs: list[Observe]) -> dict[Site, list[TensorType]]:
    """Each site's types in each of the runs of a model whose layers are at `path` ("" where that is not known).

    The first run is of every layer; in the others those that are like an earlier one compute nothing, and have its types.
    """
    like = layers(twin, path) if path else {}
    with outputs(twin, path, like) as kinds:
        first = runs[0]()
    of = {site: renamed(site, path, like) for site in first}
    if None in kinds.values() or any(site not in first or first[site] != first[own] for own, site in of.items()):
        like, of = {layer: layer for layer in like}, {site: site for site in first}
    with standing_in(twin, path, like, kinds):
        others = [run(set(of.values())) for run in runs[1:]]
    return {site: [kind, *(run[of[site]] for run in others if of[site] in run)] for site, kind in first.items()}


def layers(module: nn.Module, path: str) -> dict[int, int]:
    """For each layer the first that it is like: of one build, with the same entries in the configuration's lists."""
    config: Any = module.config
    count = len(list(module.get_submodule(path).children()))
    lists = [value for value in vars(config).values() if isinstance(value, list | tuple) and len(value) == count]
    first: dict[Any, int] = {}
    found: dict[int, int] = {}
    for layer in range(count):
        each = module.get_submodule(f"{path}.{layer}")
        own = layer if "forward" in vars(each) else -1  # somebody's own way of computing it is like nothing else
        key = (signature(each), tuple(str(each[layer]) for each in lists), own)
        found[layer] = first.setdefault(key, layer)
    return found


def renamed(site: Site, path: str, like: dict[int, int]) -> Site:
    """The same site in the layer that its own is like; one outside the layers is itself."""
    if not like:
        return site
    if not site.path:
        return site if site.layer is None else site._replace(layer=like[site.layer])
    head, _, rest = site.path.removeprefix(f"{path}.").partition(".")
    if not site.path.startswith(f"{path}.") or not head.isdecimal():
        return site
    return site._replace(path=".".join(filter(None, (path, str(like[int(head)]), rest))))


@contextmanager
def outputs(module: nn.Module, path: str, like: dict[int, int]) -> Iterator[dict[int, Any]]:
    """While open, what each layer gave: 0 for a tensor, n for a tuple of one and n - 1 Nones, None for anything else."""
    kinds: dict[int, Any] = {}

    def note(layer: int, _: Any, __: Any, output: Any) -> None:
        alone = isinstance(output, tuple) and output and all(each is None for each in output[1:])
        kinds[layer] = 0 if isinstance(output, torch.Tensor) else len(output) if alone else None

    handles = [module.get_submodule(f"{path}.{layer}").register_forward_hook(partial(note, layer)) for layer in like]
    try:
        yield kinds
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def standing_in(module: nn.Module, path: str, like: dict[int, int], kinds: dict[int, Any]) -> Iterator[None]:
    """While open, layers that are like an earlier one give what they are given, as the kind of thing they would give."""
    idle: list[Any] = [module.get_submodule(f"{path}.{layer}") for layer, first in like.items() if layer != first]
    try:
        for layer, first in like.items():
            if layer != first:
                module.get_submodule(f"{path}.{layer}").forward = _passing(kinds[layer])  # type: ignore[assignment]
        yield
    finally:
        for each in idle:
            vars(each).pop("forward", None)


def _passing(kind: int) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        return (hidden, *[None] * (kind - 1)) if kind else hidden

    return forward
