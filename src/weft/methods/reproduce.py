"""A paper's full settings run on a model, and its numbers with ours beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import weft
from weft.methods.papers import PAPERS, Paper
from weft.methods.reproducing import filter_heads, function_vectors
from weft.methods.reproducing.missing import cached, missing
from weft.methods.reproducing.reproduction import Reproduction
from weft.methods.reproducing.rows import Row, rows
from weft.methods.reproducing.work import Work

RUNS: dict[str, Callable[[Work], dict[str, xr.DataArray]]] = {
    "function-vectors": function_vectors.run,
    "filter-heads": filter_heads.run,
}


def reproduce(
    paper: str,
    model: Any = None,
    *,
    seed: int = 0,
    only_right: bool | None = None,
    settings: Mapping[str, Any] | None = None,
    loading: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    progress: bool = True,
) -> Reproduction:
    """A paper's numbers, and ours beside them: its whole settings, counts and all, run on a model.

        found = weft.methods.reproduce("function-vectors", "EleutherAI/gpt-j-6b", out="function-vectors")
        found.rows, found.differs, found.parts["vector-antonym"]
        weft.methods.reproduce("filter-heads").missing["needs"]              # what it takes, where the weights are not there
        weft.methods.reproduce("filter-heads", weft.load("a/folder"))        # the same run on a model of your own

    `paper`: a name of `weft.methods.papers.PAPERS`. `model`: a model, or what weft.load takes; without one, the paper's if it
    is in this machine's cache (nothing is downloaded unasked), else the result's `missing` says what is needed. A model that
    is not the paper's is run all the same, and its rows say "not comparable".

    `only_right`: the papers ask only what the model answers rightly. True holds to that, False takes all prompts, None takes
    all of them only in parts where a model that is not the paper's gets too few right; rows say so. `settings`: changes of
    the paper's, {"n_means": 4}; then nothing is comparable. `loading`: options of weft.load. `out`: a folder that each
    finished part is saved in, and taken from when this is run again. Ctrl-C ends it after the part of the work it is in.

    It misleads where a number agrees for another reason: read `differs`, above all that words are weft's own, so intervals
    do not cover the difference between word lists. A mark of M means that the paper's number itself is not verified.
    """
    known = _paper(paper)
    values = known.changed(dict(settings or {}))
    loaded = _model(known, model, dict(loading or {}))
    if isinstance(loaded, str):
        return _nothing(known, values, loaded, seed)
    if loaded.tokens is None:
        raise weft.errors.TokenError(
            "a paper's prompts are words and this model has no tokenizer; give one: weft.load(source, tokenizer=…)"
        )
    own = next((each.id for each in known.models if each.is_of(loaded.card)), "")
    folder = Path(out) if out is not None else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    work = Work(known, loaded, values, seed, only_right, bool(own), progress, folder)
    arrays = RUNS[known.name](work)
    return _finished(work, arrays, own, folder)


def _finished(work: Work, arrays: dict[str, xr.DataArray], own: str, folder: Path | None) -> Reproduction:
    changed = sorted(name for name, value in work.paper.values().items() if work.values[name] != value)
    loose = dict.fromkeys(work.results, "all prompts, as asked") if work.only_right is False else work.unfiltered
    other = "; ".join(
        [
            *(["another model"] if not own else []),
            *([f"other settings ({', '.join(changed)})"] if changed else []),
            *([work.partial] if work.partial else []),
        ]
    )
    made = rows(work.paper, own, arrays, work.results, work.reasons, loose, other)
    notes = [*work.notes, *(f"{part}: all prompts, right or not: {why}" for part, why in loose.items())]
    for part, each in work.results.items():
        notes += [f"{part}: no {what}: {why}" for what, why in getattr(each, "left_out", {}).items()]
    found = _result(
        work.paper, work.values, made, model=work.model.card.name, arrays=arrays, seeds=(work.seed,), stopped=work.stopped,
        notes=tuple(notes), failed=dict(work.reasons), parts=dict(work.results),
    )  # fmt: skip
    if folder is not None:
        found.save(folder / "reproduction.safetensors")
    return found


def _nothing(paper: Paper, values: Mapping[str, Any], why: str, seed: int) -> Reproduction:
    """The paper's figures with nothing beside them."""
    made = rows(paper, "", {}, {}, {}, {}, "")
    made = tuple(
        row._replace(reason=row.reason if not row.key else f"needs the weights of {row.model}") for row in made
    )
    return _result(paper, values, made, model="", seeds=(seed,), missing=missing(paper, why))


def _result(paper: Paper, values: Mapping[str, Any], made: tuple[Row, ...], **more: Any) -> Reproduction:
    table = [
        [figure.value, *(np.nan if each is None else each for each in (row.ours, row.low, row.high))]
        for figure, row in zip(paper.figures, made, strict=True)
    ]
    names = [f"{row.what} ({row.model})" for row in made]
    coords = {"figure": names, "value": ["expected", "ours", "low", "high"]}
    figures = xr.DataArray(np.array(table), dims=("figure", "value"), coords=coords)
    more["arrays"] = {"figures": figures, **more.get("arrays", {})}
    return Reproduction(
        paper=paper.name, rows=made, differs=paper.differs, mediator="as the paper has it", search="as the paper has it",
        intervention="the paper's, by weft's own method", metric="the paper's figures", control="each part's own",
        settings=dict(values), **more,
    )  # fmt: skip


def _paper(name: str) -> Paper:
    if name not in PAPERS:
        raise weft.errors.ProgramError(
            f"no paper is called {name!r}; there are {', '.join(PAPERS)}: weft.methods.reproduce({next(iter(PAPERS))!r})"
        )
    return PAPERS[name]


def _model(paper: Paper, model: Any, options: dict[str, Any]) -> Any:
    """The model; or a text that says why there is none."""
    if model is None:
        there = [each.id for each in paper.models if cached(each.id)]
        if not there:
            ids = " nor ".join(each.id for each in paper.models)
            return f"no model was given, and neither {ids} is in this machine's cache" if len(paper.models) > 1 else (
                f"no model was given, and {ids} is not in this machine's cache"
            )  # fmt: skip
        model = there[0]
    if not isinstance(model, str | Path):
        if options:
            raise weft.errors.ModelError("loading= is for a model that is loaded here; this one is loaded")
        return model
    try:
        return weft.load(str(model), weights=True, **options)
    except weft.errors.ModelError as error:
        return error.message
