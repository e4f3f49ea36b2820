"""GPT-NeoX, BLOOM, Falcon and theirs: q, k and v come from one projection."""

from __future__ import annotations

from dataclasses import replace

from weft.models.family import Family

GPT_NEOX = Family(
    name="gpt_neox",
    model_types=("gpt_neox",),
    embed="gpt_neox.embed_in",
    layers="gpt_neox.layers",
    final_norm="gpt_neox.final_layer_norm",
    unembed="lm_head",
    norm1="input_layernorm",
    norm2="post_attention_layernorm",
    attn="attention",
    qkv="attention.query_key_value",
    packing="by group",
    o="attention.dense",
    mlp="mlp",
    mlp_in="mlp.dense_h_to_4h",
    mlp_out="mlp.dense_4h_to_h",
    parallel_if="use_parallel_residual",
)
BLOOM = Family(
    name="bloom",
    model_types=("bloom",),
    embed="transformer.word_embeddings",
    layers="transformer.h",
    final_norm="transformer.ln_f",
    unembed="lm_head",
    norm1="input_layernorm",
    norm2="post_attention_layernorm",
    attn="self_attention",
    qkv="self_attention.query_key_value",
    packing="by group",
    o="self_attention.dense",
    mlp="mlp",
    mlp_in="mlp.dense_h_to_4h",
    mlp_out="mlp.dense_4h_to_h",
    # attention and MLP are given the stream and return it with what they add
    attn_adds="self_attention.dense",
    mlp_adds="mlp.dense_4h_to_h",
    supplied="bloom",
    # with these the stream is that of a norm's output, or the projections are never called
    needs=(("apply_residual_connection_post_layernorm", False), ("slow_but_exact", False)),
)
FALCON = replace(
    BLOOM,
    name="falcon",
    model_types=("falcon",),
    norm2="",
    attn_adds="",
    mlp_adds="",
    written_over=True,
    parallel_if="parallel_attn",
    supplied="falcon",
    needs=(),
    where=(
        ("num_ln_in_parallel_attn", 2, (("norm1", "ln_attn"), ("norm2", "ln_mlp"))),
        ("parallel_attn", False, (("norm2", "post_attention_layernorm"),)),
    ),
)
MPT = Family(
    name="mpt",
    model_types=("mpt",),
    embed="transformer.wte",
    layers="transformer.blocks",
    final_norm="transformer.norm_f",
    unembed="lm_head",
    norm1="norm_1",
    norm2="norm_2",
    attn="attn",
    qkv="attn.Wqkv",
    o="attn.out_proj",
    mlp="ffn",
    mlp_in="ffn.up_proj",
    mlp_out="ffn.down_proj",
    mlp_adds="ffn.down_proj",  # the MLP is given the stream and returns it with what it adds
    supplied="mpt",
    needs=(("attn_config.clip_qkv", None),),
)
PERSIMMON = Family(
    name="persimmon",
    model_types=("persimmon",),
    embed="model.embed_tokens",
    layers="model.layers",
    final_norm="model.final_layernorm",
    unembed="lm_head",
    norm1="input_layernorm",
    norm2="post_attention_layernorm",
    attn="self_attn",
    qkv="self_attn.query_key_value",
    packing="by group",
    q_norm="self_attn.q_layernorm",
    k_norm="self_attn.k_layernorm",
    qk_norm_if="qk_layernorm",
    o="self_attn.dense",
    mlp="mlp",
    mlp_in="mlp.dense_h_to_4h",
    mlp_out="mlp.dense_4h_to_h",
)
ROWS = (GPT_NEOX, BLOOM, FALCON, MPT, PERSIMMON)
