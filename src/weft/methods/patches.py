"""What a patching puts where: another run's values, nothing, a mean, another row's."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import weft
from weft.methods.grid import Cell, Grid
from weft.methods.measure import Measure
from weft.methods.places import HEADS, Place, numbers, site_index, texts

ROWS = ("batch", "pos", "query_pos")


@dataclass(frozen=True)
class Unpatched:
    """The metric without a patch, and what an ablation puts in: `means` by site, layer and place, or whose rows."""

    base: np.ndarray
    other: np.ndarray | None
    means: dict[str, torch.Tensor]
    order: torch.Tensor | None
    rows: int
    record: Any


def unpatched(model: Any, grid: Grid, scale: Measure, plan: str) -> Unpatched:
    """One session of the prompts as they are."""
    with model.session(plan=plan) as s:
        base = s.run(texts(grid.base))
        scale.of(base, grid.base).save("base")
        if grid.ablate != "zero":
            other = s.run(texts(grid.source))
            _check_places(grid, base, other)
            if grid.ablate == "mean":
                _save_means(model, grid, other)
            if not grid.ablate:
                scale.of(other, grid.source).save("other")
    means = dict(s.results)
    mine = numbers(means.pop("base"))
    theirs = None if grid.ablate else numbers(means.pop("other"))
    if theirs is not None and abs(float(mine.mean() - theirs.mean())) < 1e-6:
        raise weft.errors.ProgramError(
            f"the metric {scale.name} is {float(mine.mean()):.4g} on the clean and on the corrupt prompts: there is no "
            "difference whose share a patch could restore; check the answers, or ablate instead"
        )
    return Unpatched(mine, theirs, means, _order(grid, base.batch), base.batch, s.record)


def patch(s: Any, grid: Grid, scale: Measure, cells: Sequence[Cell], before: Unpatched) -> None:
    """A fork of the base run for each cell; their metrics are saved as "patched", [cell] or [cell, row]."""
    base = s.run(texts(grid.base))
    source = s.run(texts(grid.source)) if grid.ablate in ("", "resample") else None
    found = []
    for cell in cells:
        patched = base.fork()
        axes = s.model.axes(cell.site)
        index = site_index(axes, patched, cell.place, cell.head)
        _sited(patched, cell.site, cell.layer)[index] = _value(grid, cell, axes, source, before)
        found.append(scale.of(patched, grid.base))
    torch.stack(found).save("patched")  # type: ignore[attr-defined]


def _value(grid: Grid, cell: Cell, axes: tuple[str, ...], source: Any, before: Unpatched) -> Any:
    if grid.ablate == "zero":
        return 0.0
    place = grid.source_place(cell.place)
    if grid.ablate == "mean":
        mean = before.means[_name(grid, cell.site, cell.layer, place)]
        left = [axis for axis in axes if place.whole or axis not in ROWS]
        return mean if cell.head is None else mean.select(next(i for i, a in enumerate(left) if a in HEADS), cell.head)
    return _sited(source, cell.site, cell.layer)[site_index(axes, source, place, cell.head, before.order)]


def _sited(run: Any, site: str, layer: int | None) -> Any:
    return run[site] if layer is None else getattr(run, site)[layer]


def _name(grid: Grid, site: str, layer: int | None, place: Place) -> str:
    return f"{site} {layer} {grid.source_places.index(place)}"


def _save_means(model: Any, grid: Grid, run: Any) -> None:
    for site, layer, place in itertools.product(grid.sites, grid.layers, grid.source_places):
        mean = _mean(run, _sited(run, site, layer), model.axes(site), place)
        mean.save(_name(grid, site, layer, place))


def _mean(run: Any, value: Any, axes: tuple[str, ...], place: Place) -> Any:
    """Over rows, and over positions too where all are meant: what is left is broadcast."""
    if not place.whole:
        return value[site_index(axes, run, place, None)].mean(0)
    inside = run.mask.to(value.dtype)
    shape = [size if axis in ROWS else 1 for size, axis in zip(value.shape, axes, strict=True)]
    over = [i for i, axis in enumerate(axes) if axis in ROWS]
    return (value * inside.reshape(shape)).sum(over, keepdim=True) / inside.sum()


def _check_places(grid: Grid, base: Any, other: Any) -> None:
    if grid.ablate != "mean" and base.batch != other.batch:
        raise weft.errors.ShapeError(f"{base.batch} rows are patched from {other.batch}; give prompts row by row")
    if len(grid.places) != len(grid.source_places):
        raise weft.errors.PositionError(
            f'position="each" gives {len(grid.places)} places on one side and {len(grid.source_places)} on the other'
        )
    keys = "key_pos" in grid.site_axes
    whole = keys or (any(place.whole for place in grid.places) and grid.ablate != "mean")
    if whole and (base.pos != other.pos or base.start.tolist() != other.start.tolist()):
        raise weft.errors.PositionError(
            "whole sites and attention patterns can be patched between prompts of the same number of tokens only; these "
            f"have {base.pos} and {other.pos} at the longest; name places instead: position=[-1, …]"
        )


def _order(grid: Grid, rows: int) -> torch.Tensor | None:
    """Whose value each row gets when resampling: another row's, always."""
    if grid.ablate != "resample":
        return None
    if rows < 2:
        raise weft.errors.ProgramError("resampling takes another prompt's value, so it needs at least two prompts")
    order = list(range(rows))
    draw = random.Random(f"resample {grid.seed}")
    while any(i == at for i, at in enumerate(order)):
        draw.shuffle(order)
    return torch.tensor(order)
