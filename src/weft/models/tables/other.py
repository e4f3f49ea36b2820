"""Models that take tokens and give logits, and are no decoders of attention and MLP: their stream, and modules by path.

What mixes positions in them has no heads, queries or keys, so what it adds has no site; it is `run.module(path).output`.
"""

from __future__ import annotations

from dataclasses import replace

from weft.models.family import Family

NO_MODULE = "-"
_NOT_THERE = (
    "q", "k", "v", "q_rot", "k_rot", "scores", "pattern", "z", "head_out", "attn_out", "resid_mid", "mlp_pre", "mlp_post",
    "mlp_out", "router_logits", "expert_weights", "expert_out",
)  # fmt: skip


def _lacks(why: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, why) for name in _NOT_THERE)


MAMBA = Family(
    name="mamba",
    model_types=("mamba", "mamba2", "falcon_mamba"),
    embed="backbone.embeddings",
    layers="backbone.layers",
    final_norm="backbone.norm_f",
    unembed="lm_head",
    attn=NO_MODULE,
    o=NO_MODULE,
    mlp=NO_MODULE,
    norm1="norm",
    rms=True,
    lacks=_lacks(
        "a layer is one state space, neither attention nor an MLP; what it adds to the stream is the output of its mixer, "
        'run.module("backbone.layers.0.mixer").output'
    ),
)
RWKV = replace(
    MAMBA,
    name="rwkv",
    model_types=("rwkv",),
    embed="rwkv.embeddings",
    layers="rwkv.blocks",
    final_norm="rwkv.ln_out",
    unembed="head",
    norm1="ln1",
    rms=False,
    lacks=_lacks(
        "its time mixing has no queries and no pattern, and its channel mixing looks one token back; what they add to the "
        'stream: run.module("rwkv.blocks.0.attention").output, run.module("rwkv.blocks.0.feed_forward").output'
    ),
    needs=(("rescale_every", 0),),  # otherwise the stream is halved between layers
)
BY_TYPE: dict[str, Family] = {kind: family for family in (MAMBA, RWKV) for kind in family.model_types}
