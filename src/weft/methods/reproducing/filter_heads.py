"""The run of Sen Sharma et al.: heads found on SelectOne, then tested on other tasks, lengths and unions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr

from weft import tasks
from weft.methods.filter_heads import filter_heads
from weft.methods.filtering.localise import strongest
from weft.methods.filtering.patch import Head
from weft.methods.filtering.state import FEW
from weft.methods.papers.filter_heads import RHYME
from weft.methods.reproducing.work import Work
from weft.tasks.words.english import RHYMES

MAIN = ("grid", "attention", "mask", "sets", "same_answer", "necessity", "predicates", "probe", "transfer")


def run(work: Work) -> dict[str, xr.DataArray]:
    """All parts, and what they come to: arrays by name."""
    values = work.values
    words: dict[str, Any] = {"distractors": values["distractors"] + 1}
    task = tasks.SelectOne(**words, question=values["question"])
    common = {name: values[name] for name in ("pairs", "at", "evaluate_at", "score")}
    learn = {name: values[name] for name in ("train_pairs", "epochs", "batch_size", "penalty", "keep")}
    kin = {"count": tasks.Count(**words), "exists": tasks.Exists(**words)}
    main = work.part("select-one", filter_heads, task, tasks=kin, parts=MAIN, **common, **learn)
    if main is None or work.stopped:
        return {}
    made = {"heads": xr.DataArray(float(len(main.heads)))}
    heads = list(main.heads) or _instead(work, main)
    if heads and not main.heads:
        main = work.part("select-one-given", filter_heads, task, heads=heads, tasks=kin, parts=MAIN[3:], **common)
    if heads:
        _carried(work, task, heads, words, common)
    return made | (_within(main) if main is not None else {})


def _instead(work: Work, main: Any) -> list[Head]:
    """Where the mask of a model that is not the paper's keeps nothing: as large a share of heads as the paper's."""
    if work.own or "delta" not in main.arrays:
        return []
    grid = torch.tensor(main["delta"].values)
    heads = strongest(grid, max(1, grid.numel() * FEW // 1000))
    named = ", ".join(f"L{layer}H{head}" for layer, head in heads)
    work.notes.append(f"the mask kept no head; {named}, of the largest single effect, stand in for its heads")
    return heads


def _carried(work: Work, task: Any, heads: list[Head], words: dict[str, Any], common: dict[str, Any]) -> None:
    """The same heads elsewhere."""
    kinds = {
        "select-first": tasks.SelectFirst(**words),
        "select-last": tasks.SelectLast(**words),
        "rhymes": tasks.SelectOne(**words, categories=RHYMES, question=RHYME),
    }
    for length in work.values["lengths"]:
        kinds[f"distractors-{length}"] = tasks.SelectOne(distractors=length + 1, question=work.values["question"])
    given = common | {"heads": heads, "random_sets": 1}
    for name, kind in kinds.items():
        work.part(name, filter_heads, kind, parts=("sets",), tasks={}, **given)
    work.part("question-first", filter_heads, task, parts=("question_first",), tasks={}, **given)
    union = given | {"pairs": work.values["union_pairs"]}
    work.part("union", filter_heads, task, parts=("predicates", "union"), tasks={}, **union)


def _within(main: Any) -> dict[str, xr.DataArray]:
    """What the heads do, by any name; predicates of a task put into the same task; and the probe's best head."""
    made: dict[str, xr.DataArray] = {}
    for array, name in (("sets", "found"), ("necessity", "knocked")):
        if array in main.arrays:
            made |= _renamed(main[array], name)
    if "transfer" in main.arrays:
        grid = main["transfer"]
        same = [name for name in grid["from"].values if name in grid["to"].values]
        rows = [[float(grid.sel({"from": name, "to": name}))] for name in same]
        made["within"] = xr.DataArray(
            np.array(rows).reshape(-1, 1), dims=("task", "measure"), coords={"task": same, "measure": ["rate"]}
        )
    if "probe" in main.arrays:
        probe = main["probe"]
        made["probe"] = probe.isel(member=int(np.argmax(probe.sel(measure="rate").values)))
    return made


def _renamed(array: xr.DataArray, name: str) -> dict[str, xr.DataArray]:
    """Rows of the heads (learned or given) and of random ones: "found" [measure], or "knocked" [set, measure]."""
    own = next((each for each in ("mask", "given") if each in array["set"].values), None)
    if own is None:
        return {}
    if name == "found":
        return {name: array.sel(set=own, drop=True)}
    both = [each for each in (own, "random") if each in array["set"].values]
    return {name: array.sel(set=both).assign_coords(set=["these" if each == own else each for each in both])}
