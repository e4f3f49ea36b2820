"""What a user calls a site → the site, by the model's card. No torch.

    resolve("resid_pre", 3, card)              -> Site("resid_post", 2)
    resolve("blocks.5.attn.hook_z", None, card) -> Site("z", 5)
    resolve_module("transformer.h.5.mlp", "output", card)

TransformerLens's hook names, nnterp's names and paths of modules ("layers.5.mlp", its output) are taken where the quantity
is the same one, read and written; where it is a neighbour (before a gain that weft's site is after, say) they are refused
with the reason.
"""

from __future__ import annotations

import difflib
import re

from weft.errors import SiteError
from weft.ir.card import Card
from weft.ir.nodes import Site
from weft.models import othernames
from weft.models.families import FAMILIES, Family
from weft.models.othernames import OTHERS

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
_PATH = re.compile(r"([\w.]+?)(?:\.call\((\d+)\))?(?:\.(input|output)(?:\[[\"']?([\w.]+)[\"']?\])?)?$")


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
    if name in OTHERS or name in othernames.NNTERP_REFUSED or name == "token_embeddings":
        return _nnterp(name, layer, card)
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
    if "." in name and layer is None:
        return _by_path(name, card)
    raise SiteError(f"{card.name} has no site {name!r}{nearest(name, [*names(card), *OTHERS])}; see model.sites()")


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


def _nnterp(name: str, layer: int | None, card: Card) -> Site:
    """nnterp's names: a module's output is the module's own, before a norm or multiplier that comes after it."""
    if name in othernames.NNTERP_REFUSED:
        raise SiteError(f"{name}: {othernames.NNTERP_REFUSED[name]}")
    if name == "token_embeddings":
        return resolve_module(_fact("embed", name, card), "output", card)
    what, side = OTHERS[name]
    number = _layer(name, layer, card, card.sizes.get("n_layers", 0))
    if not side:
        return resolve(what, number, card)
    added = {"attn": "attn_out", "mlp": "mlp_out"}[what]
    if side == "output" and _adds_its_own(what, card) and Site(added, number) in card.by_site:
        return Site(added, number)
    return _in_layer(what, side, number, name, card)


def _adds_its_own(what: str, card: Card) -> bool:
    """Whether what the module gives is what is added to the stream."""
    family = FAMILIES.get(card.family)
    return (
        family is not None and not (family.attn_adds if what == "attn" else family.mlp_adds) and not _multiplied(family)
    )


def _multiplied(family: Family) -> bool:
    return family.times != 1.0 or bool(family.times_in)


def _in_layer(fact: str, side: str, layer: int, name: str, card: Card) -> Site:
    """The input or output of the module that the table names, in that layer."""
    family = FAMILIES.get(card.family)
    path = getattr(family, fact, "")
    if family is None or not path:
        raise SiteError(f"{name}: {card.name} has no one module for it ({fact}); see run.module(path)")
    whole = f"{family.layers}.{layer}.{path}"
    several = Site(f"module.{side}", None, whole, 0, "0") in card.by_site  # a tuple: its first is what others mean
    return resolve_module(whole, side, card, 0, "0" if several else "")


def _fact(fact: str, name: str, card: Card) -> str:
    family = FAMILIES.get(card.family)
    if family is None:
        raise SiteError(f"{name}: weft has no table for {card.name}; see run.module(path)")
    return getattr(family, fact)


def _by_path(name: str, card: Card) -> Site:
    """A module by its path, or the end of it: "layers.5.mlp" is its output, "layers.5.mlp.input" its input."""
    found = _PATH.match(name)
    paths = dict.fromkeys(spec.site.path for spec in card.sites if spec.site.path)
    if found is None:
        raise SiteError(f"{card.name} has no site {name!r}{nearest(name, list(paths))}; see model.sites()")
    given, call, side, item = found.groups()
    path = _standard(given, card)
    if path not in paths:
        ends = [each for each in paths if each.endswith(f".{path}")]
        if len(ends) > 1:
            raise SiteError(f"{name!r} may be {', '.join(ends[:4])}; say which")
        if not ends:
            raise SiteError(f"{card.name} has no site and calls no module {given!r}{nearest(given, list(paths))}")
        path = ends[0]
    return resolve_module(path, side or "output", card, int(call or 0), item or "")


def _standard(path: str, card: Card) -> str:
    """A path in which layers, attention and MLP are called as in most models, as the table has it."""
    family = FAMILIES.get(card.family)
    head, _, rest = path.removeprefix("model.").partition(".")
    if family is None or any(spec.site.path == path for spec in card.sites):
        return path
    if not rest and head in othernames.TOP_ALIASES:
        return getattr(family, othernames.TOP_ALIASES[head])
    number, _, inner = rest.partition(".")
    if head not in ("layers", "blocks", "h") or not number.isdecimal():
        return path
    whole = f"{family.layers}.{_layer(path, int(number), card, card.sizes['n_layers'])}"
    fact = othernames.MODULE_ALIASES.get(inner)
    own = f"{whole}.{inner}"
    there = any(spec.site.path == own for spec in card.sites)
    inner = inner if fact is None or there else getattr(family, fact)
    return f"{whole}.{inner}" if inner else whole


def _transformer_lens(name: str, card: Card) -> Site:
    block = _BLOCK.match(name)
    inner, layer = (block.group(2), int(block.group(1))) if block else (name, None)
    family = FAMILIES.get(card.family)
    if family and family.q_norm and inner in ("attn.hook_q", "attn.hook_k"):
        raise SiteError(f"{name}: {othernames.QK_NORM_REASON}")
    if block and inner in othernames.IN_BLOCK:
        return resolve(othernames.IN_BLOCK[inner], layer, card)
    if family and family.rms and inner.startswith(("ln1.", "ln2.", "ln_final.")) and inner.endswith("hook_normalized"):
        raise SiteError(f"{name}: {othernames.RMS_REASON}")
    if name in othernames.WHOLE:
        return resolve(othernames.WHOLE[name], None, card)
    if block and inner in ("hook_in", "hook_out"):
        return resolve("resid_pre" if inner == "hook_in" else "resid_post", layer, card)
    if name in ("hook_embed", "embed.hook_out") and card.family in othernames.EMBEDS:
        return resolve_module(_fact("embed", name, card), "output", card)
    if layer is not None and inner in othernames.MODULES and family:
        fact, side = othernames.MODULES[inner]
        return _in_layer(fact, side, _layer(name, layer, card, card.sizes["n_layers"]), name, card)
    if layer is not None and inner == "mlp.hook_pre_linear" and family and family.gate and family.mlp_in:
        return _in_layer("mlp_in", "output", layer, name, card)
    hook = inner.rpartition(".")[2]
    if hook in othernames.REFUSED:
        raise SiteError(f"{name}: {othernames.REFUSED[hook]}")
    known = [
        *(f"blocks.{layer or 0}.{each}" for each in (*othernames.IN_BLOCK, *othernames.MODULES)),
        "hook_embed",
        *othernames.WHOLE,
    ]
    raise SiteError(f"{name!r} is no hook name that weft knows{nearest(name, known)}; see model.sites()")
