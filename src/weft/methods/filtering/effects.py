"""What patched queries do: how often the target is chosen, and how far its score moves. Controls; single heads; sets."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from weft.methods.filtering.bench import stacked
from weft.methods.filtering.pairs import chosen
from weft.methods.filtering.patch import Head, averaged, patched, queries

if TYPE_CHECKING:
    from weft.methods.filtering.bench import Bench
    from weft.methods.filtering.pairs import Pairs
    from weft.methods.filtering.sheet import Place
    from weft.tasks import Accuracy

Sets = Mapping[Any, Sequence[Head]]
"""Sets of heads that are patched together, by any name."""


@dataclass(frozen=True)
class Effect:
    """Of each pair: whether the wanted word was chosen, and how much its score rose by the patch."""

    right: torch.Tensor
    moved: torch.Tensor
    chance: float

    @property
    def causality(self) -> Accuracy:
        """1[argmax over the options = wanted word], with Wilson's interval."""
        from weft.tasks import Accuracy

        return Accuracy(tuple(self.right.tolist()), "options", self.chance)

    @property
    def delta(self) -> float:
        """The mean rise of the wanted word's score."""
        return float(self.moved.mean())


def effects(
    bench: Bench,
    pairs: Pairs,
    sets: Sets,
    at: Sequence[Place],
    *,
    average: bool = False,
    same: bool = False,
    projectors: Mapping[Head, torch.Tensor] | None = None,
    what: str = "patching queries",
) -> dict[Any, Effect]:
    """The effect of each set: one session holds every set for some of the pairs, so that they share one base run.

    `average`: source queries are means over copies of the source with its answer swapped into each position. `same`: the
    source asks dst's own question, and the wanted word is dst's own answer. `projectors`: only that part of each query.
    """
    heads = sorted({head for members in sets.values() for head in members})
    scores: list[torch.Tensor] = []
    plain: list[torch.Tensor] = []
    for part in bench.parts(what, pairs.chunks()):
        prompts = part.same if same else part.src
        prompts, copies = averaged(part.task, prompts) if average else (prompts, 1)
        with bench.session() as s:
            base = s.run(part.dst.texts)
            own = part.dst.scores(base)
            taken = queries(s, prompts, heads, at, copies) if heads else {}
            rows = [
                part.dst.scores(patched(base, part.dst, at, {h: taken[h] for h in members}, projectors))
                if members
                else own
                for members in sets.values()
            ]
            stacked(rows).save("scores")
            own.save("before")
        scores.append(s.results["scores"])
        plain.append(s.results["before"])
    found = torch.cat(scores, 1)
    ran = pairs.take(range(found.shape[1]))  # all of them, unless it was stopped
    return _effects(ran, sets, found, torch.cat(plain), ran.answer if same else ran.target)


def _effects(
    pairs: Pairs, sets: Sets, scores: torch.Tensor, before: torch.Tensor, wanted: torch.Tensor
) -> dict[Any, Effect]:
    best, rows = chosen(scores, pairs.dst.options), torch.arange(len(pairs))
    chance = float((1 / pairs.dst.options.sum(-1)).mean())
    return {
        name: Effect(best[at] == wanted, scores[at][rows, wanted] - before[rows, wanted], chance)
        for at, name in enumerate(sets)
    }


def every_head(model: Any) -> list[Head]:
    """All (layer, head)."""
    return [(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]


def random_sets(model: Any, heads: Sequence[Head], count: int, seed: int) -> list[list[Head]]:
    """`count` sets of as many heads, none of them among `heads` (fewer heads, where not so many are left)."""
    others = [each for each in every_head(model) if each not in set(heads)]
    draw = random.Random(f"random heads {seed}")
    return [sorted(draw.sample(others, min(len(heads), len(others)))) for _ in range(count)] if heads else []


def pooled(found: Sequence[Effect]) -> Effect:
    """Several sets' effects as those of one with more pairs."""
    return Effect(torch.cat([each.right for each in found]), torch.cat([each.moved for each in found]), found[0].chance)
