"""The metric of a method: a name with its answers, or a function of the logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import weft
from weft.methods.places import answer_ids, places, sharp, texts

NAMES = ("logit_diff", "log_prob", "prob")


@dataclass(frozen=True)
class Measure:
    """`of(run, prompts)` is the metric of a run of these prompts at its place: [row], or one number."""

    name: str
    metric: Callable[[Any], Any]
    read_at: Any

    def of(self, run: Any, prompts: Any) -> Any:
        at = places(self.read_at, prompts)[0].at(run)
        logits = run.logits[run.rows, at] if isinstance(at, torch.Tensor) else run.logits[:, at]
        value = self.metric(logits)
        if not isinstance(value, torch.Tensor) or tuple(value.shape) not in ((), (run.batch,)):
            given = list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise weft.errors.ShapeError(
                f"the metric {self.name} gives {given}, not one number, or one a row [{run.batch}]; it is handed logits "
                "[row, vocab]: metric=lambda logits: weft.logit_diff(logits, ' Paris', ' Rome')"
            )
        return value


def measure(model: Any, prompts: Any, metric: Any, answers: Any, others: Any, read_at: Any) -> Measure:
    """The metric asked for; what it needs and was not given is an error that shows the call."""
    if callable(metric):
        if answers is not None or others is not None:
            raise weft.errors.ProgramError(
                "a metric that is a function has its own answers; leave answers= and others= out"
            )
        name = getattr(metric, "__name__", "metric")
        return Measure("a metric given as a function" if name == "<lambda>" else name, metric, read_at)
    if metric not in NAMES:
        raise weft.errors.ProgramError(
            f"metric is one of {', '.join(NAMES)}, or a function of the logits, not {metric!r}"
        )
    given = (answers, others)
    if answers is None:
        answers = getattr(prompts, "answers", None)
    if others is None and metric == "logit_diff" and given[0] is None:
        others = getattr(getattr(prompts, "counterfactual", None), "answers", None)
    if answers is None or (others is None and metric == "logit_diff"):
        raise weft.errors.ProgramError(
            f"metric={metric!r} needs answers=" + (" and others=" if metric == "logit_diff" else "")
            + ", e.g. answers=' Paris', others=' Rome', one for all rows or a list of one a row"
        )  # fmt: skip
    right, wrong = _ids(model, prompts, answers), None if others is None else _ids(model, prompts, others)
    if metric == "logit_diff":
        _differ(right, wrong, answers, others)
        return Measure("logit_diff", lambda logits: weft.logit_diff(sharp(logits), right, wrong), read_at)
    if others is not None:
        raise weft.errors.ProgramError(f"metric={metric!r} has no others=; that is for logit_diff")
    return Measure(metric, lambda logits: getattr(weft, metric)(sharp(logits), right), read_at)


def _ids(model: Any, prompts: Any, answers: Any) -> Any:
    """One id, or one a row: of an answer of several tokens the first, as it follows the prompt."""
    rows = texts(prompts)
    if isinstance(answers, str) and isinstance(rows, list) and all(isinstance(row, str) for row in rows):
        answers = [answers] * len(rows)
    if isinstance(answers, Sequence) and not isinstance(answers, str) and all(isinstance(a, str) for a in answers):
        if isinstance(rows, list) and len(answers) != len(rows):
            raise weft.errors.ShapeError(f"{len(answers)} answers for {len(rows)} rows; give one a row, or one for all")
        if isinstance(rows, list) and all(isinstance(row, str) for row in rows):
            return answer_ids(model, rows, answers)
    return answers


def _differ(right: Any, wrong: Any, answers: Any, others: Any) -> None:
    if isinstance(right, torch.Tensor) and isinstance(wrong, torch.Tensor) and bool((right == wrong).any()):
        row = int((right == wrong).nonzero()[0])
        pair = [each if isinstance(each, str) else each[row] for each in (answers, others)]
        raise weft.errors.TokenError(
            f"row {row}: {pair[0]!r} and {pair[1]!r} begin with the same token there, so their logits do not differ; "
            "choose answers that differ in their first token, or take() the other rows"
        )
