"""From what is asked for to the least work: the four passes of the planner, in order, each checked on what it gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from weft.plan.batch import batch
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
    """Every plan from what is asked for ("naive") to what is done ("batch")."""
    limit = DEFAULT.tokens if most_tokens is None else most_tokens
    passes: tuple[tuple[str, Callable[[Plan], Plan]], ...] = (
        ("share", share),
        ("prune", prune),
        ("suffix", suffix),
        ("batch", lambda plan: batch(plan, limit)),
    )
    found = [Stage("naive", check(naive(forks, layers)))]
    for name, each in passes:
        found.append(Stage(name, check(each(found[-1].plan))))
    return tuple(found)


def compiled(forks: tuple[Fork, ...], layers: int, most_tokens: int | None = None) -> Plan:
    """The plan with the least work."""
    return stages(forks, layers, most_tokens)[-1].plan
