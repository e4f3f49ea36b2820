"""Gemma: gains that count from 1, and later a norm on both sides of each sublayer."""

from __future__ import annotations

from dataclasses import replace

from weft.models.tables.llama import LLAMA

GEMMA = replace(LLAMA, name="gemma", model_types=("gemma",))
GEMMA2 = replace(
    LLAMA,
    name="gemma2",
    model_types=("gemma2",),
    norm2="pre_feedforward_layernorm",
    attn_adds="post_attention_layernorm",
    mlp_adds="post_feedforward_layernorm",
    softcap_in="final_logit_softcapping",
)
GEMMA3 = replace(
    GEMMA2,
    name="gemma3",
    model_types=("gemma3_text",),
    q_norm="self_attn.q_norm",
    k_norm="self_attn.k_norm",
    qk_layout="head first",
)
VAULTGEMMA = replace(GEMMA2, name="vaultgemma", model_types=("vaultgemma",), attn_adds="", mlp_adds="")
ROWS = (
    VAULTGEMMA,
    GEMMA,
    GEMMA2,
    GEMMA3,
)
