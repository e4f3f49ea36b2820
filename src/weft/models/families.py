"""What weft knows of a model family: where its parts are, and nothing else.

A family is a row of facts, not a class. Paths are relative to the layer, except those of the whole model. Everything
that depends on the sizes comes from the model's own configuration.
"""

from __future__ import annotations

from dataclasses import dataclass

STANDARD_SITES = (
    "embed", "q", "k", "v", "q_rot", "k_rot", "scores", "pattern", "z", "head_out", "attn_out",
    "resid_mid", "mlp_pre", "mlp_post", "mlp_out", "resid_post", "final_norm", "logits",
)  # fmt: skip
"""The standard sites in the order in which a decoder computes them (those of a layer for each layer)."""

LAYERED = frozenset(STANDARD_SITES) - {"embed", "final_norm", "logits"}
INSIDE_ATTENTION = ("q_rot", "k_rot", "scores", "pattern")
"""Sites that exist only while weft's own attention function runs, in its order."""


@dataclass(frozen=True)
class Family:
    """Where a family keeps its parts.

    `qkv` is the one projection that gives q, k and v side by side, or "" where `q`, `k`, `v` are separate. `gate` is ""
    for a plain MLP. `conv1d`: weights are stored [in, out] (GPT-2), not [out, in]. `rms`: the norms are RMS norms.
    """

    name: str
    model_types: tuple[str, ...]
    embed: str
    layers: str
    final_norm: str
    unembed: str
    norm1: str
    norm2: str
    attn: str
    o: str
    mlp: str
    mlp_in: str
    mlp_out: str
    qkv: str = ""
    q: str = ""
    k: str = ""
    v: str = ""
    gate: str = ""
    positions: str = ""
    conv1d: bool = False
    rms: bool = False


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
LLAMA = Family(
    name="llama",
    model_types=("llama", "mistral", "qwen2"),
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
FAMILIES: dict[str, Family] = {family.name: family for family in (GPT2, LLAMA)}
BY_MODEL_TYPE: dict[str, Family] = {kind: family for family in FAMILIES.values() for kind in family.model_types}


def canonical(site_name: str, n_layers: int) -> tuple[int | None, ...]:
    """The layers at which a standard site exists: `(None,)` for those of the whole model."""
    return tuple(range(n_layers)) if site_name in LAYERED else (None,)
