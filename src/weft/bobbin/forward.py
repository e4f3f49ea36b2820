"""Bobbin's forward pass for training: what transformers' Llama computes, with the matrix products in `dtype`.

logits = forward(model, ids, texts)                    # [row, place, token]; a text sees nothing of the others in its row

On processors with bfloat16 arithmetic that takes half the time of the model's own pass, and on others many times as long:
`products()` tells them apart. The stream between the layers, the norms and the attention stay in float32, and so do the
weights that are trained. In float32 the two agree (tested).
"""

from __future__ import annotations

from functools import cache, partial
from timeit import timeit
from typing import Any

import torch
import torch.nn.functional as F


def forward(
    model: Any, ids: torch.Tensor, texts: torch.Tensor, dtype: torch.dtype = torch.float32, at: torch.Tensor | None = None
) -> torch.Tensor:  # fmt: skip
    """Logits in float32 of packed rows: `ids` and `texts` [row, place] (see `corpus.Shard`).

    Of the places where `at` [row, place] is true alone, if it is given: [n, token].
    """
    config, length = model.config, ids.shape[1]
    seen = (texts[:, None, :, None] == texts[:, None, None, :]) & torch.ones(length, length, dtype=torch.bool).tril()
    bias = torch.zeros(seen.shape).masked_fill_(~seen, float("-inf"))
    turn = _turns(length, config.head_dim, config.rope_parameters["rope_theta"])
    embedding = model.model.embed_tokens.weight
    stream = F.embedding(ids, embedding)
    for layer in model.model.layers:
        stream = stream + _attention(layer, stream, bias, turn, config.num_attention_heads, dtype)
        stream = stream + _mlp(layer, stream, dtype)
    stream = stream if at is None else stream[at]
    return F.linear(_norm(model.model.norm, stream).to(dtype), embedding.to(dtype)).float()


@cache
def products() -> torch.dtype:
    """The type in which this processor multiplies matrices sooner: bfloat16 where it has the instructions, else float32."""
    each = torch.randn(512, 256)
    took = {dtype: timeit(partial(torch.mm, each.to(dtype), each.to(dtype).T), number=20) for dtype in _TYPES}
    return min(took, key=took.__getitem__)


_TYPES = (torch.float32, torch.bfloat16)


def _attention(
    layer: Any, stream: torch.Tensor, bias: torch.Tensor, turn: tuple[torch.Tensor, ...], heads: int, dtype: torch.dtype
) -> torch.Tensor:  # fmt: skip
    own = layer.self_attn
    normed = _norm(layer.input_layernorm, stream).to(dtype)
    weights = torch.cat([own.q_proj.weight, own.k_proj.weight, own.v_proj.weight]).to(dtype)
    packed = F.linear(normed, weights).float()
    query_key, value = packed.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).split([2, 1])
    query, key = query_key * turn[0] + _half_turned(query_key) * turn[1]
    mixed = F.scaled_dot_product_attention(query, key, value[0], attn_mask=bias)
    return F.linear(mixed.transpose(1, 2).flatten(-2).to(dtype), own.o_proj.weight.to(dtype)).float()


def _mlp(layer: Any, stream: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    own = layer.mlp
    normed = _norm(layer.post_attention_layernorm, stream).to(dtype)
    weights = torch.cat([own.gate_proj.weight, own.up_proj.weight]).to(dtype)
    gate, up = F.linear(normed, weights).chunk(2, -1)
    return F.linear(F.silu(gate) * up, own.down_proj.weight.to(dtype)).float()


def _norm(norm: Any, value: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(value, value.shape[-1:], norm.weight, norm.variance_epsilon)


def _half_turned(value: torch.Tensor) -> torch.Tensor:
    first, second = value.chunk(2, -1)
    return torch.cat([-second, first], -1)


def _turns(length: int, width: int, base: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of the rotary angles: [place, d_head]."""
    angles = torch.outer(torch.arange(length), base ** (-torch.arange(0, width, 2) / width)).repeat(1, 2)
    return angles.cos(), angles.sin()
