"""How far the predicates of the found heads carry."""

from __future__ import annotations

from collections.abc import Sequence

import torch

import weft
from weft.methods.filtering import generalise
from weft.methods.filtering.pairs import Pairs, right_pairs
from weft.methods.filtering.predicate import Predicate, predicates
from weft.methods.filtering.state import RATE, State, labels, rate_of


def read_out(state: State) -> None:
    state.given = predicates(state.bench, state.task, state.heads, state.at, state.mode, state.seed + 2)
    if not state.given:
        state.left_out["predicates"] = "no prompt about any category was answered rightly"
        return
    vectors = torch.stack([each.vectors for each in state.given.values()])
    state.add(
        "predicates", vectors, "category", "member", "place", "direction",
        category=list(state.given), member=labels(state.heads), place=[str(place) for place in state.at],
    )  # fmt: skip


def union(state: State) -> None:
    if len(state.given) < 3 or len(state.task.categories) < state.task.distractors + 2:
        state.left_out["union"] = "it needs three categories, and others enough to fill a list"
        return
    found = generalise.union(state.bench, state.task, state.given, state.pairs, state.mode, state.seed)
    rows = [rate_of(each) for each in found]
    state.add("union", rows, "query", "measure", query=["sum", "sum, centred", "one alone"], measure=RATE)


def transfer(state: State) -> None:
    """The same heads' predicates, read from one task and put into another."""
    given: dict[str, dict[str, Predicate]] = {}
    into: dict[str, Pairs] = {}
    bench, mode = state.bench, state.mode
    for name, task in state.kin.items():
        if task == state.task:
            into[name], given[name] = state.held, state.given
            continue
        try:
            into[name] = right_pairs(bench, task, state.pairs, state.seed + 1, mode)
        except weft.errors.ProgramError as error:
            state.left_out[f"transfer: {name}"] = str(error)
            continue
        given[name] = predicates(bench, task, state.heads, state.at, mode, state.seed + 2)
    rows = [
        [_share(generalise.transfer(bench, given[source], into[target], mode)) for target in into] for source in given
    ]
    if rows:
        state.add("transfer", rows, "from", "to", **{"from": list(given), "to": list(into)})


def _share(right: Sequence[bool | None]) -> float:
    told = [each for each in right if each is not None]
    return sum(told) / len(told) if told else float("nan")


def probe(state: State) -> None:
    elsewhere = "" if state.at[0] == -1 else "keys are compared with queries of the last token: at=(-1,)"
    if reason := state.bench.model.support("k") or elsewhere:
        state.left_out["probe"] = reason
        return
    found, chance = generalise.probe(state.bench, state.task, state.given, state.pairs, state.seed + 3)
    rows = [rate_of(right.tolist(), chance) for right in found.values()]
    state.add("probe", rows, "member", "measure", member=labels(list(found)), measure=RATE)
    state.arrays["probe"].attrs["chance"] = chance
