"""Families whose MLP is several experts, in all layers or in some."""

from __future__ import annotations

from dataclasses import replace

from weft.models.tables.llama import LLAMA, QWEN3
from weft.models.tables.postnorm import OLMO2

QWEN2_MOE = replace(
    LLAMA, name="qwen2_moe", model_types=("qwen2_moe", "solar_open"), router="mlp.gate", experts="mlp.experts"
)
QWEN3_MOE = replace(
    QWEN3, name="qwen3_moe", model_types=("qwen3_moe", "mellum"), router="mlp.gate", experts="mlp.experts"
)
ERNIE4_5_MOE = replace(QWEN2_MOE, name="ernie4_5_moe", model_types=("ernie4_5_moe",))
DOTS1 = replace(QWEN3_MOE, name="dots1", model_types=("dots1",))
EXAONE_MOE = replace(DOTS1, name="exaone_moe", model_types=("exaone_moe",), qk_layout="head first")
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
MINIMAX_M2 = replace(OLMOE, name="minimax_m2", model_types=("minimax_m2",), needs=())
FLEX_OLMO = replace(
    OLMO2, name="flex_olmo", model_types=("flex_olmo",), gate="", mlp_in="", mlp_out="",
    router="mlp.gate", experts="mlp.experts",
)  # fmt: skip
GRANITEMOESHARED = replace(
    GRANITEMOE,
    name="granitemoeshared",
    model_types=("granitemoeshared",),
    mlp_also="shared_mlp",
    where=(("shared_intermediate_size", 0, (("mlp_also", ""),)),),
)
_LATENT = (
    "keys are made of a latent and of a part that all heads share, which alone enters rotary: no one point has them before it;"
    " k_rot has them after it, module(layer.self_attn.kv_a_layernorm) the latent"
)
DEEPSEEK_V3 = replace(
    QWEN2_MOE,
    name="deepseek_v3",
    model_types=("deepseek_v3", "deepseek_v2", "glm4_moe_lite"),
    q="self_attn.q_b_proj",
    k="",
    v="",
    inside=("v",),
    d_head_in="qk_head_dim",
    d_v_in="v_head_dim",
    same=(("num_attention_heads", "num_key_value_heads"),),
    where=(("q_lora_rank", None, (("q", "self_attn.q_proj"),)),),
    lacks=(("k", _LATENT), ("W_Q", "queries are made of a latent")),
)
QWEN3_NEXT = replace(
    QWEN3_MOE,
    name="qwen3_next",
    model_types=("qwen3_next", "qwen3_5_moe_text"),
    mixers=("linear_attn",),
    inside=("z",),
    lacks=(("W_Q", "queries lie in their projection beside the gates of z"),),
)
LFM2_MOE = replace(
    LLAMA,
    name="lfm2_moe",
    model_types=("lfm2_moe",),
    final_norm="model.embedding_norm",
    norm1="operator_norm",
    norm2="ffn_norm",
    mixers=("conv",),
    o="self_attn.out_proj",
    q_norm="self_attn.q_layernorm",
    k_norm="self_attn.k_layernorm",
    mlp="feed_forward",
    gate="feed_forward.w1",
    mlp_in="feed_forward.w3",
    mlp_out="feed_forward.w2",
    router="feed_forward.gate",
    experts="feed_forward.experts",
)
LLAMA4 = replace(
    LLAMA,
    name="llama4",
    model_types=("llama4_text",),
    mlp="feed_forward",
    flat=True,
    gate="feed_forward.gate_proj",
    mlp_in="feed_forward.up_proj",
    mlp_out="feed_forward.down_proj",
    router="feed_forward.router",
    experts="feed_forward.experts",
    experts_whole=True,
)
AFMOE = replace(
    QWEN3_MOE,
    name="afmoe",
    model_types=("afmoe",),
    norm2="pre_mlp_layernorm",
    attn_adds="post_attention_layernorm",
    mlp_adds="post_mlp_layernorm",
    inside=("z",),
    router="mlp.router",
)
_NOT_ADDED = (
    "the stream goes on as the output of a norm, multiplied, and what the sublayer gives is added to that, multiplied too: "
    "nothing is added to the stream as it was"
)
MINIMAX = replace(
    MIXTRAL,
    name="minimax",
    model_types=("minimax",),
    lacks=tuple((site, _NOT_ADDED) for site in ("attn_out", "mlp_out", "head_out", "expert_out")),
)
ROWS = (
    *(QWEN2_MOE, QWEN3_MOE, ERNIE4_5_MOE, DOTS1, GLM4_MOE, MIXTRAL, GPT_OSS, PHIMOE, HUNYUAN_V1_MOE, GRANITEMOE),
    *(OLMOE, FLEX_OLMO, GRANITEMOESHARED, DEEPSEEK_V3, QWEN3_NEXT, LFM2_MOE, LLAMA4),
    *(EXAONE_MOE, MINIMAX_M2, AFMOE, MINIMAX),
)
