"""Batch: what can be computed at the same time is, whatever run or row it belongs to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

from weft.plan.pieces import Plan

GRAPHS = 8
"""A token in a pass with a graph holds about so many times the memory: every layer's activations stay."""


def batch(plan: Plan, most_tokens: int) -> Plan:
    """As few passes as the order of the runs and `most_tokens` packed tokens a pass allow, those with most work first."""
    bases = (number for number, piece in plan.pieces.items() if piece.run is None)
    by_depth: dict[int, list[list[int]]] = defaultdict(list)
    for number in bases:
        by_depth[len(plan.chain(number))].append([number])
    by_level: dict[tuple[int, bool, bool], list[list[int]]] = defaultdict(list)
    for fork in plan.forks:
        if plan.of_run[fork.run]:  # edits may need values of unedited runs of their level, which then come first
            by_level[fork.level, fork.edited, fork.grad].append(plan.of_run[fork.run])
    passes: list[tuple[int, ...]] = []
    for _, wholes in sorted(by_depth.items()):
        passes.extend(_fill(plan, wholes, most_tokens))
    for (_, _, grad), wholes in sorted(by_level.items()):
        passes.extend(_fill(plan, wholes, most_tokens // GRAPHS if grad else most_tokens))
    return replace(plan, passes=tuple(passes))


def _fill(plan: Plan, wholes: list[list[int]], most_tokens: int) -> Iterator[tuple[int, ...]]:
    """Chunks of what must not be divided (a run, or a base), each of at most so many tokens unless one alone has more."""
    chunk: list[int] = []
    size = 0
    for whole in sorted(wholes, key=lambda each: plan.pieces[each[0]].layer):
        tokens = _tokens(plan, whole)
        if chunk and size + tokens > most_tokens:
            yield tuple(_ordered(plan, chunk))
            chunk, size = [], 0
        chunk.extend(whole)
        size += tokens
    if chunk:
        yield tuple(_ordered(plan, chunk))


def _tokens(plan: Plan, numbers: Iterable[int]) -> int:
    return sum(plan.pieces[number].length for number in numbers)


def _ordered(plan: Plan, numbers: list[int]) -> list[int]:
    """Those that enter first, first; then those that stay longest; then equal lengths, and equal keys, side by side."""

    def key(number: int) -> tuple[int, ...]:
        piece = plan.pieces[number]
        return piece.layer, -piece.last, -piece.length, -1 if piece.before is None else piece.before, number

    return sorted(numbers, key=key)
