"""What weft knows of a model family: where its parts are, and nothing else.

A family is a row of facts, not a class. Paths are relative to the layer, except those of the whole model. Everything
that depends on the sizes comes from the model's own configuration.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Family:
    """Where a family keeps its parts, and where what it adds to the stream is found.

    Paths of modules, "" where there is none:
        `norm1`, `norm2`          the norms that attention and MLP read through
        `mixers`                  what may stand in a layer in the place of `attn`
        `attn_adds`, `mlp_adds`   whose output the sublayer adds to the stream, where it is not `attn`'s or `mlp`'s own: a
                                  norm after it, or a projection, where the module's output has the stream in it already
        `qkv`                     one projection of q, k and v: side by side, or head by head if `interleaved`
        `q_norm`, `k_norm`        norms of q and k, which get them as `qk_layout` says:
                                  "flat" [batch, pos, heads · d_head], "head" [batch, pos, head, d_head] or
                                  "head first" [batch, head, pos, d_head]
        `gate`, `gate_up`         a gated MLP's gate; or one projection of gate and neurons side by side
        `mlp_in`, `mlp_out`       none where the MLP is several experts; where it is so in some layers, those of the others
        `router`, `experts`       what chooses among experts, and the experts; `experts_whole`: every expert is called for
                                  every token, and the router gives (weights, logits), not (logits, weights, choices)

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
    mixers: tuple[str, ...] = ()
    router: str = ""
    experts: str = ""
    experts_whole: bool = False
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
        return ""


def resolved(family: Family, config: Any) -> Family | None:
    """The table for a model of this configuration; None where it departs from what the table says."""
    if any(getattr(config, name, value) != value for name, value in family.needs):
        return None
    parallel = bool(getattr(config, family.parallel_if)) if family.parallel_if else family.parallel
    softcap = float(getattr(config, family.softcap_in) or 0.0) if family.softcap_in else family.softcap
    return replace(family, parallel=parallel, softcap=softcap)
