"""The run of Todd et al.: effects in each task, one set of heads for all of them, and their vector in each task."""

from __future__ import annotations

import numpy as np
import xarray as xr

from weft.methods.function_vector import function_vector, universal
from weft.methods.functions.evaluate import STATS
from weft.methods.papers.function_vectors import HEADS, TASKS
from weft.methods.reproducing.work import Work

SHARED = ("shots", "form", "held_out", "n_means", "effects_on")


def run(work: Work) -> dict[str, xr.DataArray]:
    """Both passes over the tasks, and what they come to: arrays by name."""
    values, model = work.values, work.model
    layer = model.n_layers // 3 if values["layer"] == "n_layers // 3" else values["layer"]
    count = _count(work)
    shared = {name: values[name] for name in SHARED} | {"layer": layer, "templates": ()}
    for name in values["tasks"]:
        work.part(
            f"effects-{name}", function_vector, TASKS[name], n_effects=values["n_effects"], n_heads=count, controls=0,
            vocabulary=0, **shared,
        )  # fmt: skip
    found = [work.results[f"effects-{name}"] for name in values["tasks"] if f"effects-{name}" in work.results]
    if not found or work.stopped:
        return {}
    heads = universal(found, count)  # type: ignore[arg-type]
    for name in values["tasks"]:
        work.part(f"vector-{name}", function_vector, TASKS[name], heads=heads, n_effects=0, **shared)
    aie = xr.concat([each["aie"] for each in found], "task").mean("task")
    return {"aie": aie, "heads": _table(heads)} | _overlap(work, aie, heads) | _accuracies(work)


def _count(work: Work) -> int:
    """As many heads as the paper's, or all where there are fewer."""
    asked, there = work.values["n_heads"], work.model.n_layers * work.model.n_heads
    if asked > there and not work.own:
        work.notes.append(f"this model has {there} heads: all of them are summed, in place of {asked}")
    return min(asked, there)


def _table(heads: list[tuple[int, int]]) -> xr.DataArray:
    return xr.DataArray(np.array(heads), dims=("rank", "which"), coords={"which": ["layer", "head"]})


def _overlap(work: Work, aie: xr.DataArray, heads: list[tuple[int, int]]) -> dict[str, xr.DataArray]:
    """How many of the paper's heads are among ours; none to count where the model has no such heads."""
    lacking = [f"L{layer}H{head}" for layer, head in HEADS if layer >= aie.sizes["layer"] or head >= aie.sizes["head"]]
    if lacking:
        work.notes.append(f"this model has no {', '.join(lacking)}: the paper's heads are not looked for in it")
        return {}
    return {"overlap": xr.DataArray(float(len(set(HEADS) & set(heads))))}


def _accuracies(work: Work) -> dict[str, xr.DataArray]:
    """Of each task, and their mean: "accuracy" [task, condition, value] and "mean_accuracy" [condition, value]."""
    found = {name: work.results.get(f"vector-{name}") for name in work.values["tasks"]}
    tables = {name: each["accuracy"] for name, each in found.items() if each is not None and "accuracy" in each.arrays}
    if not tables:
        return {}
    names = list(tables)
    every = xr.concat(list(tables.values()), "task").assign_coords(task=names)
    if missing := [name for name in work.values["tasks"] if name not in names]:
        work.partial = f"over {len(names)} of {len(work.values['tasks'])} tasks, without {', '.join(missing)}"
    rows = [_mean(every.sel(condition=condition)) for condition in every["condition"].values]
    mean = xr.DataArray(
        np.array(rows), dims=("condition", "value"), coords={k: every[k] for k in ("condition", "value")}
    )
    return {"accuracy": every, "mean_accuracy": mean}


def _mean(tasks: xr.DataArray) -> list[float]:
    """Mean over tasks, each counted once; its interval from theirs, as they are independent; and how many queries."""
    assert tasks["value"].values.tolist() == STATS
    value, low, high, n = tasks.values.T
    middle, k = value.mean(), len(value)
    below, above = (float(np.sqrt(((value - end) ** 2).sum()) / k) for end in (low, high))
    return [float(middle), float(middle - below), float(middle + above), float(n.sum())]
