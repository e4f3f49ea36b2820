"""What the methods are asked: prompts of 64 tokens and a little more, in bobbin's words, for a random model.

A random model answers nothing rightly, so prompts are kept whatever it says: the methods' own functions are given them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

import weft
from sweeping.models import shared
from weft import tasks
from weft.bobbin import tokenizer
from weft.methods.filtering.pairs import Pairs, paired
from weft.methods.filtering.sheet import distinct
from weft.methods.functions.prompts import FORM, Asked, Examples
from weft.tasks.words.relations import RELATIONS

MODELS = {False: "gpt2", True: "tiny-words"}
"""The shape, by whether it is to be quick."""
SHOTS = 5
"""Examples in a prompt: half of what `function_vector` shows, which is 67 to 77 tokens. More tokens favour weft."""
QUESTION = (
    "The words of this list are of many kinds, and only one of them is of the kind in question. "
    "The others are not. Which of these is a kind of {}?"
)
DRAWN = 3
"""Pairs drawn for each one wanted: of many, two words of a list begin alike."""


@cache
def model(name: str) -> Any:
    """The random model with bobbin's tokenizer, whose tokens are its first ones."""
    return weft.load(shared(name), tokenizer=tokenizer.build(), name=name)


def shown(name: str, rows: int, *, shuffled: bool) -> Asked:
    """Prompts of examples of the plural; `shuffled`: with outputs that do not show it."""
    examples = Examples.of(model(name), RELATIONS["plural"].pairs, SHOTS, 0, 0.3, FORM)
    return examples.few_shot("valid", rows, shuffled=shuffled)


def pairs(name: str, count: int) -> Pairs:
    """Counterfactual pairs as `filter_heads` draws them, words of each told apart by their first tokens."""
    task = tasks.SelectOne(distractors=5, question=QUESTION)
    batch = task.sample(DRAWN * count, 0)
    kept = [row for row in range(len(batch)) if _told_apart(name, batch, row)][:count]
    if len(kept) < count:
        raise RuntimeError(
            f"{len(kept)} of {len(batch)} pairs have words that begin differently, and {count} are needed"
        )
    return paired(model(name), task, batch.take(kept), "first_token", len(batch))


def _told_apart(name: str, batch: Any, row: int) -> bool:
    words = dict.fromkeys((*batch.options[row], *batch.counterfactual.answers[row : row + 1]))
    return distinct(model(name), batch.prompts[row], list(words))


def ids(name: str, texts: Any) -> list[list[int]]:
    """The texts' tokens, a list a row."""
    found = model(name).tokens.encode(list(texts))
    return [row[start:] for row, start in zip(found.ids.tolist(), found.start.tolist(), strict=True)]


def lengths(rows: list[list[int]]) -> str:
    """How many rows of how many tokens."""
    sizes = [len(row) for row in rows]
    return f"{len(rows)} × {min(sizes)}–{max(sizes)} tokens"


def every_head(name: str, sample: int = 0) -> list[tuple[int, int]]:
    """All (layer, head); with `sample`, so many of them, spread evenly."""
    heads = [(layer, head) for layer in range(model(name).n_layers) for head in range(model(name).n_heads)]
    step = len(heads) / sample if 0 < sample < len(heads) else 1
    return [heads[int(i * step)] for i in range(min(sample or len(heads), len(heads)))]


def undecided(best: torch.Tensor, near: float) -> torch.Tensor:
    """Of scores [..., word]: whether the two highest are too near to say which is higher."""
    top = best.topk(2).values
    return top[..., 0] - top[..., 1] <= near
