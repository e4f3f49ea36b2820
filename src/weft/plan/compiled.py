"""From what is asked for to the least work: the four passes of the planner, in order, each checked on what it gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from weft.plan.batch import batch
from weft.plan.cost import layer_tokens
from weft.plan.forks import Fork
from weft.plan.memory import DEFAULT
from weft.plan.pieces import Plan, check, naive
from weft.plan.prune import prune
from weft.plan.share import share
from weft.plan.suffix import suffix


class Stage(NamedTuple):
    """A plan, and the name of the pass that made it."""

    name: str
    plan: Plan


def stages(forks: tuple[Fork, ...], layers: int, most_tokens: int | None = None) -> tuple[Stage, ...]:
    """Every plan from what is asked for ("naive") to what is done ("batch").

    Sharing costs more than it saves where runs have little in common: then each run stays by itself.
    """
    limit = DEFAULT.tokens if most_tokens is None else most_tokens
    first = Stage("naive", check(naive(forks, layers)))
    shared = _through(
        first, (("share", share), ("prune", prune), ("suffix", suffix), ("batch", lambda plan: batch(plan, limit)))
    )
    by_itself = sum(len(row) * (fork.last + 1) for fork in forks for row in fork.tokens)
    if layer_tokens(shared[-1].plan) <= by_itself:
        return shared
    return _through(first, (("prune", prune), ("batch", lambda plan: batch(plan, limit))))


def _through(first: Stage, passes: tuple[tuple[str, Callable[[Plan], Plan]], ...]) -> tuple[Stage, ...]:
    found = [first]
    for name, each in passes:
        found.append(Stage(name, check(each(found[-1].plan))))
    return tuple(found)
