"""What a user calls a site → the site, by the model's card. No torch.

    resolve("resid_pre", 3, card)              -> Site("resid_post", 2)
    resolve("blocks.5.attn.hook_z", None, card) -> Site("z", 5)
    resolve_module("transformer.h.5.mlp", "output", card)

TransformerLens's hook names are taken where the quantity is the same one, read and written; where it is a neighbour
(before a gain that weft's site is after, say) they are refused with the reason.
"""

from __future__ import annotations

import difflib
import re

from weft.errors import SiteError
from weft.ir.card import Card
from weft.ir.nodes import Site
from weft.models.families import FAMILIES

ALIASES = {
    "embedding": "embed",
    "attn_scores": "scores",
    "attention_pattern": "pattern",
    "attn_pattern": "pattern",
    "result": "head_out",
    "rot_q": "q_rot",
    "rot_k": "k_rot",
    "normalized": "final_norm",
}
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)$")
_MODULE = re.compile(r"module\((.+)\)(?:\.call\((\d+)\))?\.(input|output)(?:\[(.+)\])?$")
_INDEXED = re.compile(r"(\w+)\[(-?\d+)\]$")
_IN_BLOCK = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "attn.hook_q": "q",
    "attn.hook_k": "k",
    "attn.hook_v": "v",
    "attn.hook_rot_q": "q_rot",
    "attn.hook_rot_k": "k_rot",
    "attn.hook_attn_scores": "scores",
    "attn.hook_pattern": "pattern",
    "attn.hook_z": "z",
    "attn.hook_result": "head_out",
    "mlp.hook_pre": "mlp_pre",
    "mlp.hook_post": "mlp_post",
}
# In a family, the modules whose input or output is the very quantity of a hook.
_MODULES: dict[str, dict[str, tuple[str, str]]] = {
    "gpt2": {
        "hook_embed": ("transformer.wte", "output"),
        "ln1.hook_normalized": ("transformer.h.{}.ln_1", "output"),
        "ln2.hook_normalized": ("transformer.h.{}.ln_2", "output"),
        "hook_mlp_in": ("transformer.h.{}.ln_2", "input"),
    },
    "llama": {
        "hook_embed": ("model.embed_tokens", "output"),
        "hook_mlp_in": ("model.layers.{}.post_attention_layernorm", "input"),
        "mlp.hook_pre_linear": ("model.layers.{}.mlp.up_proj", "output"),
    },
}
_RMS_REASON = (
    "there it is taken before the norm's gain, which no site here is; final_norm and module(path) are after it"
)
_QK_NORM_REASON = "there it is taken before the norm of q and k, here after it; before it is run.module(path).output"
_REFUSED = {
    "hook_pos_embed": "position embeddings have no batch axis here: model.W_pos, or run.module(path).output",
    "hook_scale": "a norm's scale is not a value that passes between modules; compute it from the norm's input",
    "hook_attn_in": "a copy of the stream per head exists only in TransformerLens; see resid_pre, or q, k and v",
    "hook_q_input": "a copy of the stream per head exists only in TransformerLens; see resid_pre, or q",
    "hook_k_input": "a copy of the stream per head exists only in TransformerLens; see resid_pre, or k",
    "hook_v_input": "a copy of the stream per head exists only in TransformerLens; see resid_pre, or v",
}


def resolve(name: str, layer: int | None, card: Card) -> Site:
    """The site that `name` (and `layer`) mean in this model. SiteError with the nearest names, or the reason."""
    module = _MODULE.match(name)
    if module:
        path, call, side, item = module.groups()
        return resolve_module(path, side, card, int(call or 0), item or "")
    indexed = _INDEXED.match(name)
    if indexed and layer is None:
        return resolve(indexed.group(1), int(indexed.group(2)), card)
    if "hook_" in name:
        return _transformer_lens(name, card)
    known = ALIASES.get(name, name)
    if known == "resid_pre":
        number = _layer(name, layer, card, card.layers_of.get("resid_post", 0))
        return Site("embed") if number == 0 else Site("resid_post", number - 1)
    if known in card.layers_of:
        return _there(Site(known, _layer(name, layer, card, card.layers_of[known])), card)
    if Site(known) in card.by_site:
        if layer is not None:
            raise SiteError(f"{name} is one site for the whole model, not one a layer; use {name} without [{layer}]")
        return Site(known)
    if known in card.absent:
        raise SiteError(f"{card.name} has no {name}: {card.absent[known]}")
    raise SiteError(f"{card.name} has no site {name!r}{nearest(name, names(card))}; see model.sites()")


def resolve_module(path: str, side: str, card: Card, call: int = 0, item: str = "") -> Site:
    """The site of a module's input or output by its path; `item` where there are several tensors."""
    site = Site(f"module.{side}", None, path, call, str(item))
    if site in card.by_site:
        return site
    same = [each for each in card.by_site if each.path == path and each.name == site.name]
    if not same:
        paths = sorted({each.path for each in card.by_site if each.path})
        raise SiteError(f"{card.name} has no module {path!r} that is called{nearest(path, paths)}")
    calls = {each.call for each in same}
    if call not in calls:
        raise SiteError(f"module {path} is called {len(calls)} times; use .call(0) … .call({len(calls) - 1})")
    items = [each.item for each in same if each.call == call]
    raise SiteError(f"{site} is not one tensor; choose among {', '.join(map(repr, items))}, e.g. .{side}[{items[0]!r}]")


def _there(site: Site, card: Card) -> Site:
    """The site, if its layer has it."""
    if site in card.by_site:
        return site
    others = ", ".join(
        str(spec.site.layer) for spec in card.sites if spec.site.name == site.name and not spec.site.path
    )
    raise SiteError(f"{card.name} has no {site}: {card.why_absent(site)}; {site.name} is there in layers {others}")


def support(name: str, card: Card) -> str:
    """Why the model has no such site; an empty string where it has it."""
    known = ALIASES.get(name, name)
    known = "resid_post" if known == "resid_pre" else known
    if known in card.layers_of or Site(known) in card.by_site:
        return ""
    return card.absent.get(known, f"there is no site of that name{nearest(name, names(card))}")


def names(card: Card) -> list[str]:
    """The names of sites that may be used with this model, raw modules aside."""
    found = dict.fromkeys(spec.site.name for spec in card.sites if not spec.site.path)
    return [*found, *(["resid_pre"] if "resid_post" in found else [])]


def nearest(name: str, known: list[str]) -> str:
    """`; did you mean a, b?`, or nothing where nothing is near."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"; did you mean {', '.join(close)}?" if close else ""


def _layer(name: str, layer: int | None, card: Card, count: int) -> int:
    if count == 0:
        raise SiteError(f"{card.name} has no {name}: {card.absent.get(name, 'it is not among its sites')}")
    if layer is None:
        raise SiteError(f"{name} is there once a layer; say which: {name}[0] … {name}[{count - 1}]")
    if not -count <= layer < count:
        raise SiteError(f"{name}[{layer}]: {card.name} has layers 0 … {count - 1}")
    return layer % count


def _transformer_lens(name: str, card: Card) -> Site:
    block = _BLOCK.match(name)
    inner, layer = (block.group(2), int(block.group(1))) if block else (name, None)
    family = FAMILIES.get(card.family)
    if family and family.q_norm and inner in ("attn.hook_q", "attn.hook_k"):
        raise SiteError(f"{name}: {_QK_NORM_REASON}")
    if block and inner in _IN_BLOCK:
        return resolve(_IN_BLOCK[inner], layer, card)
    if family and family.rms and inner.startswith(("ln1.", "ln2.", "ln_final.")) and inner.endswith("hook_normalized"):
        raise SiteError(f"{name}: {_RMS_REASON}")
    if name == "ln_final.hook_normalized":
        return resolve("final_norm", None, card)
    found = _MODULES.get(card.family, {}).get(inner)
    if found:
        return resolve_module(found[0].format(layer), found[1], card)
    hook = inner.rpartition(".")[2]
    if hook in _REFUSED:
        raise SiteError(f"{name}: {_REFUSED[hook]}")
    known = [*(f"blocks.{layer or 0}.{each}" for each in _IN_BLOCK), "hook_embed", "ln_final.hook_normalized"]
    raise SiteError(f"{name!r} is no hook name that weft knows{nearest(name, known)}; see model.sites()")
