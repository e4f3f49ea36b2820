"""Llama-like blocks with norms after their sublayers."""

from __future__ import annotations

from dataclasses import replace

from weft.models.tables.llama import GLM, LLAMA

OLMO2 = replace(
    LLAMA,
    name="olmo2",
    model_types=("olmo2", "olmo3"),
    norm1="",
    norm2="",
    attn_adds="post_attention_layernorm",
    mlp_adds="post_feedforward_layernorm",
    q_norm="self_attn.q_norm",
    k_norm="self_attn.k_norm",
    qk_layout="flat",
)
EXAONE4 = replace(OLMO2, name="exaone4", model_types=("exaone4",), qk_layout="head first")
GLM4 = replace(
    GLM,
    name="glm4",
    model_types=("glm4",),
    attn_adds="post_self_attn_layernorm",
    mlp_adds="post_mlp_layernorm",
)
ROWS = (OLMO2, EXAONE4, GLM4)
