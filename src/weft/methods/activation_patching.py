"""Activation patching over any grid of sites, layers, places and heads, and ablation by the same road."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr

import weft
from weft.methods.grid import Cell, Grid
from weft.methods.measure import Measure, measure
from weft.methods.parts import Parts
from weft.methods.places import HEADS, Place, site_index, texts
from weft.methods.result import Result

PART = 4096
"""Rows of patched runs in one session: enough that rows fill the matrix products, few enough to be stopped between."""


@dataclass(frozen=True, kw_only=True)
class Patching(Result):
    """What patching found: "effect" by site, layer, place and head (axes of one entry are left out).

    "patched" is the metric of every patched run, with a row axis if the metric has one; "clean" and "corrupt" (of an
    ablation "clean" alone) are those of the runs without a patch.
    """

    method: str = "activation_patching"
    direction: str

    def top(self, n: int = 5) -> Any:
        """The `n` cells that differ most from doing nothing (0; 1 when noising), as a table."""
        nothing = 1.0 if self.direction == "noising" else 0.0
        table = self.to_dataframe("effect")
        far = (table["effect"] - nothing).abs().to_numpy()
        return table.iloc[np.argsort(-far, kind="stable")[:n]]

    def title(self, name: str | None = None) -> str:
        return f"{name or self.main}, {self.direction} ({self.model})"


def activation_patching(
    model: Any,
    clean: Any,
    corrupt: Any = None,
    metric: Callable[[Any], Any] | str = "logit_diff",
    *,
    answers: Any = None,
    others: Any = None,
    site: str | Sequence[str] = "z",
    layers: Iterable[int] | None = None,
    position: Any = -1,
    heads: Iterable[int] | str | None = "each",
    direction: str = "denoising",
    ablate: str = "",
    seed: int = 0,
    read_at: Any = -1,
    progress: bool = True,
    plan: str = "auto",
) -> Patching:
    """Which places matter: put another run's activations there, one place at a time, and see what the answer does.

        found = weft.methods.activation_patching(model, clean, corrupt, answers=" Paris", others=" Rome")
        found.plot(); found.top()                                        # [layer, head] of z at the last token
        activation_patching(model, task.sample(20), site="resid_post", position=["query", "end"])
        activation_patching(model, prompts, ablate="mean", metric="log_prob", answers=answers)

    `clean`, `corrupt`: prompts, row by row of the same form; or `clean` is a task's batch, whose counterfactual is then
    the corrupt side. `metric`: "logit_diff", "log_prob" or "prob" of `answers` (and `others`: text or ids, one or one a
    row; a batch brings its own), or a function of the logits [row, vocab] at `read_at` giving [row] or one number.
    `site`: a name, or several with the same axes. `layers`: all. `position`: a position, a text, a role of the batch, a
    function of a run giving LongTensor [row], several of these, {name: place}, "all" for all at once, or "each".
    `heads`: "each", some numbers, or None for all of them at once.

    `direction`: "denoising" puts the clean run's values into the corrupt one, "noising" the corrupt one's into the clean.
    Either way effect = (patched − corrupt)/(clean − corrupt), of the means over rows: 0 as corrupted, 1 as clean. So a
    place that does nothing has 0 when denoising and 1 when noising. `ablate` puts 0, the mean over `corrupt` (or, without,
    over `clean`) at that place, or the value of another row of it ("resample", drawn from `seed`) into the clean run;
    effect = patched − clean, in the metric's unit.

    Papers: Vig et al. (arXiv 2004.12265); Meng et al. (2202.05262), section 2; practice in Heimersheim & Nanda
    (2404.15255). All in one session, or, above 4096 patched rows, in several that can be stopped between: cells that were
    not reached are NaN, and `stopped` says so.

    It misleads where another head does the work when this one is patched (denoising finds what is enough, noising what is
    needed); where prompts differ in more than what is meant; where zero is a value the model never meets; and where a
    difference of logits moves because both fell.
    """
    grid = Grid.of(model, clean, corrupt, site, layers, position, heads, direction, ablate, seed)
    scale = measure(model, grid.prompts_clean, metric, answers, others, read_at)
    before = _before(model, grid, scale, plan)
    cells = grid.cells
    patched = np.full((len(cells), *before["base"].shape), np.nan, np.float32)
    records = [before["record"]]
    size = max(1, PART // max(1, before["rows"]))
    with Parts(
        "patching", [range(at, min(at + size, len(cells))) for at in range(0, len(cells), size)], progress
    ) as work:
        for part in work:
            with model.session(plan=plan) as s:
                _patch(s, grid, scale, [cells[i] for i in part], before)
            patched[list(part)] = s.results["patched"].numpy()
            records.append(s.record)
    return _result(model, grid, scale, before, patched, records, work.stopped)


def _before(model: Any, grid: Grid, scale: Measure, plan: str) -> dict[str, Any]:
    """The metric without a patch, and what an ablation to the mean puts in."""
    source = _resampled(grid) if grid.ablate == "resample" else texts(grid.source)
    with model.session(plan=plan) as s:
        base = s.run(texts(grid.base))
        scale.of(base).save("base")
        if grid.ablate != "zero":
            other = s.run(source)
            _check_places(grid, base, other)
            if grid.ablate == "mean":
                for site, layer, (number, place) in itertools.product(
                    grid.sites, grid.layers, enumerate(grid.source_places)
                ):
                    _mean(other, _sited(other, site, layer), model.axes(site), place).save(f"{site} {layer} {number}")
            if not grid.ablate:
                scale.of(other).save("other")
        rows = base.batch
    found = dict(s.results)
    base_metric = found.pop("base").numpy()
    other_metric = found.pop("other").numpy() if not grid.ablate else None
    if other_metric is not None and abs(float(base_metric.mean() - other_metric.mean())) < 1e-6:
        raise weft.errors.ProgramError(
            f"the metric {scale.name} is {float(base_metric.mean()):.4g} on the clean and on the corrupt prompts: there is "
            "no difference whose share a patch could restore; check the answers, or ablate instead"
        )
    return {
        "base": base_metric,
        "other": other_metric,
        "means": found,
        "source": source,
        "rows": rows,
        "record": s.record,
    }


def _check_places(grid: Grid, base: Any, other: Any) -> None:
    if grid.ablate != "mean" and base.batch != other.batch:
        raise weft.errors.ShapeError(f"{base.batch} rows are patched from {other.batch}; give prompts row by row")
    whole = any(place.label == "all" for place in grid.places) or "key_pos" in grid.site_axes
    if whole and (base.pos != other.pos or base.start.tolist() != other.start.tolist()):
        raise weft.errors.PositionError(
            "whole sites and attention patterns can be patched between prompts of the same number of tokens only; these "
            f"have {base.pos} and {other.pos} at the longest; name places instead: position=[-1, …]"
        )
    if len(grid.places) != len(grid.source_places):
        raise weft.errors.PositionError(
            f'position="each" gives {len(grid.places)} places on one side and {len(grid.source_places)} on the other'
        )


def _resampled(grid: Grid) -> Any:
    """Each row gets another row's prompt."""
    rows = texts(grid.source)
    count = len(rows)
    if count < 2:
        raise weft.errors.ProgramError("resampling takes another prompt's value, so it needs at least two prompts")
    order = list(range(count))
    draw = random.Random(f"resample {grid.seed}")
    while any(i == at for i, at in enumerate(order)):
        draw.shuffle(order)
    return rows[order] if isinstance(rows, torch.Tensor) else [rows[i] for i in order]


def _sited(run: Any, site: str, layer: int | None) -> Any:
    return run[site] if layer is None else getattr(run, site)[layer]


def _mean(run: Any, value: Any, axes: tuple[str, ...], place: Place) -> Any:
    """Over rows, and over positions too where all are meant: what is left is broadcast."""
    at = place.at(run)
    if isinstance(at, slice):
        inside = run.mask.float()
        shape = [n if axis in ("batch", "pos", "query_pos") else 1 for n, axis in zip(value.shape, axes, strict=True)]
        along = inside.reshape(shape) if axes[1] in ("pos",) else inside.reshape(shape[0], 1, shape[2], 1)
        dims = [i for i, axis in enumerate(axes) if axis in ("batch", "pos", "query_pos")]
        return (value * along).sum(dims, keepdim=True) / inside.sum()
    return value[site_index(axes, run.rows, at, None)].mean(0)


def _patch(s: Any, grid: Grid, scale: Measure, cells: list[Cell], before: dict[str, Any]) -> None:
    base = s.run(texts(grid.base))
    source = s.run(before["source"]) if grid.ablate in ("", "resample") else None
    grids = []
    for cell in cells:
        patched = base.fork()
        axes = s.model.axes(cell.site)
        index = site_index(axes, patched.rows, cell.place.at(patched), cell.head)
        _sited(patched, cell.site, cell.layer)[index] = _value(grid, cell, axes, source, before)
        grids.append(scale.of(patched))
    torch.stack(grids).save("patched")  # type: ignore[attr-defined]


def _value(grid: Grid, cell: Cell, axes: tuple[str, ...], source: Any, before: dict[str, Any]) -> Any:
    if grid.ablate == "zero":
        return 0.0
    place = grid.source_place(cell.place)
    if grid.ablate == "mean":
        mean = before["means"][f"{cell.site} {cell.layer} {grid.source_places.index(place)}"]
        if cell.head is None:
            return mean
        left = (
            [axis for axis in axes if axis not in ("batch", "pos", "query_pos")] if place.label != "all" else list(axes)
        )
        return mean.select(next(i for i, axis in enumerate(left) if axis in HEADS), cell.head)
    index = site_index(axes, source.rows, place.at(source), cell.head)
    return _sited(source, cell.site, cell.layer)[index]


def _result(
    model: Any,
    grid: Grid,
    scale: Measure,
    before: dict[str, Any],
    patched: np.ndarray,
    records: list[Any],
    stopped: str,
) -> Patching:
    put = {"zero": "0", "mean": "the mean", "resample": "another row's value"}
    sites, per_head = ", ".join(grid.sites), grid.heads[0] is not None
    return Patching(
        model=model.card.name,
        mediator=f"heads: {sites}" if per_head else sites,
        search="exhaustive",
        intervention=f"ablation of {sites} to {put[grid.ablate]}" if grid.ablate else f"interchange of {sites}",
        metric=scale.name if grid.ablate else f"(patched − corrupt)/(clean − corrupt) of {scale.name}",
        control="the runs without a patch",
        seeds=(grid.seed,) if grid.ablate == "resample" else (),
        settings={"rows": before["rows"], "ablate": grid.ablate},
        stopped=stopped,
        arrays=_arrays(grid, before, patched),
        records=tuple(records),
        direction=grid.direction,
    )


def _arrays(grid: Grid, before: dict[str, Any], patched: np.ndarray) -> dict[str, xr.DataArray]:
    """Axes of one entry are left out, but for layer and head, whose number matters."""
    named = dict(zip(("site", "layer", "position", "head"), grid.labels, strict=True))
    kept = {
        name: list(axis)
        for name, axis in named.items()
        if len(axis) > 1 or (name in ("layer", "head") and axis[0] is not None)
    }
    rows = ("row",) * before["base"].ndim
    shape = (*(len(axis) for axis in kept.values()), *before["base"].shape)
    each = xr.DataArray(patched.reshape(shape), dims=(*kept, *rows), coords=kept)
    mean = each.mean("row", skipna=False) if rows else each
    if grid.ablate:
        plain = {"clean": before["base"]}
        effect = mean - plain["clean"].mean()
    else:
        sides = (before["base"], before["other"])
        clean, corrupt = sides if grid.direction == "noising" else sides[::-1]
        plain = {"clean": clean, "corrupt": corrupt}
        effect = (mean - corrupt.mean()) / (clean.mean() - corrupt.mean())
    return {"effect": effect, "patched": each} | {name: xr.DataArray(x, dims=rows) for name, x in plain.items()}
