"""A model as its users see it: sizes, sites, modules and weights, with shapes as functions of batch and positions.

A card is plain data. The tracer checks shapes against it, the server checks programs against it, and a client with no
weights and an empty cache works from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from weft.ir.nodes import Site
from weft.ir.types import TensorType


class Dim(NamedTuple):
    """A length: `const + batch·B + pos·P + key·K + batch_pos·B·P` (K: positions attended to; equals P but in a cache)."""

    const: int = 0
    batch: int = 0
    pos: int = 0
    key: int = 0
    batch_pos: int = 0

    def at(self, batch: int, pos: int, key: int) -> int:
        return self.const + self.batch * batch + self.pos * pos + self.key * key + self.batch_pos * batch * pos


BATCH, POS, KEY = Dim(batch=1), Dim(pos=1), Dim(key=1)


@dataclass(frozen=True, slots=True)
class SiteSpec:
    """One site: its axes by name, its lengths, its dtype, and whether it may be written.

    `axes` use the names batch, pos, query_pos, key_pos, head, kv_head, d_head, expert, d_model, d_mlp, d_vocab; axes of raw
    modules with no such meaning are called dim_0, dim_1, …
    """

    site: Site
    axes: tuple[str, ...]
    dims: tuple[Dim, ...]
    dtype: str
    writable: bool = True

    def type(self, batch: int, pos: int, key: int | None = None) -> TensorType:
        key = pos if key is None else key
        return TensorType(self.dtype, tuple(dim.at(batch, pos, key) for dim in self.dims))


@dataclass(frozen=True, slots=True)
class PartSpec:
    """A part of the model that may be applied to a value: last axis `d_in` → `d_out`, the others kept."""

    name: str
    d_in: int
    d_out: int
    dtype: str


@dataclass(frozen=True)
class Card:
    """Everything about a model that is not its weights.

    `sites` are in the order in which the model computes them, raw modules' inputs and outputs among them: that order is
    what causality means. `params` are the weights by name ("W_U", "W_O[3]", "param(path)"). `absent` says of each
    standard site that the model lacks why, under "mlp_pre[3]" where only some layers lack it. `sizes` has n_layers, n_heads,
    n_kv_heads, d_model, d_head, d_mlp, d_vocab, and n_experts where there are experts.
    `tokenizer` is the tokenizer.json text with its settings ({} for none); `kind` is "decoder" (runs of tokens) or
    "module" (runs of keyword tensors, whose sites are known once the inputs' shapes are).
    """

    name: str
    kind: str
    family: str
    dtype: str
    sizes: dict[str, int]
    sites: tuple[SiteSpec, ...]
    params: dict[str, TensorType]
    parts: tuple[PartSpec, ...]
    absent: dict[str, str] = field(default_factory=dict[str, str])
    max_positions: int = 0
    config: dict[str, object] = field(default_factory=dict[str, object])
    tokenizer: dict[str, str] = field(default_factory=dict[str, str])

    @cached_property
    def by_site(self) -> dict[Site, tuple[int, SiteSpec]]:
        """Each site's place in the model's order and its spec."""
        return {spec.site: (order, spec) for order, spec in enumerate(self.sites)}

    @cached_property
    def resolved(self) -> dict[tuple[str, int | None], Site]:
        """What names that users wrote came to, with their layers: each is looked up once."""
        return {}

    @cached_property
    def by_part(self) -> dict[str, PartSpec]:
        return {part.name: part for part in self.parts}

    @cached_property
    def layers_of(self) -> dict[str, int]:
        """For each layered site name, how many layers it counts: all of the model's, though some may lack it."""
        found: dict[str, int] = {}
        for spec in self.sites:
            if spec.site.layer is not None:
                count = max(found.get(spec.site.name, 0), spec.site.layer + 1)
                found[spec.site.name] = max(count, self.sizes.get("n_layers", 0))
        return found

    def why_absent(self, site: Site) -> str:
        """Why there is no such site, if the model is known to lack it: in that layer, or anywhere; else ""."""
        return self.absent.get(f"{site.name}[{site.layer}]", "") or self.absent.get(site.name, "")

    @cached_property
    def layered(self) -> frozenset[str]:
        """Names that take a layer, those of absent sites among them."""
        absent = {name.partition("[")[0] for name in self.absent}
        return frozenset({*self.layers_of, *absent, "resid_pre"} - {"embed", "final_norm", "logits"})
