"""Prune: nothing above the last layer that anyone reads, and no edit whose effect nobody reads."""

from __future__ import annotations

from dataclasses import replace

from weft.plan.pieces import Plan


def prune(plan: Plan) -> Plan:
    """Cut every piece at the last layer it is needed in, and drop those that are needed in none."""
    forks = {fork.run: fork for fork in plan.forks}
    idle = {fork.run for fork in plan.forks if not fork.matters(plan.layers)}
    dropped = {n for n, piece in plan.pieces.items() if piece.run in idle and piece.row in plan.bases}
    last: dict[int, int] = {}
    for fork in plan.forks:
        for row in fork.tokens:
            for number in plan.chain(plan.bases[row]) if row in plan.bases else ():
                last[number] = max(last.get(number, -1), fork.last)
    for number, piece in plan.pieces.items():
        if piece.run is None or number in dropped:
            continue
        last[number] = forks[piece.run].last
        for before in plan.chain(number)[:-1]:
            last[before] = max(last.get(before, -1), last[number])
    pieces = {
        number: piece._replace(last=min(last[number], plan.layers - 1))
        for number, piece in plan.pieces.items()
        if number not in dropped
    }
    passes = (tuple(number for number in numbers if number not in dropped) for numbers in plan.passes)
    return replace(plan, pieces=pieces, passes=tuple(numbers for numbers in passes if numbers))
