"""How often a model is right, with an interval: `accuracy(model, batch, "options")`.

"options": the answer is the likeliest of the prompt's options, each scored as a whole, whatever its number of tokens; a
tie is wrong. "exact": every token of the answer is the likeliest one given the text before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import weft

if TYPE_CHECKING:
    from weft.tasks.batch import Batch, Prompts

ROWS = 64
"""Rows run at once."""
Z = 1.96


class Interval(NamedTuple):
    """Where the true rate lies, 19 times in 20 (Wilson's interval, which holds at 0 and 1 too)."""

    low: float
    high: float


@dataclass(frozen=True)
class Accuracy:
    """Which rows were right; `value` is their share and `chance` what guessing would give."""

    right: tuple[bool, ...]
    measure: str
    chance: float

    @property
    def n(self) -> int:
        return len(self.right)

    @property
    def value(self) -> float:
        return sum(self.right) / self.n

    @property
    def interval(self) -> Interval:
        p, n = self.value, self.n
        middle, width = p + Z**2 / (2 * n), Z * (p * (1 - p) / n + Z**2 / (4 * n**2)) ** 0.5
        low, high = (middle - width) / (1 + Z**2 / n), (middle + width) / (1 + Z**2 / n)
        return Interval(max(low, 0.0), min(high, 1.0))  # rounding alone leaves [0, 1], at a rate of 0 or 1

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.3f} ({low:.3f} to {high:.3f}, n = {self.n}, {self.measure}, chance {self.chance:.3f})"


def accuracy(model: Any, prompts: Prompts, measure: str = "options") -> Accuracy:
    """How often the model answers these prompts rightly."""
    if measure not in ("options", "exact"):
        raise weft.errors.ProgramError(f'measure must be "options" or "exact", not {measure!r}')
    if not len(prompts):
        raise weft.errors.ProgramError("an accuracy needs at least one prompt")
    if measure == "exact":
        return Accuracy(_exact(model, prompts), measure, 0.0)
    scores = option_scores(model, prompts)
    right = tuple(
        all(mine > score for other, score in row.items() if other != answer)
        for row, answer in zip(scores, prompts.answers, strict=True)
        for mine in [row[answer]]
    )
    return Accuracy(right, measure, sum(1 / len(each) for each in prompts.options) / len(prompts))


def option_scores(model: Any, prompts: Prompts) -> list[dict[str, float]]:
    """For each prompt the log-probability of each of its options, up to what the options have in common.

    Counted from the first token that holds any option's first character: a tokenizer may join an option with the end of
    the prompt, and what is compared must then begin at the same token for all of them.
    """
    rows = [(prompt, option) for prompt, own in zip(prompts.prompts, prompts.options, strict=True) for option in own]
    first = _begins(model, rows)
    earliest: dict[str, int] = {}
    for (prompt, _), begin in zip(rows, first, strict=True):
        earliest[prompt] = min(begin, earliest.get(prompt, begin))
    totals = iter(_run(model, rows, [earliest[prompt] for prompt, _ in rows], "score"))
    return [{option: next(totals) for option in own} for own in prompts.options]


def correct_pairs(model: Any, batch: Batch, measure: str = "options") -> Batch:
    """The pairs of which the model answers both prompts rightly: interchanges say nothing about the others."""
    base, other = accuracy(model, batch, measure), accuracy(model, batch.counterfactual, measure)
    return batch.take(row for row in range(len(batch)) if base.right[row] and other.right[row])


def _exact(model: Any, prompts: Prompts) -> tuple[bool, ...]:
    rows = list(zip(prompts.prompts, prompts.answers, strict=True))
    return tuple(missed == 0 for missed in _run(model, rows, _begins(model, rows), "missed"))


def _begins(model: Any, rows: Sequence[tuple[str, str]]) -> list[int]:
    """The token in which each answer's first character lies, counted from its row's first token."""
    if model.tokens is None:
        raise weft.errors.TokenError("tasks are texts and this model has no tokenizer; give one to weft.load")
    begins = []
    for prompt, answer in rows:
        ids = model.tokens.encode([prompt + answer]).ids[0]
        begin = int(model.tokens.find(ids, prompt + answer[: _visible(answer)], 0).last)
        if begin == 0:
            raise weft.errors.PositionError(
                f"nothing stands before {answer!r} in {prompt!r} for the model to go on from"
            )
        _sayable(model, ids[begin:], answer)
        begins.append(begin)
    return begins


def _sayable(model: Any, ids: Any, answer: str) -> None:
    """An answer that is not in the vocabulary cannot be given: "unknown" foretold as "unknown" would count as right."""
    unknown = model.tokens.data.get("unk_token")
    if unknown and unknown not in answer and unknown in model.tokens.pieces(ids):
        raise weft.errors.TokenError(
            f"this model's tokenizer has no token for part of {answer!r} (it gives {unknown}), so the model cannot say it; "
            "ask in words that it knows (tasks take words= or categories=)"
        )


def _visible(answer: str) -> int:
    """Up to where an answer's first visible character goes: some tokenizers drop or displace a space."""
    return len(answer) - len(answer.lstrip()) + 1


def _run(model: Any, rows: Sequence[tuple[str, str]], begins: Sequence[int], what: str) -> list[float]:
    found: list[float] = []
    for at in range(0, len(rows), ROWS):
        found += _some(model, rows[at : at + ROWS], begins[at : at + ROWS], what)
    return found


def _some(model: Any, rows: Sequence[tuple[str, str]], begins: Sequence[int], what: str) -> list[float]:
    """Per row, over the answer's tokens: their summed log-probability ("score"), or how many were "missed"."""
    import torch

    with model.session() as session:
        run = session.run([prompt + answer for prompt, answer in rows])
        first = run.start + torch.tensor(begins)
        low = int(first.min())  # what lies before every answer is not looked at
        tokens = run.tokens[:, low:]
        mine = (torch.arange(low, run.pos)[None, :] >= first[:, None]).float()
        logits = run.logits[:, low - 1 : -1]
        if what == "score":
            each = torch.log_softmax(logits, -1).gather(-1, tokens[..., None])[..., 0]
        else:
            each = (logits.argmax(-1) != tokens).float()
        total = (each * mine).sum(-1).save("total")
    return [float(value) for value in total.value]
