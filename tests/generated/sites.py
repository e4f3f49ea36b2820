"""Choosing a site of a run, and saying it as the user would."""

from __future__ import annotations

from typing import NamedTuple

from tests.generated.prompts import Handle
from tests.generated.sketch import Misfit, Place, Sketch

from weft.ir.nodes import Site

COMMON = "embed resid_pre resid_mid resid_post q k v z attn_out mlp_pre mlp_post mlp_out".split()
RARE = "q_rot k_rot scores pattern head_out final_norm logits".split()
OFTEN = (6, 7)
"""Seeds that end in these draw the rare sites, and raw modules, as often as the common ones."""


class Spot(NamedTuple):
    """A site of a run: its text, its name, where it is in the model's order, and its axes and lengths."""

    text: str
    name: str
    place: Place
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    layer: int | None = None


def spot(
    sketch: Sketch, handle: Handle, write: bool = False, name: str | None = None, layer: int | None = None
) -> Spot:
    """A random site of a run (of that name and layer, where they are given)."""
    rng, card = sketch.rng, sketch.card
    often = sketch.seed % 10 in OFTEN
    if name is None and rng.random() < (0.2 if often else 0.1):
        return _raw(sketch, handle, write)
    here = {"embed", "final_norm", "logits", *card.layers_of}
    pool = COMMON * 2 + RARE * (5 if often else 1)
    if write and not often:
        pool = [each for each in pool if each != "logits"]
    name = name or rng.choice([each for each in pool if each == "resid_pre" or each in here])
    layers = card.layers_of.get("resid_post" if name == "resid_pre" else name)
    if layers is None:
        return of_site(sketch, handle, Site(name), f"{handle.name}.{name}", name)
    layer = rng.randrange(layers) if layer is None else layer % layers
    site = Site(name, layer)
    if name == "resid_pre":
        site = Site("resid_post", layer - 1) if layer else Site("embed")
    shown = layer - layers if rng.random() < 0.1 else layer
    return of_site(sketch, handle, site, f"{handle.name}.{name}[{shown}]", name, layer)


def of_site(sketch: Sketch, handle: Handle, site: Site, text: str, name: str, layer: int | None = None) -> Spot:
    if site not in sketch.card.by_site:
        raise Misfit(f"no {site}")
    order, spec = sketch.card.by_site[site]
    return Spot(text, name, (handle.key, handle.base + order), spec.axes, sketch.shape(text), layer)


def _raw(sketch: Sketch, handle: Handle, write: bool) -> Spot:
    """A module by its own path: its first input, or its output where that is one tensor."""
    found = [
        spec
        for spec in sketch.card.sites
        if spec.site.path and not spec.site.item and spec.axes[:2] == ("batch", "pos") and spec.dtype == sketch.card.dtype
        and (spec.writable or not write)
    ]  # fmt: skip
    if not found:
        raise Misfit("no raw modules")
    site = sketch.rng.choice(found).site
    side = site.name.removeprefix("module.")
    return of_site(sketch, handle, site, f'{handle.name}.module("{site.path}").{side}', f"module.{side}")
