"""Attention written anew for families that do not look theirs up in transformers' registry, so that weft's may be used.

Each takes the attention module and its arguments, and gives what the module's own forward gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from weft.models.attention import attention
from weft.models.families import Family


@contextmanager
def supplied(module: nn.Module, family: Family) -> Iterator[None]:
    """Meanwhile the layers of a family that computes attention itself have it from here; others are left alone."""
    anew = SUPPLIED.get(family.supplied)
    if anew is None:
        yield
        return
    layers: Any = module.get_submodule(family.layers)
    changed = [each for each in (layer.get_submodule(family.attn) for layer in layers) if "forward" not in vars(each)]
    try:
        for each in changed:
            each.forward = partial(anew, each)
        yield
    finally:
        for each in changed:
            vars(each).pop("forward", None)


def bloom(
    module: Any,
    hidden_states: torch.Tensor,
    residual: torch.Tensor,
    alibi: torch.Tensor,  # batch · head, 1, key_pos
    attention_mask: Any,
    layer_past: Any = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """BLOOM's: scores have a bias by the key's position, and the stream is added to what comes out."""
    query, key, value = module._reshape(module.query_key_value(hidden_states))
    if layer_past is not None:
        key, value = layer_past.update(key, value, module.layer_idx)
    batch, heads = query.shape[:2]
    z, pattern = attention(
        module,
        query,
        key,
        value,
        attention_mask,
        scaling=module.inv_norm_factor,
        position_bias=alibi.view(batch, heads, 1, -1),
        key_bias=partial(_alibi, heads, dtype=query.dtype),
        through=module.attention_dropout,
    )
    return module.dense(z.flatten(2)) + residual, pattern


def _alibi(heads: int, positions: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A slope for each head times the key's position (Press et al. 2021): [head, *positions]."""
    slopes = torch.tensor(_slopes(heads), device=positions.device)
    return (slopes.reshape(-1, *[1] * positions.dim()) * positions).to(dtype)


def _slopes(heads: int) -> list[float]:
    """Powers of one number, ending with 2^-8, for a power of two of heads; further heads take every other one of those
    for twice as many."""
    even = 2 ** math.floor(math.log2(heads))
    found = [2 ** (-8 * (at + 1) / even) for at in range(even)]
    return found if even == heads else found + _slopes(2 * even)[0::2][: heads - even]


SUPPLIED: dict[str, Callable[..., Any]] = {"bloom": bloom}
