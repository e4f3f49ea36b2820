"""A predicate as a vector a head: read out of some prompts, put into any other.

fruit = found.predicate("fruit")
fruit.apply(model, prompts)                            # which option the model then chooses
both = fruit.combine(found.predicate("tool"))          # a fruit or a tool: the queries' sum
fruit.write(run)                                       # in a session of your own
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

import weft
from weft.methods.filtering.bench import Bench, stacked
from weft.methods.filtering.pairs import ROWS, chosen, first
from weft.methods.filtering.patch import Head, patched, queries, spot
from weft.methods.filtering.sheet import Place, Sheet, sheet

if TYPE_CHECKING:
    from weft.tasks import Prompts

SOURCES = 10
"""Prompts that a predicate is the mean of."""


@dataclass(frozen=True, eq=False)
class Predicate:
    """`vectors` [head, place, d_head]: what the queries of `heads` at the places `at` are set to."""

    name: str
    heads: tuple[Head, ...]
    vectors: torch.Tensor = field(repr=False)
    at: tuple[Place, ...] = (-1,)
    mode: str = "first_token"

    def combine(self, *others: Predicate, centre: Predicate | None = None) -> Predicate:
        """The union of predicates: the sum of their queries.

        With `centre`, a mean of many predicates, what all of them share is counted once: centre + Σ (each − centre).
        """
        for other in others:
            if (other.heads, other.at) != (self.heads, self.at):
                raise weft.errors.ProgramError(
                    f"{self.name} and {other.name} are queries of different heads or places, which have no sum; take both "
                    "from one result: found.predicate(a).combine(found.predicate(b))"
                )
        total = torch.stack([self.vectors, *(other.vectors for other in others)]).sum(0)
        total = total if centre is None else total - len(others) * centre.vectors
        return Predicate(" or ".join([self.name, *(o.name for o in others)]), self.heads, total, self.at, self.mode)

    __add__ = combine

    def queries(self) -> dict[Head, torch.Tensor]:
        """By head: [1, place, d_head]."""
        return {head: vector[None] for head, vector in zip(self.heads, self.vectors, strict=True)}

    def write(self, run: Any) -> None:
        """Set the queries in a run of your own. Places that are roles need a task's prompts: use `apply`."""
        for (layer, head), vector in zip(self.heads, self.vectors, strict=True):
            for place, value in zip(self.at, vector, strict=True):
                if isinstance(place, str):
                    raise weft.errors.PositionError(
                        f"this predicate stands at the role {place!r}, which only prompts of a task have; apply it to "
                        "those, or find heads with at=(-1,)"
                    )
                run.q[layer][(*spot(run, place), head)] = value

    def apply(self, model: Any, prompts: Prompts) -> tuple[str, ...]:
        """The option of each prompt of a task that the model chooses with this predicate; "" where two tie."""
        return answered(Bench(model), prompts, [self] * len(prompts), self.mode)


def mean(given: Sequence[Predicate]) -> Predicate:
    """What these predicates have in common."""
    first = given[0]
    vectors = torch.stack([each.vectors for each in given]).mean(0)
    return Predicate("mean", first.heads, vectors, first.at, first.mode)


def answered(bench: Bench, prompts: Prompts, given: Sequence[Predicate], mode: str) -> tuple[str, ...]:
    """The options chosen when each prompt has a predicate of its own; all are of the same heads and places."""
    asked = sheet(bench.model, prompts, [()] * len(prompts), mode)
    size, said = max(1, ROWS // asked.each), []
    for at in range(0, len(asked), size):
        rows = range(at, min(at + size, len(asked)))
        said += _answered(bench, asked.take(rows), [given[row] for row in rows])
    return tuple(said)


def _answered(bench: Bench, part: Sheet, given: Sequence[Predicate]) -> list[str]:
    vectors = torch.stack([each.vectors for each in given], 1)  # [head, row, place, d_head]
    taken = dict(zip(given[0].heads, vectors, strict=True))
    with bench.session() as s:
        scores = part.scores(patched(s.run(part.texts), part, given[0].at, taken)).save("scores")
    best = chosen(scores.value, part.options).tolist()
    return [words[at] if at >= 0 else "" for words, at in zip(part.words, best, strict=True)]


def predicates(
    bench: Bench, task: Any, heads: Sequence[Head], at: Sequence[Place], mode: str, seed: int, count: int = SOURCES
) -> dict[str, Predicate]:
    """Each category's predicate: the mean query over `count` prompts about it (that the model answers rightly).

    Categories of which it answers none in many tries are left out.
    """
    prompts = _about(bench, task, mode, seed, count)
    found: dict[str, list[torch.Tensor]] = {}
    names, rows = list(prompts), [inputs for each in prompts.values() for inputs in each]
    owners = [name for name, each in prompts.items() for _ in each]
    for start in range(0, len(rows), ROWS):
        with bench.session() as s:
            taken = queries(s, task.prompts(rows[start : start + ROWS]), heads, at)
            seen = stacked([taken[head] for head in heads], 1).save("queries")
        for name, value in zip(owners[start : start + ROWS], seen.value, strict=True):
            found.setdefault(name, []).append(value)
    return {
        name: Predicate(name, tuple(heads), torch.stack(found[name]).mean(0).detach().clone(), tuple(at), mode)
        for name in names
    }


def _about(bench: Bench, task: Any, mode: str, seed: int, count: int) -> dict[str, list[Any]]:
    """Causal inputs of up to `count` prompts about each category, answered rightly unless the bench takes all."""
    found: dict[str, list[Any]] = {name: [] for name in sorted(task.categories)}
    size = count * len(found)
    for batch_seed in range(seed, seed + 3):
        batch = task.sample(size, batch_seed)
        wanted = [
            inputs for both in zip(batch.inputs, batch.counterfactual.inputs, strict=True) for inputs in both
            if len(found[inputs["category"]]) < count
        ]  # fmt: skip
        if wanted:
            prompts = task.prompts(wanted)
            good = first(bench, prompts, mode).tolist() if bench.only_right else [True] * len(wanted)
            for inputs, right in zip(wanted, good, strict=True):
                if right and len(found[inputs["category"]]) < count:
                    found[inputs["category"]].append(inputs)
        if all(len(each) >= count for each in found.values()):
            break
    return {name: each for name, each in found.items() if each}


__all__ = ["Predicate", "answered", "mean", "predicates"]
