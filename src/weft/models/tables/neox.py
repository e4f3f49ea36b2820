"""GPT-NeoX and BLOOM: q, k and v head by head in one projection."""

from __future__ import annotations

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
    interleaved=True,
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
    interleaved=True,
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
ROWS = (
    GPT_NEOX,
    BLOOM,
)
