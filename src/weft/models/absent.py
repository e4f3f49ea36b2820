"""Why a decoder lacks a standard site: everywhere, or in some of its layers, where its layers differ."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import nn

from weft.ir.nodes import Site
from weft.models import experts
from weft.models.families import BY_MODEL_TYPE, LAYERED, STANDARD_SITES, Family
from weft.models.family import departs
from weft.models.structure import part_at
from weft.models.tables.without import WITHOUT

if TYPE_CHECKING:
    from weft.models.loaded import Loaded

_NEURONS = ("mlp_pre", "mlp_post")
_ADDED = ("attn_out", "resid_mid", "mlp_out")


def reasons(loaded: Loaded, present: Iterable[Site]) -> dict[str, str]:
    """The reason by name, "pattern", or by name and layer, "pattern[3]", for each standard site that is not `present`."""
    family, kind, found = loaded.family, type(loaded.module).__name__, set(present)
    if family is None:
        form = _no_table(getattr(loaded.module, "config", None))
        why = f"weft has no table of sites for {kind}{form}; every module is there by its path, run.module(path)"
        return {name: why for name in STANDARD_SITES if Site(name) not in found}
    here = {site.name for site in found if not site.path}
    why = f"in this {kind} it is not reached once in a pass, or is not shaped as {family.name} has it"
    first = {name: Site(name, 0 if name in LAYERED else None) for name in STANDARD_SITES if name not in here}
    everywhere = {
        name: family.why_absent(name) or _in_layer(loaded.module, family, site) or why for name, site in first.items()
    }
    layers = range(loaded.sizes["n_layers"])
    lacking = [Site(name, layer) for name in STANDARD_SITES if name in here & LAYERED for layer in layers]
    inside = {str(site): _in_layer(loaded.module, family, site) or why for site in lacking if site not in found}
    return {**everywhere, **inside}


def _no_table(config: object) -> str:
    """What keeps a model of this configuration from having a table, where that is known."""
    kind = getattr(config, "model_type", "")
    known = BY_MODEL_TYPE.get(kind)
    form = WITHOUT.get(kind, "") if known is None else departs(known, config)
    return f": {form}" if form else ""


def _in_layer(module: nn.Module, family: Family, site: Site) -> str:
    """Why this layer lacks a site; "" where nothing here says so."""
    if site.layer is None:
        return ""
    layer = module.get_submodule(f"{family.layers}.{site.layer}")
    if site.name in experts.SITES and part_at(layer, family.router or "-") is None:
        return "its MLP is one, with no experts to choose among"
    if site.name in _NEURONS and part_at(layer, family.experts or "-") is not None:
        return "its MLP is several experts, each with neurons of its own; expert_out is what each of them adds"
    if site.name not in _ADDED and part_at(layer, family.o) is None:
        other = next((path for path in (*family.mixers, family.attn) if part_at(layer, path) is not None), "")
        return f"it has no attention of queries and keys; {other or 'another module'} mixes positions instead"
    return ""
