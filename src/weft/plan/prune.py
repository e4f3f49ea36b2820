"""Prune: nothing above the last site that anyone reads, and no edit whose effect nobody reads."""

from __future__ import annotations

from dataclasses import replace

from weft.plan.forks import Fork
from weft.plan.pieces import Plan

Depth = tuple[int, bool]
"""The last layer that is needed, and whether what comes after `z` in it is needed too."""


def prune(plan: Plan) -> Plan:
    """Cut every piece at the last site it is needed for, and drop those that are needed for none."""
    forks = {fork.run: fork for fork in plan.forks}
    idle = {fork.run for fork in plan.forks if not fork.matters(plan.layers)}
    dropped = {n for n, piece in plan.pieces.items() if piece.run in idle and piece.row in plan.bases}
    depths: dict[int, Depth] = {}
    for fork in plan.forks:
        matters = fork.matters(plan.layers)
        for at, row in enumerate(fork.tokens):
            for number in plan.chain(plan.bases[row]) if row in plan.bases else ():
                depths[number] = max(depths.get(number, (-1, False)), _of_base(fork, at, matters))
    for number, piece in plan.pieces.items():
        if piece.run is None or number in dropped:
            continue
        fork = forks[piece.run]
        depths[number] = fork.last, not fork.half
        for before in plan.chain(number)[:-1]:
            depths[before] = max(depths.get(before, (-1, False)), (fork.last, False))
    pieces = {
        number: piece._replace(last=depths[number][0], half=not depths[number][1] and depths[number][0] >= 0)
        for number, piece in plan.pieces.items()
        if number not in dropped
    }
    passes = (tuple(number for number in numbers if number not in dropped) for numbers in plan.passes)
    return replace(plan, pieces=pieces, passes=tuple(numbers for numbers in passes if numbers))


def _of_base(fork: Fork, at: int, matters: bool) -> Depth:
    """How much of its base a row of a run needs."""
    whole = fork.last, not fork.half
    if not (matters and fork.own(at)):
        return whole
    entry = fork.layer - 1, True
    keys = (fork.last, False) if fork.first[at] else (-1, False)
    return max(entry, keys if fork.within(at) else whole)
