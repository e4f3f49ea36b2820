"""Families whose MLP is several experts."""

from __future__ import annotations

from dataclasses import replace

from weft.models.tables.llama import LLAMA, QWEN3

GPT_OSS = replace(LLAMA, name="gpt_oss", model_types=("gpt_oss",), gate="", mlp_in="", mlp_out="")
MIXTRAL = replace(GPT_OSS, name="mixtral", model_types=("mixtral",))
QWEN3_MOE = replace(
    QWEN3,
    name="qwen3_moe",
    model_types=("qwen3_moe",),
    gate="",
    mlp_in="",
    mlp_out="",
    needs=(("mlp_only_layers", []), ("decoder_sparse_step", 1)),  # otherwise some layers have no experts
)
OLMOE = replace(
    MIXTRAL,
    name="olmoe",
    model_types=("olmoe",),
    q_norm="self_attn.q_norm",
    k_norm="self_attn.k_norm",
    qk_layout="flat",
    needs=(("clip_qkv", None),),
)
ROWS = (
    GPT_OSS,
    MIXTRAL,
    QWEN3_MOE,
    OLMOE,
)
