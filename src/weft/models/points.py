"""Where each standard site is found: before or after which module, and in what layout.

Each point looks at the value that passes and offers it under the site's name; what comes back goes on instead. The
same points serve taps and the building of a card, so a card's order is the order in which taps are called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from weft.ir.nodes import Site
from weft.models.families import Family

Offer = Callable[[Site, torch.Tensor], torch.Tensor | None]
"""`offer(site, value)`: the value to go on with, or None to leave it."""
Point = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor | None]
"""`point(value, module's input)`: the value to go on with, or None; the input is given after a module only."""


@dataclass
class Points:
    """Points by module path, before and after the module; "" is the whole model."""

    before: dict[str, list[Point]] = field(default_factory=dict)
    after: dict[str, list[Point]] = field(default_factory=dict)


def points(family: Family, module: nn.Module, sizes: dict[str, int], offer: Offer, wanted: set[Site] | None) -> Points:
    """The points for the `wanted` sites (None: all) of a model of this family."""
    build = _Builder(family, module, sizes, offer, wanted)
    build.add("after", "", [Site("logits")], build.plain(Site("logits")))
    build.add("before", f"{family.layers}.0", [Site("embed")], build.plain(Site("embed")))
    build.add("after", family.final_norm, [Site("final_norm")], build.plain(Site("final_norm")))
    layers = range(sizes["n_layers"]) if wanted is None else sorted({s.layer for s in wanted if s.layer is not None})
    for layer in layers:
        build.layer(layer)
    return build.found


@dataclass
class _Builder:
    family: Family
    module: nn.Module
    sizes: dict[str, int]
    offer: Offer
    wanted: set[Site] | None
    found: Points = field(default_factory=Points)

    def add(self, side: str, path: str, sites: list[Site], point: Point) -> None:
        if self.wanted is None or not self.wanted.isdisjoint(sites):
            getattr(self.found, side).setdefault(path, []).append(point)

    def layer(self, layer: int) -> None:
        family, root = self.family, f"{self.family.layers}.{layer}"
        site = lambda name: Site(name, layer)  # noqa: E731
        if family.qkv:
            self.add("after", f"{root}.{family.qkv}", [site("q"), site("k"), site("v")], self.packed(layer))
        else:
            for name, path in (("q", family.q), ("k", family.k), ("v", family.v)):
                self.projection(site(name), root, path, {"q": family.q_norm, "k": family.k_norm}.get(name, ""))
        self.add("before", f"{root}.{family.o}", [site("z")], self.heads(site("z")))
        self.add("after", f"{root}.{family.o}", [site("head_out")], self.head_out(layer))
        self.add("after", f"{root}.{family.attn_adds or family.attn}", [site("attn_out")], self.plain(site("attn_out")))
        if not family.parallel:
            mid = f"{root}.{family.norm2 or family.mlp}"
            self.add("before", mid, [site("resid_mid")], self.in_place(site("resid_mid")))
        self.neurons(site, root)
        self.add("after", f"{root}.{family.mlp_adds or family.mlp}", [site("mlp_out")], self.plain(site("mlp_out")))
        self.add("after", root, [site("resid_post")], self.plain(site("resid_post")))

    def projection(self, site: Site, root: str, path: str, norm: str) -> None:
        """q, k or v as it leaves its projection, or the norm after that."""
        if not norm or self.family.qk_layout == "flat":
            self.add("after", f"{root}.{norm or path}", [site], self.heads(site))
        else:
            self.add("after", f"{root}.{norm}", [site], self.by_head(site, self.family.qk_layout == "head first"))

    def neurons(self, site: Callable[[str], Site], root: str) -> None:
        """Neurons before and after their activation; none where there are experts."""
        family = self.family
        if family.gate_up:
            self.add("after", f"{root}.{family.gate_up}", [site("mlp_pre")], self.first_half(site("mlp_pre")))
        elif family.mlp_out:
            pre = family.gate or family.mlp_in
            self.add("after", f"{root}.{pre}", [site("mlp_pre")], self.plain(site("mlp_pre")))
        if family.mlp_out:
            self.add("before", f"{root}.{family.mlp_out}", [site("mlp_post")], self.plain(site("mlp_post")))

    def plain(self, site: Site) -> Point:
        return lambda value, _: self.offer(site, value)

    def heads(self, site: Site) -> Point:
        """[batch, pos, heads · d_head] offered as [batch, pos, head, d_head]."""

        def point(value: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor | None:
            changed = self.offer(site, value.unflatten(-1, (-1, self.sizes["d_head"])))
            return None if changed is None else changed.flatten(-2)

        return point

    def by_head(self, site: Site, head_first: bool) -> Point:
        """[batch, pos, head, d_head], or [batch, head, pos, d_head] turned round."""

        def point(value: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor | None:
            changed = self.offer(site, value.transpose(1, 2) if head_first else value)
            return None if changed is None else changed.transpose(1, 2) if head_first else changed

        return point

    def first_half(self, site: Site) -> Point:
        """Gate and neurons side by side: the gate is offered."""

        def point(value: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor | None:
            gate, up = value.chunk(2, dim=-1)
            changed = self.offer(site, gate)
            return None if changed is None else torch.cat([changed, up], dim=-1)

        return point

    def packed(self, layer: int) -> Point:
        """q, k and v in one projection: each offered by itself, put together again if any changed."""
        heads, kv_heads, d_head = (self.sizes[key] for key in ("n_heads", "n_kv_heads", "d_head"))
        interleaved = self.family.interleaved

        def point(value: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor | None:
            if interleaved:
                parts = value.unflatten(-1, (heads, 3, d_head)).unbind(-2)
            else:
                sides = value.split([heads * d_head, kv_heads * d_head, kv_heads * d_head], dim=-1)
                parts = [side.unflatten(-1, (-1, d_head)) for side in sides]
            given = [self.offer(Site(name, layer), part) for name, part in zip("qkv", parts, strict=True)]
            if all(each is None for each in given):
                return None
            whole = [part if new is None else new for part, new in zip(parts, given, strict=True)]
            return torch.stack(whole, -2).flatten(-3) if interleaved else torch.cat(whole, -2).flatten(-2)

        return point

    def head_out(self, layer: int) -> Point:
        """Derived: each head's share of the output projection. A change is added to what the projection gave."""
        path = f"{self.family.layers}.{layer}.{self.family.o}"
        heads, conv1d = self.sizes["n_heads"], self.family.conv1d

        def point(value: torch.Tensor, given: torch.Tensor | None) -> torch.Tensor | None:
            assert given is not None  # points after a module are given its input
            weight: Any = self.module.get_submodule(path).weight
            w_o = (weight if conv1d else weight.T).unflatten(0, (heads, -1))
            share = torch.einsum("bphd,hdm->bphm", given.unflatten(-1, (heads, -1)), w_o)
            changed = self.offer(Site("head_out", layer), share)
            return None if changed is None else value + (changed - share).sum(-2)

        return point

    def in_place(self, site: Site) -> Point:
        """A tensor that the layer uses twice (as the stream and as the norm's input): the change is written into it.

        The tap gets a copy, so that autograd's saved values are not the tensor written over.
        """

        def point(value: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor | None:
            changed = self.offer(site, value.clone())
            return None if changed is None else value.copy_(changed)

        return point
