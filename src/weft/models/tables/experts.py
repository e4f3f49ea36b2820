"""Families whose MLP is several experts, in all layers or in some."""

from __future__ import annotations

from dataclasses import replace

from weft.models.tables.llama import LLAMA, QWEN3
from weft.models.tables.postnorm import OLMO2

QWEN2_MOE = replace(LLAMA, name="qwen2_moe", model_types=("qwen2_moe",), router="mlp.gate", experts="mlp.experts")
QWEN3_MOE = replace(QWEN3, name="qwen3_moe", model_types=("qwen3_moe",), router="mlp.gate", experts="mlp.experts")
ERNIE4_5_MOE = replace(QWEN2_MOE, name="ernie4_5_moe", model_types=("ernie4_5_moe",))
DOTS1 = replace(QWEN3_MOE, name="dots1", model_types=("dots1",))
GLM4_MOE = replace(QWEN3_MOE, name="glm4_moe", model_types=("glm4_moe",), qk_norm_if="use_qk_norm")
MIXTRAL = replace(QWEN2_MOE, name="mixtral", model_types=("mixtral",), gate="", mlp_in="", mlp_out="")
GPT_OSS = replace(MIXTRAL, name="gpt_oss", model_types=("gpt_oss",), router="mlp.router")
PHIMOE = replace(GPT_OSS, name="phimoe", model_types=("phimoe",), rms=False)
# Its norms of q and k come after rotary: what enters that is the bare projection, and q_rot is after the norm.
HUNYUAN_V1_MOE = replace(MIXTRAL, name="hunyuan_v1_moe", model_types=("hunyuan_v1_moe",))
GRANITEMOE = replace(
    MIXTRAL,
    name="granitemoe",
    model_types=("granitemoe",),
    mlp="block_sparse_moe",
    router="block_sparse_moe.router",
    experts="block_sparse_moe.experts",
    times_in="residual_multiplier",
    logits_over_in="logits_scaling",
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
FLEX_OLMO = replace(
    OLMO2, name="flex_olmo", model_types=("flex_olmo",), gate="", mlp_in="", mlp_out="",
    router="mlp.gate", experts="mlp.experts",
)  # fmt: skip
ROWS = (
    *(QWEN2_MOE, QWEN3_MOE, ERNIE4_5_MOE, DOTS1, GLM4_MOE, MIXTRAL, GPT_OSS, PHIMOE, HUNYUAN_V1_MOE, GRANITEMOE),
    *(OLMOE, FLEX_OLMO),
)
