"""GPT-2 and its kin, and OPT and its own: positions are added to the tokens, norms are LayerNorms, MLPs have no gate."""

from __future__ import annotations

from dataclasses import replace

from weft.models.family import Family

GPT2 = Family(
    name="gpt2",
    model_types=("gpt2",),
    embed="transformer.wte",
    positions="transformer.wpe",
    layers="transformer.h",
    final_norm="transformer.ln_f",
    unembed="lm_head",
    norm1="ln_1",
    norm2="ln_2",
    attn="attn",
    qkv="attn.c_attn",
    o="attn.c_proj",
    mlp="mlp",
    mlp_in="mlp.c_fc",
    mlp_out="mlp.c_proj",
    conv1d=True,
)
GPT_BIGCODE = replace(  # a group of all heads where keys are shared, else one of each
    GPT2, name="gpt_bigcode", model_types=("gpt_bigcode",), packing="by group", conv1d=False
)
GPT_NEO = replace(
    GPT2,
    name="gpt_neo",
    model_types=("gpt_neo",),
    attn="attn.attention",
    qkv="",
    q="attn.attention.q_proj",
    k="attn.attention.k_proj",
    v="attn.attention.v_proj",
    o="attn.attention.out_proj",
    conv1d=False,
    supplied="gpt_neo",
)
CTRL = Family(
    name="ctrl",
    model_types=("ctrl",),
    embed="transformer.w",
    layers="transformer.h",
    final_norm="transformer.layernorm",
    unembed="lm_head",
    norm1="layernorm1",
    norm2="layernorm2",
    attn="multi_head_attention",
    q="multi_head_attention.Wq",
    k="multi_head_attention.Wk",
    v="multi_head_attention.Wv",
    o="multi_head_attention.dense",
    mlp="ffn",
    mlp_in="ffn.0",
    mlp_out="ffn.2",
)
BIOGPT = Family(
    name="biogpt",
    model_types=("biogpt",),
    embed="biogpt.embed_tokens",
    positions="biogpt.embed_positions",
    positions_from=2,
    layers="biogpt.layers",
    final_norm="biogpt.layer_norm",
    unembed="output_projection",
    norm1="self_attn_layer_norm",
    norm2="final_layer_norm",
    attn="self_attn",
    q="self_attn.q_proj",
    k="self_attn.k_proj",
    v="self_attn.v_proj",
    o="self_attn.out_proj",
    mlp="",
    mlp_adds="fc2",
    mlp_in="fc1",
    mlp_out="fc2",
)
XGLM = replace(
    BIOGPT,
    name="xglm",
    model_types=("xglm",),
    embed="model.embed_tokens",
    positions="",  # sines, no parameter
    layers="model.layers",
    final_norm="model.layer_norm",
    unembed="lm_head",
    supplied="xglm",
)
OPT = replace(
    BIOGPT,
    name="opt",
    model_types=("opt",),
    embed="model.decoder.embed_tokens",
    positions="model.decoder.embed_positions",
    layers="model.decoder.layers",
    final_norm="model.decoder.final_layer_norm",
    unembed="lm_head",
    flat=True,
    supplied="opt",
    # else norms are of the stream itself, or a projection lies between the last norm and the unembedding
    needs=(("do_layer_norm_before", True),),
    same=(("word_embed_proj_dim", "hidden_size"),),
)
ROWS = (GPT2, GPT_BIGCODE, GPT_NEO, CTRL, BIOGPT, XGLM, OPT)
