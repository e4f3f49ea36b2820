"""A vector that is added to the stream: made, added up, tried, and put into a model for good.

s = result.steering
s.steer(model)                                          # a model of which every run has it
(ad + bc - ac).accuracy(model, pairs)           # of results: the paper's composition
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

import weft
from weft.methods.functions.prompts import FORM, Asked, Examples, Form
from weft.methods.parts import Parts
from weft.methods.places import sharp

PART = 4096


@dataclass(frozen=True)
class Steering:
    """`vector` [d_model], added to resid_post[layer] at the last token."""

    vector: torch.Tensor
    layer: int
    name: str = ""
    form: Form = FORM

    def steer(self, model: Any, scale: float = 1.0) -> Any:
        """A model whose every run, and every step of a generation, has the vector at its last token."""
        with model.edit() as steered:
            steered.resid_post[self.layer][:, -1] += self.vector * scale
        return steered

    def __add__(self, other: Any) -> Steering:
        return self._with(other, 1.0, "+")

    def __sub__(self, other: Any) -> Steering:
        return self._with(other, -1.0, "−")

    def _with(self, other: Any, sign: float, word: str) -> Steering:
        """With another vector, or that of a result; layer and form stay this one's."""
        other = getattr(other, "steering", other)
        if self.vector.shape != other.vector.shape:
            raise weft.errors.ShapeError(
                f"vectors of {self.vector.numel()} and {other.vector.numel()} dimensions are of different models"
            )
        return replace(self, vector=self.vector + sign * other.vector, name=f"{self.name} {word} {other.name}")

    def at(self, layer: int) -> Steering:
        """The same vector, added after another layer."""
        return replace(self, layer=layer)

    def accuracy(self, model: Any, pairs: Mapping[str, str], *, form: Form | None = None, plan: str = "auto") -> Any:
        """How often the first token of the output is the likeliest after a bare query with the vector: `tasks.Accuracy`."""
        examples = Examples(model, dict(pairs), {"all": tuple(pairs)}, 0, 0, form or self.form)
        asked = {"bare": examples.bare("all")}
        found = outcomes(model, asked, [Try("it", "bare", self.layer, self.vector)], plan, False).found
        return weft.tasks.Accuracy(tuple(found["it"].right.tolist()), "first token", 0.0)


class Try(NamedTuple):
    """One thing to be tried: a vector (or none) after a layer, on prompts by name."""

    name: Any
    prompts: str
    layer: int | None = None
    vector: torch.Tensor | None = None


class Outcome(NamedTuple):
    """Whether the likeliest token is the answer's first, and its probability, [row]."""

    right: torch.Tensor
    prob: torch.Tensor


class Tried(NamedTuple):
    """Outcomes by name, the records, and what an interruption left out."""

    found: dict[Any, Outcome]
    records: list[Any]
    stopped: str


def outcomes(model: Any, prompts: Mapping[str, Asked], tries: Sequence[Try], plan: str, progress: bool) -> Tried:
    """All tries, in one session or, where there are many rows, in several that can be stopped between."""
    parts: list[list[Try]] = [[]]
    rows = 0
    for each in tries:
        if rows > PART:
            parts.append([])
            rows = 0
        parts[-1].append(each)
        rows += len(prompts[each.prompts].texts)
    found: dict[Any, Outcome] = {}
    records = []
    with Parts("vectors", parts, progress) as work:
        for part in work:
            with model.session(plan=plan) as s:
                bases = {name: s.run(prompts[name].texts) for name in dict.fromkeys(each.prompts for each in part)}
                for number, each in enumerate(part):
                    _tried(bases[each.prompts], each, prompts[each.prompts].ids).save(f"{number}")
            for number, each in enumerate(part):
                right, prob = s.results[f"{number}"]
                found[each.name] = Outcome(right > 0, prob)
            records.append(s.record)
    return Tried(found, records, work.stopped)


def _tried(base: Any, each: Try, ids: torch.Tensor) -> Any:
    run = base
    if each.vector is not None:
        run = base.fork()
        run.resid_post[each.layer][:, -1] += each.vector
    logits = run.logits[:, -1]
    return torch.stack([(logits.argmax(-1) == ids).float(), weft.prob(sharp(logits), ids)])
