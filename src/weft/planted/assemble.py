"""From a mechanism on paper to a transformers model, in the variant that is asked for.

    Variant(family="llama", rotate=True, grouped=True, noise_heads=2, noise_layers=1, seed=3)

The stream on paper becomes a subspace of the model's: its blocks lie along orthonormal directions, near the axes or
(`rotate`) at random. LayerNorm takes away the mean, so in a GPT-2 all of them are orthogonal to it. Normalisation then
only divides by a norm that the long block `one` keeps all but constant, and every gain multiplies it back.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from weft.errors import ModelError
from weft.planted.stream import D_HEAD, Matrix, Mechanism

N_HEADS = 8


@dataclass(frozen=True)
class Variant:
    """How a planted model is made; the truth moves along. Seed 0 puts the heads where the papers' notes have them."""

    family: str = "gpt2"
    rotate: bool = False
    grouped: bool = False
    noise_heads: int = 0
    noise_layers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.family not in ("gpt2", "llama"):
            raise ModelError(
                f"family={self.family!r}: planted models are 'gpt2' (LayerNorm, learned positions) or "
                "'llama' (RMSNorm, rotary)"
            )
        if self.grouped and self.family != "llama":
            raise ModelError(
                "grouped=True shares keys and values, which a GPT-2 cannot; ask for family='llama' as well"
            )
        if self.noise_heads % 2 or self.noise_heads < 0 or self.noise_layers < 0:
            raise ModelError("noise_heads is an even number (heads come in pairs) and noise_layers is not negative")


def variant_of(seed: int, options: Mapping[str, Any]) -> Variant:
    """The variant with these options; one that there is not is refused by name."""
    known = [each.name for each in fields(Variant)]
    if unknown := sorted(set(options) - set(known)):
        raise ModelError(f"no option {unknown[0]}=; a planted model takes {', '.join(known)}")
    return Variant(**{**options, "seed": seed})


@dataclass(frozen=True)
class Layout:
    """Where the parts of the mechanism went."""

    n_layers: int
    n_heads: int
    layers: tuple[int, ...]
    """The layer of each step."""
    places: tuple[tuple[int, ...], ...]
    """For each step, the head that each head on paper became."""
    basis: Float[Tensor, "width d_model"]

    def head(self, at: tuple[int, int]) -> tuple[int, int]:
        return self.layers[at[0]], self.places[at[0]][at[1]]

    def rows(self, table: tuple[int, ...]) -> tuple[int, ...]:
        """A table by step as a table by layer: a layer of noise leaves the stream as the layer before it did."""
        last = [max(step for step, at in enumerate(self.layers) if at <= layer) for layer in range(self.n_layers)]
        return tuple(table[step] for step in last)


@dataclass(frozen=True)
class Truth:
    """What a planted model does and where; heads are (layer, head), tables have an entry for each layer's end."""

    n_layers: int
    n_heads: int
    heads: Mapping[str, tuple[int, int]]
    decoys: Mapping[str, tuple[int, int]]
    tables: Mapping[str, tuple[int, ...]]
    ranks: Mapping[str, int]
    words: Mapping[str, tuple[str, ...]]
    template: str
    subspaces: Mapping[str, Float[Tensor, "_rank d_model"]] = field(repr=False, compare=False)
    """Orthonormal rows: the directions of the stream in which each block is written."""
    variant: Variant = field(default_factory=Variant)

    @property
    def noise(self) -> tuple[tuple[int, int], ...]:
        """The heads that do nothing of use and are no decoys either."""
        known = {*self.heads.values(), *self.decoys.values()}
        heads = [(layer, head) for layer in range(self.n_layers) for head in range(self.n_heads)]
        return tuple(head for head in heads if head not in known)


class Planted(NamedTuple):
    """A planted model, its tokenizer, and what is true of it."""

    model: Any
    tokenizer: PreTrainedTokenizerFast
    truth: Truth


DECOYS = ("silent", "cancelled", "backup")


def assemble(
    mechanism: Mechanism,
    variant: Variant,
    *,
    tables: Mapping[str, tuple[int, ...]],
    ranks: Mapping[str, int],
    words: Mapping[str, tuple[str, ...]],
    template: str,
) -> Planted:
    """Build the model in about a second; the same variant gives the same weights to the bit."""
    from weft.planted.render import render
    from weft.planted.words import tokenizer_of

    noise = torch.Generator().manual_seed(variant.seed)
    layout = _layout(mechanism, variant, noise)
    model = render(mechanism, variant, layout, noise)
    placed = {role: layout.head(at) for role, at in mechanism.roles.items()}
    truth = Truth(
        n_layers=layout.n_layers,
        n_heads=layout.n_heads,
        heads=_frozen({role: at for role, at in placed.items() if role not in DECOYS}),
        decoys=_frozen({role: at for role, at in placed.items() if role in DECOYS}),
        tables=_frozen({name: layout.rows(table) for name, table in tables.items()}),
        ranks=_frozen(ranks),
        words=_frozen(words),
        template=template,
        subspaces=_frozen({name: layout.basis[at] for name, at in mechanism.stream.slices.items()}),
        variant=variant,
    )
    return Planted(model, tokenizer_of(mechanism.vocabulary), truth)


def _frozen(entries: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(entries))


def _layout(mechanism: Mechanism, variant: Variant, noise: torch.Generator) -> Layout:
    n_heads, n_steps = N_HEADS + variant.noise_heads, len(mechanism.steps)
    draw = random.Random(f"places {variant.seed}")
    # The first layer is never noise: then each layer of noise has a step before it, whose row of a table it repeats.
    later = sorted(draw.sample(range(1, n_steps + variant.noise_layers), n_steps - 1))
    places = [_shuffled(n_heads, draw) if variant.seed else tuple(range(n_heads)) for _ in range(n_steps)]
    basis = _basis(mechanism.stream.width, variant, n_heads * D_HEAD, noise)
    return Layout(n_steps + variant.noise_layers, n_heads, (0, *later), tuple(places), basis)


def _shuffled(n_heads: int, draw: random.Random) -> tuple[int, ...]:
    """Heads 2i and 2i+1 stay a pair, which may share its keys and values."""
    pairs = [(2 * i, 2 * i + 1) if draw.random() < 0.5 else (2 * i + 1, 2 * i) for i in range(n_heads // 2)]
    draw.shuffle(pairs)
    return tuple(head for pair in pairs for head in pair)


def _basis(width: int, variant: Variant, d_model: int, noise: torch.Generator) -> Matrix:
    """Orthonormal rows; in a GPT-2 each sums to zero."""
    centred = variant.family == "gpt2"
    if width + centred > d_model:
        raise ModelError(f"a mechanism of {width} dimensions does not fit a stream of {d_model}")
    if variant.rotate:
        rows = torch.randn(d_model, width, generator=noise, dtype=torch.float64)
        rows = rows - rows.mean(0) * centred
        return torch.linalg.qr(rows).Q.T.float()
    rows = torch.eye(d_model, dtype=torch.float64)
    if centred:  # the reflection that takes the last axis to the mean's takes the others to where they sum to zero
        normal = rows[-1] - d_model**-0.5
        rows = rows - 2 * torch.outer(normal, normal) / normal.dot(normal)
    return rows[:width].float()
