"""What heads say when the function is shown, and how much of it each of them brings back when it is not.

means(model, asked)                  # z̄ [layer, head, d_head] over the prompts answered rightly
indirect_effects(model, asked, z̄)    # P(answer | z̄ put into one head) − P(answer), [layer, head, prompt]
written(model, z̄, heads)             # what these heads write into the stream: W_O^h z̄, [head, d_model]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

import weft
from weft.methods.functions.prompts import Asked
from weft.methods.parts import Parts, split
from weft.methods.places import sharp

PART = 4096
"""Rows of patched runs in one session."""
Head = tuple[int, int]


class Means(NamedTuple):
    """Mean head outputs [layer, head, d_head], which prompts were answered rightly [row], and the record."""

    z: torch.Tensor
    right: torch.Tensor
    record: Any


def means(model: Any, asked: Asked, plan: str, only_right: bool = True) -> Means:
    """Over the prompts that the model answers rightly (or all of them), at their last token."""
    with model.session(plan=plan) as s:
        run = s.run(asked.texts)
        right = (run.logits[:, -1].argmax(-1) == asked.ids).float().save("right")  # type: ignore[attr-defined]
        counted = right if only_right else torch.ones(len(asked.texts))
        weights = (counted / counted.sum())[:, None, None]
        z = torch.stack([(sharp(run.z[layer][:, -1]) * weights).sum(0) for layer in range(model.n_layers)])
        z.save("z")  # type: ignore[attr-defined]
    found = s.results
    if only_right and not bool(found["right"].any()):
        raise weft.errors.ProgramError(
            f"the model answers none of {len(asked.texts)} prompts with examples rightly, so there is no function to find: "
            f"the first is {asked.texts[0]!r}. Give more shots, a form= that it knows, or easier pairs; only_right=False "
            "takes the mean over all prompts, whatever it says"
        )
    return Means(found["z"], found["right"] > 0, s.record)


class Effects(NamedTuple):
    """Indirect effects [layer, head, prompt], P(answer) without a patch [prompt], records, and what was left out."""

    values: torch.Tensor
    before: torch.Tensor
    records: list[Any]
    stopped: str


def indirect_effects(model: Any, asked: Asked, z: torch.Tensor, plan: str, progress: bool) -> Effects:
    """Of every head; heads that an interruption left out are NaN."""
    heads = [(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
    rows = len(asked.texts)
    values = torch.full((len(heads), rows), torch.nan)
    records, before = [], torch.zeros(rows)
    with Parts("heads", split(len(heads), PART // rows), progress) as work:
        for part in work:
            with model.session(plan=plan) as s:
                base = s.run(asked.texts)
                weft.prob(sharp(base.logits[:, -1]), asked.ids).save("before")  # type: ignore[attr-defined]
                patched = [_patched(base, heads[i], z, asked.ids) for i in part]
                torch.stack(patched).save("patched")  # type: ignore[attr-defined]
            before = s.results["before"]
            values[list(part)] = (s.results["patched"] - before).to(values.dtype)
            records.append(s.record)
    return Effects(values.reshape(model.n_layers, model.n_heads, rows), before, records, work.stopped)


def _patched(base: Any, at: Head, z: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    run = base.fork()
    run.z[at[0]][:, -1, at[1]] = z[at]
    return weft.prob(sharp(run.logits[:, -1]), ids)


def written(model: Any, z: torch.Tensor, heads: Sequence[Head], plan: str) -> tuple[torch.Tensor, Any]:
    """What each of these heads writes when its output is its mean, [head, d_model]; and the record.

    The weight of the output projection alone: its bias belongs to the layer, not to a head, and would count n times. The
    weight is by query head, so heads that share keys and values are told apart.
    """
    with model.session(plan=plan) as s:
        made = [z[layer, head] @ sharp(model.W_O[layer][head]) for layer, head in heads]
        torch.stack(made).save("written")  # type: ignore[attr-defined]
    return s.results["written"], s.record


def ranked(effects: torch.Tensor) -> list[Head]:
    """Heads by average indirect effect [layer, head], the largest first; those that were not measured are left out."""
    n_heads = effects.shape[1]
    order = effects.nan_to_num(-torch.inf).flatten().argsort(descending=True, stable=True).tolist()
    return [divmod(i, n_heads) for i in order if not torch.isnan(effects.flatten()[i])]
