"""The tensors inside what a module takes or gives, by name, and the same structure with one of them replaced.

    full_names(("a", (x, {"mask": m})))  ->  {"1.0": x, "1.1.mask": m}

Tuples, lists, dicts and transformers' outputs are looked into; caches and other
objects are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn


def part_at(module: nn.Module, path: str) -> nn.Module | None:
    """The module at that path within another; None where it has none, as layers differ in what they have."""
    found: Any = module
    for step in path.split("."):
        found = getattr(found, step, None)
    return found if isinstance(found, nn.Module) else None


def _walk(value: Any, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield prefix, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _walk(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, tuple | list):
        for index, item in enumerate(value):
            yield from _walk(item, f"{prefix}.{index}" if prefix else str(index))


def full_names(value: Any) -> dict[str, torch.Tensor]:
    """Every tensor in `value` by its full path, in order."""
    return dict(_walk(value, ""))


def short_names(names: Iterable[str], first_is_bare: bool) -> dict[str, str]:
    """The name under which each full name is a site's item: "" for one that is alone.

    Among a module's inputs the first is "" in any case, so that it keeps its name when, say, an explicit mask joins it.
    """
    found = list(names)
    bare = found[:1] if first_is_bare or len(found) == 1 else []
    return {"" if name in bare else name: name for name in found}


def arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """A call's arguments as one structure: positional ones under their number, the others under their name."""
    return {**{str(index): item for index, item in enumerate(args)}, **kwargs}


def split_arguments(merged: dict[str, Any], n_args: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The inverse of `arguments`."""
    items = list(merged.items())
    return tuple(item for _, item in items[:n_args]), dict(items[n_args:])


def replaced(value: Any, name: str, new: torch.Tensor) -> Any:
    """`value` with the tensor called `name` (as in `full_names`) replaced; containers on the way are rebuilt."""
    if not name:
        return new
    if isinstance(value, Mapping):
        key = next(k for k in value if name == str(k) or name.startswith(f"{k}."))
        rest = name[len(str(key)) + 1 :]
        items = {k: replaced(item, rest, new) if k is key else item for k, item in value.items()}
        return items if type(value) is dict else type(value)(**items)
    head, _, rest = name.partition(".")
    items_list = list(value)
    items_list[int(head)] = replaced(items_list[int(head)], rest, new)
    if hasattr(value, "_fields"):
        return type(value)(*items_list)
    return type(value)(items_list)
