"""Activations that a model computes in many small steps, computed in one while the engine runs.

    with fused(activations(layers)):                       # GPT-2's gelu: one pass over memory instead of eight
        ...

The same function of the same input, up to rounding: 2e-7 in float32, which alone is computed so; in other types, and in
an activation that somebody has patched, the model's own steps are taken.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

_known: weakref.WeakKeyDictionary[nn.Module, list[nn.Module]] = weakref.WeakKeyDictionary()


def activations_of(model: nn.Module) -> list[nn.Module]:
    """`activations` of a whole model, looked for once. One that is put in later is computed as it stands."""
    found = _known.get(model)
    if found is None:
        found = _known[model] = activations([model])
    return found


def activations(layers: Iterable[nn.Module]) -> list[nn.Module]:
    """The activations among some modules that have a shorter way: transformers' gelu by tanh, in its two spellings."""
    from transformers.activations import FastGELUActivation, NewGELUActivation

    known = (NewGELUActivation, FastGELUActivation)
    return [part for layer in layers for part in layer.modules() if type(part) in known]


@contextmanager
def fused(parts: Iterable[nn.Module]) -> Iterator[None]:
    """Meanwhile these activations are computed in one step; their hooks are called as ever."""
    mine = [part for part in parts if "forward" not in vars(part)]
    try:
        for part in mine:
            vars(part)["forward"] = partial(_gelu, part)  # a module's own __setattr__ looks for parameters first
        yield
    finally:
        for part in mine:
            vars(part).pop("forward", None)


def _gelu(part: nn.Module, value: torch.Tensor) -> torch.Tensor:
    if value.dtype is not torch.float32:
        return type(part).forward(part, value)
    return nn.functional.gelu(value, approximate="tanh")
