"""Families whose MLP is several experts, in all layers or in some."""

from __future__ import annotations

from dataclasses import replace

from weft.models.tables.llama import LLAMA, QWEN3

MIXTRAL = replace(
    LLAMA, name="mixtral", model_types=("mixtral",), gate="", mlp_in="", mlp_out="",
    router="mlp.gate", experts="mlp.experts",
)  # fmt: skip
GPT_OSS = replace(MIXTRAL, name="gpt_oss", model_types=("gpt_oss",), router="mlp.router")
PHIMOE = replace(GPT_OSS, name="phimoe", model_types=("phimoe",), rms=False)
QWEN3_MOE = replace(QWEN3, name="qwen3_moe", model_types=("qwen3_moe",), router="mlp.gate", experts="mlp.experts")
QWEN2_MOE = replace(LLAMA, name="qwen2_moe", model_types=("qwen2_moe",), router="mlp.gate", experts="mlp.experts")
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
    PHIMOE,
    QWEN2_MOE,
    QWEN3_MOE,
    OLMOE,
)
