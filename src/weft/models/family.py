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
        `qkv`                     one projection of q, k and v, which lie in it as `packing` says (see the file of that name)
        `q_norm`, `k_norm`        norms of q and k, which get them as `qk_layout` says:
                                  "flat" [batch, pos, heads · d_head], "head" [batch, pos, head, d_head] or
                                  "head first" [batch, head, pos, d_head]
        `inside`                  of v and z, those that only the attention function sees: values that are made of a latent
                                  that is what a cache keeps, mixes of values that are gated before they are projected
        `z`                       before which heads are mixed no more, where it is not `o`: a norm of all heads together
        `gate`, `gate_up`         a gated MLP's gate; or one projection of gate and neurons side by side
        `mlp`                     none where its parts are the layer's own
        `mlp_in`, `mlp_out`       none where the MLP is several experts; where it is so in some layers, those of the others
        `mlp_also`                what is called after `mlp`, and added to the stream together with it
        `router`, `experts`       what chooses among experts, and the experts; `experts_whole`: every expert is called for
                                  every token, and the router gives (weights, logits), not (logits, weights, choices)

    `conv1d`: weights are stored [in, out] (GPT-2), not [out, in]. `rms`: the norms are RMS norms. `parallel`: attention
    and MLP both read the stream that enters the layer. `softcap`: logits are kept below it by a tanh. `times`: what a
    sublayer gives is multiplied by it before it is added; `logits_times`: so are the logits. `positions_from`: rows of
    `positions` that no position has. `flat`: the MLP is called on tokens one after another, without a batch axis.
    `written_over`: the layer adds to the MLP's output where it lies. `norms_twice`: the last norm is called before the
    layers too. `supplied`: the family computes attention itself, and
    weft has it written anew under that name (`supplied`). `lacks`: sites that the family has not, with the reasons.

    What hangs on a model's configuration is named here and looked up by `resolved`: `parallel_if`, `qk_norm_if`,
    `softcap_in`, `times_in`, `logits_times_in`, `logits_over_in` (1 / `logits_times`), `d_head_in` and `d_v_in` (where
    values are not as wide as keys) are attributes; `needs` are those without whose value the table does not hold, and
    `same` are pairs that must be equal. `where` has an attribute, a value of it, and what of the table is otherwise then.
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
    mlp_also: str = ""
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
    packing: str = "side by side"
    z: str = ""
    inside: tuple[str, ...] = ()
    d_head_in: str = "head_dim"
    d_v_in: str = ""
    parallel: bool = False
    softcap: float = 0.0
    times: float = 1.0
    logits_times: float = 1.0
    positions_from: int = 0
    flat: bool = False
    written_over: bool = False
    norms_twice: bool = False
    supplied: str = ""
    parallel_if: str = ""
    qk_norm_if: str = ""
    softcap_in: str = ""
    times_in: str = ""
    logits_times_in: str = ""
    logits_over_in: str = ""
    needs: tuple[tuple[str, object], ...] = ()
    same: tuple[tuple[str, str], ...] = ()
    where: tuple[tuple[str, object, tuple[tuple[str, str], ...]], ...] = ()
    lacks: tuple[tuple[str, str], ...] = ()

    def why_absent(self, site: str) -> str:
        """Why this family has no such site; "" where nothing here says so."""
        if site in dict(self.lacks):
            return dict(self.lacks)[site]
        if site == "resid_mid" and self.parallel:
            return "attention and MLP both read the stream that enters the layer, so no stream lies between them"
        return ""


def resolved(family: Family, config: Any) -> Family | None:
    """The table for a model of this configuration; None where it departs from what the table says."""
    if departs(family, config):
        return None
    times = float(getattr(config, family.times_in)) if family.times_in else family.times
    logits_times = _logits_times(family, config)
    if not times or not logits_times:  # nothing would be added, and a write could not be undone
        return None
    for name, value, otherwise in family.where:
        if getattr(config, name) == value:
            family = replace(family, **dict(otherwise))
    if family.qk_norm_if and not getattr(config, family.qk_norm_if):
        family = replace(family, q_norm="", k_norm="")
    parallel = bool(getattr(config, family.parallel_if)) if family.parallel_if else family.parallel
    softcap = float(getattr(config, family.softcap_in) or 0.0) if family.softcap_in else family.softcap
    return replace(family, parallel=parallel, softcap=softcap, times=times, logits_times=logits_times)


def departs(family: Family, config: Any) -> str:
    """In what a configuration departs from what the table says; "" if in nothing."""
    for name, value in family.needs:
        if (found := _looked_up(config, name, value)) != value:
            return f"{name} is {found!r} in its configuration, and the table of {family.name} is for {value!r}"
    for one, other in family.same:
        if getattr(config, one) != getattr(config, other):
            return f"{one} is not {other} in its configuration, as the table of {family.name} has it"
    return ""


def _looked_up(config: Any, name: str, default: object) -> object:
    """An attribute, or one of an attribute's: "attn_config.clip_qkv"."""
    for step in name.split("."):
        config = getattr(config, step, default)
    return config


def _logits_times(family: Family, config: Any) -> float:
    if family.logits_times_in:
        return float(getattr(config, family.logits_times_in))
    return 1.0 / float(getattr(config, family.logits_over_in)) if family.logits_over_in else family.logits_times
