"""What an atlas is made of: parts, each of which runs one method or says why it does not apply.

part.run(context)                    # a Result; raises Skip("why") where there is nothing to find
part.says(result)                    # sentences with the numbers, for the report
part.figures(result)                 # (caption, Plotly figure)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from weft import tasks
from weft.methods import Result


class Skip(Exception):
    """A part does not apply to this model; the text says why, for a reader of the report."""


@dataclass(frozen=True)
class Context:
    """What a part may look at: the model, how much to do, and what the parts before it found."""

    model: Any
    n: int
    seed: int
    progress: bool
    found: Mapping[str, Result]


class Figure(NamedTuple):
    """A picture with what it shows."""

    caption: str
    plot: Any


@dataclass(frozen=True)
class Part:
    """A section of the report. `asks` is for a student who has not met the method; `misleads` says when not to believe it."""

    name: str
    title: str
    asks: str
    misleads: str
    run: Callable[[Context], Result]
    says: Callable[[Result], Iterable[str]]
    figures: Callable[[Result], Sequence[Figure]]
    tables: tuple[str, ...] = ()


def task_of(model: Any, name: str) -> Any:
    """A task as this model is asked it: in words that it has tokens for, where the task can choose them."""
    kind: Any = tasks.TASKS[name]
    return kind.for_model(model) if hasattr(kind, "for_model") else kind()


def better(known: Any, task: str) -> bool:
    """Whether a task's accuracy lies above guessing with its whole interval, 999 times in 1000: fifteen tasks are asked."""
    value, chance, n = (float(known.sel(task=task, value=each)) for each in ("value", "chance", "n"))
    middle, width = value + Z**2 / (2 * n), Z * (value * (1 - value) / n + Z**2 / (4 * n**2)) ** 0.5
    return (middle - width) / (1 + Z**2 / n) > chance


Z = 3.29


def can(context: Context, task: str, least: float = 0.5) -> float:
    """The model's accuracy at a task; Skip with the figure if it is not above chance, or under `least`."""
    measured = context.found.get("abilities")
    if measured is None:
        raise Skip("what the model can do was not measured")
    known = measured["accuracy"]
    if task not in known.coords["task"].values:
        raise Skip(f"{task} could not be asked: {measured.settings['left_out'].get(task, 'it was not measured')}")
    value, chance = (float(known.sel(task=task, value=each)) for each in ("value", "chance"))
    if not better(known, task):
        raise Skip(f"it answers {task} no better than guessing: {value:.2f}, and guessing gives {chance:.2f}")
    if value < least:
        raise Skip(f"it is right in {value:.2f} of {task}, and mechanisms of less than {least:.2f} are not looked for")
    return value
