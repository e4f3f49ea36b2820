"""What a model can do: its accuracy at each of weft's tasks, against guessing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

import weft
from weft import tasks
from weft.atlas.part import Context, Figure, Part, Skip, better, task_of
from weft.methods import Result
from weft.methods.parts import Parts
from weft.plot import bars

FIRST = 16
"""Prompts after which a task is given up, if by then nothing says that the model does better than guessing."""
VALUES = ("value", "low", "high", "chance", "n")


@dataclass(frozen=True, kw_only=True)
class Abilities(Result):
    """ "accuracy" [task, value]: value, low and high (19 times in 20), chance, n. `settings["left_out"]`: task → reason."""

    method: str = "abilities"


def measure(context: Context) -> Abilities:
    """Every task of weft.tasks, on `n` prompts each, or FIRST where the model does no better than guessing."""
    if context.model.tokens is None:
        raise Skip("it has no tokenizer, and tasks are texts")
    rows: dict[str, list[float]] = {}
    left_out: dict[str, str] = {}
    with Parts("what it can do", list(tasks.TASKS), context.progress) as work:
        for name in work:
            try:
                rows[name] = _row(context, task_of(context.model, name))
            except weft.WeftError as error:
                left_out[name] = error.message
    if not rows:
        raise Skip("; ".join(f"{name}: {why}" for name, why in left_out.items()))
    return Abilities(
        model=context.model.card.name,
        mediator="none: the model as it is",
        search="every task of weft.tasks",
        intervention="none",
        metric="share of right answers (the likeliest option, or each token the likeliest)",
        control="guessing among the options",
        seeds=(context.seed,),
        settings={"n": context.n, "left_out": left_out},
        stopped=work.stopped,
        arrays={
            "accuracy": xr.DataArray(
                list(rows.values()), dims=("task", "value"), coords={"task": list(rows), "value": list(VALUES)}
            )
        },
    )


def _row(context: Context, task: Any) -> list[float]:
    found = task.evaluate(context.model, n=min(FIRST, context.n), seed=context.seed)
    if found.interval.high > found.chance and found.value > 0 and context.n > FIRST:
        found = task.evaluate(context.model, n=context.n, seed=context.seed)
    return [found.value, *found.interval, found.chance, found.n]


def says(found: Result) -> Iterable[str]:
    known = found["accuracy"]
    good = [str(each) for each in known.coords["task"].values if better(known, str(each))]
    yield (
        f"It does better than guessing at {len(good)} of {known.sizes['task']} tasks: {', '.join(good)}."
        if good
        else f"It does no better than guessing at any of {known.sizes['task']} tasks."
    )
    for task, why in found.settings["left_out"].items():
        yield f"{task} could not be asked: {why}"


def figures(found: Result) -> Sequence[Figure]:
    value, low, high = (found["accuracy"].sel(value=each, drop=True) for each in ("value", "low", "high"))
    figure = bars(value.rename("accuracy"), low=low, high=high, title="What it can do")
    chance = found["accuracy"].sel(value="chance", drop=True)
    bar = {"symbol": "line-ew-open", "size": 22, "color": "#e08214", "line": {"width": 3}}
    names = [str(each) for each in chance.coords["task"].values]
    figure.add_scatter(x=names, y=chance.values.tolist(), mode="markers", marker=bar, name="guessing")
    figure.update_yaxes(range=[0, 1.05])
    figure.update_layout(showlegend=False)
    return [
        Figure(
            "Accuracy at each task with its interval (19 times in 20); the orange line is what guessing gives.", figure
        )
    ]


PART = Part(
    name="abilities",
    title="What it can do",
    asks="Before asking how a model does something, ask whether it does it. Each task is a prompt with a known answer; a bar "
    "is the share that the model gets right, and the orange line is what guessing would. Mechanisms are looked for only "
    "where accuracy lies above the line beyond doubt (999 times in 1000).",
    misleads="Accuracy is not mechanism: a task done rightly may be done in another way than its name suggests. A task asked "
    "in other words, or with examples before it, can come out otherwise.",
    run=measure, says=says, figures=figures, tables=("accuracy",),
)  # fmt: skip
