"""Llama and its kin: RMS norms before each sublayer, rotary, a gated MLP."""

from __future__ import annotations

from dataclasses import replace

from weft.models.family import Family

LLAMA = Family(
    name="llama",
    model_types=(
        *("llama", "mistral", "ministral", "ministral3", "qwen2", "smollm3", "seed_oss", "helium", "ernie4_5", "cwm"),
        *("internlm3", "iquestcoder", "emu3_text_model"),
        "hunyuan_v1_dense",  # its norms of q and k are after rotary
    ),
    embed="model.embed_tokens",
    layers="model.layers",
    final_norm="model.norm",
    unembed="lm_head",
    norm1="input_layernorm",
    norm2="post_attention_layernorm",
    attn="self_attn",
    q="self_attn.q_proj",
    k="self_attn.k_proj",
    v="self_attn.v_proj",
    o="self_attn.o_proj",
    mlp="mlp",
    gate="mlp.gate_proj",
    mlp_in="mlp.up_proj",
    mlp_out="mlp.down_proj",
    rms=True,
)
QWEN3 = replace(LLAMA, name="qwen3", model_types=("qwen3",), q_norm="self_attn.q_norm", k_norm="self_attn.k_norm")
ARCEE = replace(LLAMA, name="arcee", model_types=("arcee",), gate="")
STARCODER2 = replace(
    ARCEE, name="starcoder2", model_types=("starcoder2",), rms=False, mlp_in="mlp.c_fc", mlp_out="mlp.c_proj"
)
PHI3 = replace(
    LLAMA,
    name="phi3",
    model_types=("phi3",),
    qkv="self_attn.qkv_proj",
    q="",
    k="",
    v="",
    gate="",
    mlp_in="",
    gate_up="mlp.gate_up_proj",
)
NEMOTRON = replace(ARCEE, name="nemotron", model_types=("nemotron", "jais2"), rms=False)
APERTUS = replace(
    ARCEE,
    name="apertus",
    model_types=("apertus",),
    norm1="attention_layernorm",
    norm2="feedforward_layernorm",
    q_norm="self_attn.q_norm",
    k_norm="self_attn.k_norm",
    qk_layout="head first",
)
OLMO = replace(LLAMA, name="olmo", model_types=("olmo",), rms=False, needs=(("clip_qkv", None),))
GLM = replace(LLAMA, name="glm", model_types=("glm",), gate="", mlp_in="", gate_up="mlp.gate_up_proj")
GRANITE = replace(
    LLAMA,
    name="granite",
    model_types=("granite", "granite_swa"),
    times_in="residual_multiplier",
    logits_over_in="logits_scaling",
)
HYPERCLOVAX = replace(
    GRANITE,
    name="hyperclovax",
    model_types=("hyperclovax",),
    attn_adds="post_norm1",
    mlp_adds="post_norm2",
    where=(("use_post_norm", False, (("attn_adds", ""), ("mlp_adds", ""))),),
    logits_over_in="",
    logits_times_in="logits_scaling",
)
BITNET = replace(LLAMA, name="bitnet", model_types=("bitnet",), z="self_attn.attn_sub_norm")
NANOCHAT = replace(  # its norms have no gains; those of q and k are after rotary
    ARCEE, name="nanochat", model_types=("nanochat",), mlp_in="mlp.fc1", mlp_out="mlp.fc2",
    softcap_in="final_logit_softcapping", norms_twice=True,
)  # fmt: skip
ROWS = (*(NANOCHAT, LLAMA, QWEN3, ARCEE, STARCODER2, PHI3, NEMOTRON, APERTUS, OLMO, GLM, GRANITE, HYPERCLOVAX, BITNET),)
