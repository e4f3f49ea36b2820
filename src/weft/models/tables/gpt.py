"""GPT-2 and its kin: one projection of q, k and v, learned positions, LayerNorm."""

from __future__ import annotations

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
ROWS = (GPT2,)
