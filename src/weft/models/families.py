"""What weft knows of a model family: where its parts are, and nothing else.

A family is a row of facts, not a class. Paths are relative to the layer, except those of the whole model. Everything
that depends on the sizes comes from the model's own configuration.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

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
    """Where a family keeps its parts, and where what it adds to the stream is found.

    Paths of modules, "" where there is none:
        `norm1`, `norm2`          the norms that attention and MLP read through
        `attn_adds`, `mlp_adds`   whose output the sublayer adds to the stream, where it is not `attn`'s or `mlp`'s own: a
                                  norm after it, or a projection, where the module's output has the stream in it already
        `qkv`                     one projection of q, k and v: side by side, or head by head if `interleaved`
        `q_norm`, `k_norm`        norms of q and k, which get them as `qk_layout` says:
                                  "flat" [batch, pos, heads · d_head], "head" [batch, pos, head, d_head] or
                                  "head first" [batch, head, pos, d_head]
        `gate`, `gate_up`         a gated MLP's gate; or one projection of gate and neurons side by side
        `mlp_in`, `mlp_out`       none where the MLP is several experts

    `conv1d`: weights are stored [in, out] (GPT-2), not [out, in]. `rms`: the norms are RMS norms. `parallel`: attention
    and MLP both read the stream that enters the layer. `softcap`: logits are kept below it by a tanh. `supplied`: the
    family computes attention itself, and weft has it written anew under that name (`supplied`).

    What hangs on a model's configuration is named here and looked up by `resolved`: `parallel_if` and `softcap_in` are
    attributes that give `parallel` and `softcap`; `needs` are those without whose value the table does not hold.
    """

    name: str
    model_types: tuple[str, ...]
    embed: str
    layers: str
    final_norm: str
    unembed: str
    attn: str
    o: str
    mlp: str
    norm1: str = ""
    norm2: str = ""
    attn_adds: str = ""
    mlp_adds: str = ""
    mlp_in: str = ""
    mlp_out: str = ""
    gate: str = ""
    gate_up: str = ""
    qkv: str = ""
    q: str = ""
    k: str = ""
    v: str = ""
    q_norm: str = ""
    k_norm: str = ""
    qk_layout: str = "head"
    positions: str = ""
    conv1d: bool = False
    rms: bool = False
    interleaved: bool = False
    parallel: bool = False
    softcap: float = 0.0
    supplied: str = ""
    parallel_if: str = ""
    softcap_in: str = ""
    needs: tuple[tuple[str, object], ...] = ()

    def why_absent(self, site: str) -> str:
        """Why this family has no such site; "" where nothing here says so."""
        if site == "resid_mid" and self.parallel:
            return "attention and MLP both read the stream that enters the layer, so no stream lies between them"
        if site in ("mlp_pre", "mlp_post") and not self.mlp_out:
            return "its MLP is several experts, each with neurons of its own; mlp_out is what they add together"
        return ""


def resolved(family: Family, config: Any) -> Family | None:
    """The table for a model of this configuration; None where it departs from what the table says."""
    if any(getattr(config, name, value) != value for name, value in family.needs):
        return None
    parallel = bool(getattr(config, family.parallel_if)) if family.parallel_if else family.parallel
    softcap = float(getattr(config, family.softcap_in) or 0.0) if family.softcap_in else family.softcap
    return replace(family, parallel=parallel, softcap=softcap)


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
    model_types=("llama", "mistral", "qwen2", "smollm3", "seed_oss"),
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
OLMO2 = replace(
    LLAMA,
    name="olmo2",
    model_types=("olmo2", "olmo3"),
    norm1="",
    norm2="",
    attn_adds="post_attention_layernorm",
    mlp_adds="post_feedforward_layernorm",
    q_norm="self_attn.q_norm",
    k_norm="self_attn.k_norm",
    qk_layout="flat",
)
EXAONE4 = replace(OLMO2, name="exaone4", model_types=("exaone4",), qk_layout="head first")
GEMMA = replace(LLAMA, name="gemma", model_types=("gemma",))
ARCEE = replace(LLAMA, name="arcee", model_types=("arcee",), gate="")
STARCODER2 = replace(
    ARCEE, name="starcoder2", model_types=("starcoder2",), rms=False, mlp_in="mlp.c_fc", mlp_out="mlp.c_proj"
)
GEMMA2 = replace(
    LLAMA,
    name="gemma2",
    model_types=("gemma2",),
    norm2="pre_feedforward_layernorm",
    attn_adds="post_attention_layernorm",
    mlp_adds="post_feedforward_layernorm",
    softcap_in="final_logit_softcapping",
)
GEMMA3 = replace(
    GEMMA2,
    name="gemma3",
    model_types=("gemma3_text",),
    q_norm="self_attn.q_norm",
    k_norm="self_attn.k_norm",
    qk_layout="head first",
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
GPT_OSS = replace(LLAMA, name="gpt_oss", model_types=("gpt_oss",), gate="", mlp_in="", mlp_out="")
MIXTRAL = replace(GPT_OSS, name="mixtral", model_types=("mixtral",))
QWEN3_MOE = replace(
    QWEN3,
    name="qwen3_moe",
    model_types=("qwen3_moe",),
    gate="",
    mlp_in="",
    mlp_out="",
    needs=(("mlp_only_layers", []), ("decoder_sparse_step", 1)),  # otherwise some layers have no experts
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
FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        *(GPT2, LLAMA, QWEN3, OLMO2, EXAONE4, GEMMA, GEMMA2, GEMMA3, PHI3, ARCEE, STARCODER2, GPT_NEOX, BLOOM),
        *(GPT_OSS, MIXTRAL, QWEN3_MOE, OLMOE),
    )
}
BY_MODEL_TYPE: dict[str, Family] = {kind: family for family in FAMILIES.values() for kind in family.model_types}


def canonical(site_name: str, n_layers: int) -> tuple[int | None, ...]:
    """The layers at which a standard site exists: `(None,)` for those of the whole model."""
    return tuple(range(n_layers)) if site_name in LAYERED else (None,)
