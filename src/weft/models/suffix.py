"""A forward pass that begins at a layer: what enters it is given, and the layers below are left out.

    with entered(loaded, 5, stream):
        loaded.forward({"tokens": ids})         # layers 0 to 4 give `stream` without computing anything

The layers' hooks are called all the same, so that what is done to the output of layer 4 is done to `stream`. Whether
the rest of a model then computes what it would have is for the caller to find out: `layers_are_plain` says whether
the layers can be left out at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from weft.models.hooks import lock_of

if TYPE_CHECKING:
    from weft.models.loaded import Loaded


def layers_of(loaded: Loaded) -> list[nn.Module]:
    """The decoder's layers, in order; none where weft has no table for the model."""
    if loaded.family is None or loaded.kind != "decoder":
        return []
    return [loaded.module.get_submodule(f"{loaded.family.layers}.{n}") for n in range(loaded.sizes["n_layers"])]


@contextmanager
def entered(loaded: Loaded, layer: int, stream: torch.Tensor) -> Iterator[None]:
    """While open, forward passes of this model take `stream` [rows, pos, d_model] as what enters `layer`."""
    below = layers_of(loaded)[:layer]
    with lock_of(loaded.module):
        try:
            for each in below[:-1]:
                each.forward = _as_given
            below[-1].forward = _giving(stream)
            yield
        finally:
            for each in below:
                each.__dict__.pop("forward", None)


def layers_are_plain(loaded: Loaded) -> bool:
    """Whether every layer's forward is its class's own, so that it can be left out and put back."""
    return all("forward" not in each.__dict__ for each in layers_of(loaded))


def _as_given(hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return hidden_states


def _giving(stream: torch.Tensor) -> Callable[..., torch.Tensor]:
    def forward(*_: Any, **__: Any) -> torch.Tensor:
        return stream

    return forward
