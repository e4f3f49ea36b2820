"""The grid of a patching: which sites, layers, places and heads, from which prompts into which."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

import weft
from weft.methods.places import HEADS, Place, places, texts

ABLATIONS = ("zero", "mean", "resample")
DIRECTIONS = ("denoising", "noising")


class Cell(NamedTuple):
    site: str
    layer: int | None
    place: Place
    head: int | None


@dataclass(frozen=True)
class Grid:
    """What is patched where, from what."""

    base: Any
    source: Any
    prompts_clean: Any
    sites: tuple[str, ...]
    layers: tuple[int | None, ...]
    places: tuple[Place, ...]
    source_places: tuple[Place, ...]
    heads: tuple[int | None, ...]
    site_axes: tuple[str, ...]
    direction: str
    ablate: str
    seed: int

    @property
    def cells(self) -> list[Cell]:
        """Everything that is patched, the last axis fastest."""
        return [Cell(*each) for each in itertools.product(*self.axes)]

    @property
    def axes(self) -> tuple[Sequence[Any], ...]:
        return self.sites, self.layers, self.places, self.heads

    @property
    def labels(self) -> tuple[Sequence[Any], ...]:
        return self.sites, self.layers, [place.label for place in self.places], self.heads

    def source_place(self, place: Place) -> Place:
        return self.source_places[self.places.index(place)]

    @classmethod
    def of(
        cls, model: Any, clean: Any, corrupt: Any, site: Any, layers: Any, position: Any, heads: Any, direction: str,
        ablate: str, seed: int,
    ) -> Grid:  # fmt: skip
        if direction not in DIRECTIONS:
            raise weft.errors.ProgramError(f'direction must be "denoising" or "noising", not {direction!r}')
        if ablate and ablate not in ABLATIONS:
            raise weft.errors.ProgramError(f'ablate must be "zero", "mean" or "resample", not {ablate!r}')
        if corrupt is None and not ablate:
            corrupt = getattr(clean, "counterfactual", None)
        if corrupt is None and not ablate:
            raise weft.errors.ProgramError(
                "give the corrupt prompts: activation_patching(model, clean, corrupt, …), or ablate='zero', 'mean' or "
                "'resample', which needs none"
            )
        base, source = (clean, corrupt) if direction == "noising" or ablate else (corrupt, clean)
        source = clean if source is None else source
        sites = (site,) if isinstance(site, str) else tuple(site)
        axes = _axes(model, sites)
        return cls(
            base, source, clean, sites, _layers(model, sites, layers), tuple(_places(model, position, base, clean)),
            tuple(_places(model, position, source, clean)), _heads(model, sites, axes, heads), axes,
            f"ablation ({ablate})" if ablate else direction, ablate, seed,
        )  # fmt: skip


def _axes(model: Any, sites: tuple[str, ...]) -> tuple[str, ...]:
    axes = [model.axes(site) for site in sites]
    shapes = {tuple(axis for axis in each if axis in HEADS) for each in axes}
    if not axes or len(shapes) > 1:
        told = "; ".join(f"{site} [{', '.join(each)}]" for site, each in zip(sites, axes, strict=True))
        raise weft.errors.SiteError(f"sites of one grid have the same heads, or heads=None: {told}")
    return axes[0]


def _layers(model: Any, sites: tuple[str, ...], layers: Any) -> tuple[int | None, ...]:
    having = [model.layers(site) for site in sites]
    if not any(having):
        return (None,)
    shared = [layer for layer in having[0] if all(layer in each for each in having)]
    wanted = (
        shared
        if layers is None
        else [layer % model.n_layers if -model.n_layers <= layer < 0 else layer for layer in layers]
    )
    if missing := [layer for layer in wanted if layer not in shared]:
        raise weft.errors.SiteError(f"{', '.join(sites)}: this model has them in layers {shared}, not in {missing}")
    if not wanted:
        raise weft.errors.SiteError("layers is empty; leave it out for all of them")
    return tuple(wanted)


def _heads(model: Any, sites: tuple[str, ...], axes: tuple[str, ...], heads: Any) -> tuple[int | None, ...]:
    own = [axis for axis in axes if axis in HEADS]
    if heads is None or (heads == "each" and not own):
        return (None,)
    if not own:
        raise weft.errors.SiteError(f"{sites[0]} [{', '.join(axes)}] has no heads; leave heads out")
    count = model.n_heads if own[0] == "head" else model.n_kv_heads
    wanted: list[Any] = list(range(count)) if heads == "each" else list(heads)
    if not wanted or not all(isinstance(head, int) and 0 <= head < count for head in wanted):
        raise weft.errors.SiteError(
            f'heads is "each", None for all at once, or some of 0 to {count - 1}, not {heads!r}'
        )
    return tuple(wanted)


def _places(model: Any, position: Any, prompts: Any, clean: Any) -> list[Place]:
    """The places, in these prompts; those of "each" are called by the clean prompt's tokens."""
    if not (isinstance(position, str) and position == "each"):
        return places(position, prompts)
    if isinstance(prompts, torch.Tensor):
        return [Place(str(i), lambda run, i=i: run.at(i)) for i in range(prompts.shape[1])]
    names = []
    for side in (prompts, clean):
        encoded = model.tokens.encode(texts(side))
        if bool((encoded.start > 0).any()) or (names and len(names) != encoded.ids.shape[1]):
            raise weft.errors.PositionError(
                'position="each" needs prompts of one length, clean and corrupt; name places that all rows have: '
                'position=[-1, " Paris"]'
            )
        names = [f"{model.tokens.decode([token])}_{i}" for i, token in enumerate(encoded.ids[0].tolist())]
    return [Place(name, lambda run, i=i: run.at(i)) for i, name in enumerate(names)]
