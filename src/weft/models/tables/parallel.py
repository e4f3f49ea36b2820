"""Blocks in which attention and MLP read the stream through one norm, and both are added to it at once."""

from __future__ import annotations

from dataclasses import replace

from weft.models.family import Family
from weft.models.tables.llama import LLAMA

PHI = replace(
    LLAMA,
    name="phi",
    model_types=("phi",),
    final_norm="model.final_layernorm",
    norm2="",
    o="self_attn.dense",
    q_norm="self_attn.q_layernorm",
    k_norm="self_attn.k_layernorm",
    qk_layout="head first",
    qk_norm_if="qk_layernorm",
    gate="",
    mlp_in="mlp.fc1",
    mlp_out="mlp.fc2",
    rms=False,
    parallel=True,
)
COHERE = replace(
    LLAMA,
    name="cohere",
    model_types=("cohere",),
    norm2="",
    q_norm="self_attn.q_norm",
    k_norm="self_attn.k_norm",
    qk_norm_if="use_qk_norm",
    rms=False,
    parallel=True,
    logits_times_in="logit_scale",
)
COHERE2 = replace(COHERE, name="cohere2", model_types=("cohere2",), q_norm="", k_norm="", qk_norm_if="")
STABLELM = replace(
    LLAMA,
    name="stablelm",
    model_types=("stablelm",),
    norm2="",
    q_norm="self_attn.q_layernorm",
    k_norm="self_attn.k_layernorm",
    qk_layout="head first",
    qk_norm_if="qk_layernorm",
    rms=False,
    parallel_if="use_parallel_residual",
    where=(("use_parallel_residual", False, (("norm2", "post_attention_layernorm"),)),),
)
GPTJ = Family(
    name="gptj",
    model_types=("gptj",),
    embed="transformer.wte",
    layers="transformer.h",
    final_norm="transformer.ln_f",
    unembed="lm_head",
    norm1="ln_1",
    attn="attn",
    q="attn.q_proj",
    k="attn.k_proj",
    v="attn.v_proj",
    o="attn.out_proj",
    mlp="mlp",
    mlp_in="mlp.fc_in",
    mlp_out="mlp.fc_out",
    parallel=True,
    supplied="gptj",
)
CODEGEN = replace(
    GPTJ, name="codegen", model_types=("codegen",), q="", k="", v="", qkv="attn.qkv_proj", packing="in four"
)
ROWS = (PHI, COHERE, COHERE2, STABLELM, GPTJ, CODEGEN)
