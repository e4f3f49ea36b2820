"""Attention written anew for families that do not look theirs up in transformers' registry, so that weft's may be used.

Each takes the attention module and the arguments of the method that it stands for, and gives what that gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from weft.models.attention import Rule, attention, original_of
from weft.models.families import Family


@contextmanager
def supplied(module: nn.Module, family: Family) -> Iterator[None]:
    """Meanwhile the layers of a family that computes attention itself have it from here; others are left alone."""
    found = SUPPLIED.get(family.supplied)
    if found is None:
        yield
        return
    method, anew = found
    layers: Any = module.get_submodule(family.layers)
    own = [layer.get_submodule(family.attn) for layer in layers]
    changed = [each for each in own if method not in vars(each)]
    numbered = [(each, number) for number, each in enumerate(own) if not hasattr(each, "layer_idx")]
    try:
        for each in changed:
            setattr(each, method, partial(anew, each))
        for each, number in numbered:
            each.layer_idx = number
        yield
    finally:
        for each in changed:
            vars(each).pop(method, None)
        for each, _ in numbered:
            vars(each).pop("layer_idx", None)


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


def gptj(module: Any, query: Any, key: Any, value: Any, attention_mask: Any = None) -> tuple[Any, Any]:
    """GPT-J's and CodeGen's inner part, [batch, head, pos, d_head] to the same."""
    through = module.attn_dropout
    z, pattern = attention(
        module, query, key, value, attention_mask, scaling=1 / float(module.scale_attn), through=through
    )
    return z.transpose(1, 2), pattern


def gpt_neo(module: Any, query: Any, key: Any, value: Any, attention_mask: Any = None) -> tuple[Any, Any]:
    """GPT-Neo's inner part: no scale, and in some layers a window."""
    if module.attention_type == "local":
        attention_mask = _windowed(module, attention_mask, query.shape[2], key.shape[2])
    through = module.attn_dropout
    z, pattern = attention(module, query, key, value, attention_mask, scaling=1.0, through=through)
    return z.transpose(1, 2), pattern


def _windowed(module: Any, given: Any, queries: int, keys: int) -> Any:
    """A mask with the layer's window in it."""
    if isinstance(given, Rule):
        whole, size = given.function, module.config.window_size
        return Rule(lambda batch, head, query, key: whole(batch, head, query, key) & (key > query - size))
    seen = module.bias[:, :, keys - queries : keys, :keys]
    if given is None:
        return seen
    given = given[..., :keys]
    return given & seen if given.dtype == torch.bool else given.masked_fill(~seen, torch.finfo(given.dtype).min)


def mpt(
    module: Any,
    hidden_states: torch.Tensor,
    position_bias: torch.Tensor,  # head, 1, position
    past_key_values: Any = None,
    attention_mask: Any = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """MPT's: a bias by the key's position, counted from the first key. Its own counts from the last one, which is the same
    to the softmax, but would make a row's scores hang on how many rows follow."""
    heads = module.n_heads
    sides = module.Wqkv(hidden_states).chunk(3, dim=2)
    query, key, value = (side.unflatten(-1, (heads, -1)).transpose(1, 2) for side in sides)
    if past_key_values is not None:
        key, value = past_key_values.update(key, value, module.layer_idx)
    slopes = position_bias[:, 0, -1] - position_bias[:, 0, -2]
    bias = partial(_sloped, slopes)
    z, pattern = attention(
        module,
        query,
        key,
        value,
        attention_mask if isinstance(attention_mask, Rule) else ~attention_mask,  # its own is true where hidden
        scaling=module.softmax_scale,
        position_bias=bias(torch.arange(key.shape[2], device=key.device))[:, None],
        key_bias=bias,
    )
    return module.out_proj(z.flatten(2)), pattern


def _sloped(slopes: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """A slope for each head times the key's position: [head, *positions]."""
    return slopes.reshape(-1, *[1] * positions.dim()) * positions


def falcon(
    module: Any,
    hidden_states: torch.Tensor,
    alibi: torch.Tensor | None,
    attention_mask: Any,
    position_ids: Any = None,
    layer_past: Any = None,
    use_cache: bool = False,
    output_attentions: bool = False,
    position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Falcon's: rotary, or a bias by the key's position, which is in the mask already; its eager attention adds it again."""
    from transformers.models.falcon.modeling_falcon import apply_rotary_pos_emb

    query, key, value = (part.transpose(1, 2) for part in module._split_heads(module.query_key_value(hidden_states)))
    if alibi is None and position_embeddings is not None:
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
    if layer_past is not None:
        key, value = layer_past.update(key, value, module.layer_idx)
    again = alibi if alibi is not None and original_of(module.config) == "eager" else None
    z, pattern = attention(
        module,
        query,
        key,
        value,
        attention_mask,
        scaling=module.inv_norm_factor,
        position_bias=None if again is None else again.view(len(query), -1, 1, key.shape[2]) * module.inv_norm_factor,
        key_bias=None if alibi is None else partial(_falcon_alibi, module, dtype=query.dtype),
        through=None if again is None else module.attention_dropout,
        repeated=module.num_heads // module.num_kv_heads if module.new_decoder_architecture else 1,
    )
    return module.dense(z.flatten(2)), pattern


def _falcon_alibi(module: Any, positions: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """As BLOOM's, rounded to bfloat16 and scaled as the products are: [head, *positions]."""
    slopes = torch.tensor(_slopes(module.num_heads), device=positions.device).bfloat16()
    return _sloped(slopes, positions).to(dtype) * module.inv_norm_factor


def xglm(
    module: Any,
    hidden_states: torch.Tensor,
    past_key_values: Any = None,
    attention_mask: Any = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """XGLM's and OPT's. They scale the query before attention gets it, which then is no more the query of the equations."""
    states = [proj(hidden_states) for proj in (module.q_proj, module.k_proj, module.v_proj)]
    query, key, value = (each.unflatten(-1, (module.num_heads, -1)).transpose(1, 2) for each in states)
    if past_key_values is not None:
        key, value = past_key_values.update(key, value, module.layer_idx)
    z, pattern = attention(module, query, key, value, attention_mask, scaling=module.scaling)
    return module.out_proj(z.flatten(2)), pattern


SUPPLIED: dict[str, tuple[str, Callable[..., Any]]] = {
    "bloom": ("forward", bloom),
    "falcon": ("forward", falcon),
    "gpt_neo": ("_attn", gpt_neo),
    "gptj": ("_attn", gptj),
    "mpt": ("forward", mpt),
    "opt": ("forward", xglm),
    "xglm": ("forward", xglm),
}
"""By the name in a family's table: which method of its attention is written anew, and how."""
