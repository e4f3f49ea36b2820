"""Activation patching over any grid of sites, layers, places and heads, and ablation by the same road."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from weft.methods.grid import Grid
from weft.methods.measure import Measure, measure
from weft.methods.parts import Parts, split
from weft.methods.patches import Unpatched, patch, unpatched
from weft.methods.places import numbers
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
    before = unpatched(model, grid, scale, plan)
    cells = grid.cells
    patched = np.full((len(cells), *before.base.shape), np.nan, before.base.dtype)
    records = [before.record]
    with Parts("patching", split(len(cells), PART // before.rows), progress) as work:
        for part in work:
            with model.session(plan=plan) as s:
                patch(s, grid, scale, [cells[i] for i in part], before)
            patched[list(part)] = numbers(s.results["patched"])
            records.append(s.record)
    return _result(model, grid, scale, before, patched, records, work.stopped)


def _result(
    model: Any,
    grid: Grid,
    scale: Measure,
    before: Unpatched,
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
        settings={"rows": before.rows, "ablate": grid.ablate},
        stopped=stopped,
        arrays=_arrays(grid, before, patched),
        records=tuple(records),
        direction=grid.direction,
    )


def _arrays(grid: Grid, before: Unpatched, patched: np.ndarray) -> dict[str, xr.DataArray]:
    """Axes of one entry are left out, but for layer and head, whose number matters."""
    named = dict(zip(("site", "layer", "position", "head"), grid.labels, strict=True))
    kept = {
        name: list(axis)
        for name, axis in named.items()
        if len(axis) > 1 or (name in ("layer", "head") and axis[0] is not None)
    }
    rows = ("row",) * before.base.ndim
    shape = (*(len(axis) for axis in kept.values()), *before.base.shape)
    each = xr.DataArray(patched.reshape(shape), dims=(*kept, *rows), coords=kept)
    mean = each.mean("row", skipna=False) if rows else each
    if grid.ablate:
        plain = {"clean": before.base}
        effect = mean - plain["clean"].mean()
    else:
        assert before.other is not None
        sides = (before.base, before.other)
        clean, corrupt = sides if grid.direction == "noising" else sides[::-1]
        plain = {"clean": clean, "corrupt": corrupt}
        effect = (mean - corrupt.mean()) / (clean.mean() - corrupt.mean())
    return {"effect": effect, "patched": each} | {name: xr.DataArray(x, dims=rows) for name, x in plain.items()}
