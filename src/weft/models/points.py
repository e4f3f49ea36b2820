"""Where each standard site is found: before or after which module, and in what layout.

Each point looks at the value that passes and offers it under the site's name; what comes back goes on instead. The
same points serve taps and the building of a card, so a card's order is the order in which taps are called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from weft.ir.nodes import Site
from weft.models import experts
from weft.models.families import Family
from weft.models.packing import join, split
from weft.models.placement import here
from weft.models.structure import part_at

Offer = Callable[[Site, torch.Tensor], torch.Tensor | None]
"""`offer(site, value)`: the value to go on with, or None to leave it."""
Point = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor | None]
"""`point(value, module's input)`: the value to go on with, or None; the input is given after a module only."""
Called = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Any]
"""`point(module, args, kwargs)`: what a module is called with instead, or None."""
Gave = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], Any]
"""`point(module, args, kwargs, output)`: what it gives instead."""

_NOTHING: frozenset[str] = frozenset()
_ATTENTION = frozenset({"q", "k", "v", "z", "head_out", "attn_out"})
_MLP = frozenset({"mlp_pre", "mlp_post", "mlp_out", *experts.SITES})


@dataclass
class Points:
    """Points by module path, before and after the module; "" is the whole model. Those of `called` and `gave` look at all
    that it is called with and gives: before the others, and after them."""

    before: dict[str, list[Point]] = field(default_factory=dict)
    after: dict[str, list[Point]] = field(default_factory=dict)
    called: dict[str, Called] = field(default_factory=dict)
    gave: dict[str, Gave] = field(default_factory=dict)


def points(family: Family, module: nn.Module, sizes: dict[str, int], offer: Offer, wanted: set[Site] | None) -> Points:
    """The points for the `wanted` sites (None: all) of a model of this family."""
    build = _Builder(family, module, sizes, offer, wanted)
    build.add("after", "", "logits", None, build.plain)
    build.add("before", f"{family.layers}.0", "embed", None, build.plain)
    build.add("after", family.final_norm, "final_norm", None, build.last if family.norms_twice else build.plain)
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

    batch: int = 0

    def __post_init__(self) -> None:
        self.asked: dict[int | None, set[str]] | None = None if self.wanted is None else {}
        for site in self.wanted or ():
            if self.asked is not None:
                self.asked.setdefault(site.layer, set()).add(site.name)

    def asks(self, layer: int | None, names: Iterable[str]) -> bool:
        """Whether one of these sites of that layer is wanted: what nobody wants is not looked for either."""
        return self.asked is None or not self.asked.get(layer, _NOTHING).isdisjoint(names)

    def add(self, side: str, path: str, name: str, layer: int | None, make: Callable[[Site], Point]) -> None:
        """A point for that site, if it is wanted; `path` is within the layer, if there is one."""
        if (self.asked is None or name in self.asked.get(layer, _NOTHING)) and name not in dict(self.family.lacks):
            self.put(side, path, layer, make(Site(name, layer)))

    def put(self, side: str, path: str, layer: int | None, point: Point) -> None:
        if layer is not None and path and not self.has(layer, path):
            return
        whole = path if layer is None else f"{self.family.layers}.{layer}{path and '.'}{path}"
        getattr(self.found, side).setdefault(whole, []).append(point)

    def layer(self, layer: int) -> None:
        family = self.family
        if self.asks(layer, _ATTENTION):
            self.attention(layer)
        if family.flat:
            self.put("before", "", layer, self.entered)
        if not family.parallel:
            self.add("before", family.norm2 or family.mlp, "resid_mid", layer, self.in_place)
        if self.asks(layer, _MLP):
            self.mlp(layer)
        self.add("after", "", "resid_post", layer, self.plain)

    def attention(self, layer: int) -> None:
        """What goes into attention, and what comes of it."""
        family = self.family
        if family.qkv and self.asks(layer, "qkv"):
            self.put("after", family.qkv, layer, self.packed(layer))
        for name, path in (("q", family.q), ("k", family.k), ("v", family.v)):
            norm = {"q": family.q_norm, "k": family.k_norm}.get(name, "")
            if norm or (path and not family.qkv):
                self.projection(name, layer, path, norm)
        if "z" not in family.inside:
            self.add("before", family.z or family.o, "z", layer, self.heads)
        self.add("after", family.o, "head_out", layer, self.head_out)
        if self.asks(layer, ("attn_out",)):
            mixers = [path for path in (family.attn_adds or family.attn, *family.mixers) if self.has(layer, path)]
            self.add("after", (mixers or [family.attn])[0], "attn_out", layer, self.added)

    def mlp(self, layer: int) -> None:
        """Neurons, experts and what they add."""
        family = self.family
        self.neurons(layer)
        self.experts(layer)
        if not family.mlp_also:
            self.add("after", family.mlp_adds or family.mlp, "mlp_out", layer, self.added)
        elif self.asks(layer, ("mlp_out",)):
            self.together(Site("mlp_out", layer))

    def projection(self, name: str, layer: int, path: str, norm: str) -> None:
        """q, k or v as it leaves its projection, or the norm after that."""
        if not norm or self.family.qk_layout == "flat":
            self.add("after", norm or path, name, layer, self.heads)
        else:
            head_first = self.family.qk_layout == "head first"
            self.add("after", norm, name, layer, lambda site: self.by_head(site, head_first))

    def neurons(self, layer: int) -> None:
        """Neurons before and after their activation; none where there are experts."""
        family = self.family
        if family.gate_up:
            self.add("after", family.gate_up, "mlp_pre", layer, self.first_half)
        elif family.mlp_out:
            self.add("after", family.gate or family.mlp_in, "mlp_pre", layer, self.plain)
        if family.mlp_out:
            self.add("before", family.mlp_out, "mlp_post", layer, self.plain)

    def experts(self, layer: int) -> None:
        """What the router gives, whom it chooses and what they add, in layers that have experts."""
        family = self.family
        wanted = {name for name in experts.SITES if self.asks(layer, (name,))}
        wanted -= dict(family.lacks).keys()
        if not wanted or not family.router or not self.has(layer, family.router):
            return
        looked = experts.Looked(layer, wanted, self.offer, family.experts_whole, family.times)
        at = f"{family.layers}.{layer}."
        self.put("before", family.mlp, layer, looked.entered)
        self.found.gave[at + family.router] = looked.routed
        self.found.called[at + family.experts] = looked.chosen
        self.found.gave[at + family.experts] = looked.added

    def has(self, layer: int, path: str) -> bool:
        """Whether that layer has a module at that path: layers may differ."""
        return part_at(self.module.get_submodule(f"{self.family.layers}.{layer}"), path) is not None

    def plain(self, site: Site) -> Point:
        return self.batched(lambda value, _: self.offer(site, value))

    def added(self, site: Site) -> Point:
        """What a module gives, as it is added: multiplied where the family says so. A copy where the layer writes over it."""
        times, copied = self.family.times, self.family.written_over and site.name == "mlp_out"
        if times == 1.0 and not copied:
            return self.plain(site)

        def point(value: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor | None:
            changed = self.offer(site, value.clone() if copied else value * times)
            return changed if changed is None else changed.clone() if copied else changed / times

        return self.batched(point)

    def together(self, site: Site) -> None:
        """What the MLP and another module add at once. A change is added to what the other gave."""
        times, noted = self.family.times, list[torch.Tensor]()

        def first(value: torch.Tensor, _: torch.Tensor | None) -> None:
            noted[:] = [value]

        def second(value: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor | None:
            total = (noted.pop() + value) * times
            changed = self.offer(site, total)
            return None if changed is None else value + (changed - total) / times

        self.put("after", self.family.mlp, site.layer, first)
        self.put("after", self.family.mlp_also, site.layer, second)

    def entered(self, value: torch.Tensor, _: torch.Tensor | None) -> None:
        """Before a layer: its batch, for what it calls on tokens one after another."""
        self.batch = value.shape[0]

    def last(self, site: Site) -> Point:
        """The last norm, when it is called after the layers and not before them."""
        calls: list[None] = []
        self.put("before", "", None, lambda value, _: calls.clear())

        def point(value: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor | None:
            calls.append(None)
            return self.offer(site, value) if len(calls) == 2 else None

        return point

    def batched(self, point: Point) -> Point:
        """[token, …] offered as [batch, pos, …], where the family calls its MLP so."""
        if not self.family.flat:
            return point

        def flat(value: torch.Tensor, given: torch.Tensor | None) -> torch.Tensor | None:
            if value.dim() != 2:
                return point(value, given)
            changed = point(value.unflatten(0, (self.batch, -1)), given)
            return None if changed is None else changed.flatten(0, 1)

        return flat

    def heads(self, site: Site) -> Point:
        """[batch, pos, heads · d_head] offered as [batch, pos, head, d_head]."""
        width = self.sizes["d_v" if site.name in ("v", "z") and "d_v" in self.sizes else "d_head"]

        def point(value: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor | None:
            changed = self.offer(site, value.unflatten(-1, (-1, width)))
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
        packing = self.family.packing
        names = [name for name in "qkv" if not {"q": self.family.q_norm, "k": self.family.k_norm}.get(name)]

        def point(value: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor | None:
            parts = dict(zip("qkv", split(value, packing, self.sizes), strict=True))
            given = {name: self.offer(Site(name, layer), parts[name]) for name in names}
            changed = {name: new for name, new in given.items() if new is not None}
            return join([changed.get(name, part) for name, part in parts.items()], packing) if changed else None

        return point

    def head_out(self, site: Site) -> Point:
        """Derived: each head's share of the output projection. A change is added to what the projection gave."""
        path = f"{self.family.layers}.{site.layer}.{self.family.o}"
        heads, conv1d, times = self.sizes["n_heads"], self.family.conv1d, self.family.times
        times = 1.0 if self.family.attn_adds else times  # a norm after the sum is before the multiplier

        def point(value: torch.Tensor, given: torch.Tensor | None) -> torch.Tensor | None:
            assert given is not None  # points after a module are given its input
            projection: Any = self.module.get_submodule(path)
            with here(projection):
                weight = projection.weight
            w_o = (weight if conv1d else weight.T).unflatten(0, (heads, -1))
            share = torch.einsum("bphd,hdm->bphm", given.unflatten(-1, (heads, -1)), w_o)
            share = share if times == 1.0 else share * times
            changed = self.offer(site, share)
            return None if changed is None else value + (changed - share).sum(-2) / times

        return point

    def in_place(self, site: Site) -> Point:
        """A tensor that the layer uses twice (as the stream and as the norm's input): the change is written into it.

        The tap gets a copy, so that autograd's saved values are not the tensor written over.
        """

        def point(value: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor | None:
            changed = self.offer(site, value.clone())
            return None if changed is None else value.copy_(changed)

        return self.batched(point)
