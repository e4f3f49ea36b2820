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
    for name, task in state.kin.items():
        try:
            into[name] = (
                state.held
                if task == state.task
                else right_pairs(state.bench, task, state.pairs, state.seed + 1, state.mode)
            )
        except weft.errors.ProgramError as error:
            state.left_out[f"transfer: {name}"] = str(error)
            continue
        mine = task == state.task
        given[name] = (
            state.given if mine else predicates(state.bench, task, state.heads, state.at, state.mode, state.seed + 2)
        )
    rows = [
        [_share(generalise.transfer(state.bench, given[source], into[target], state.mode)) for target in into]
        for source in given
    ]
    if rows:
        state.add("transfer", rows, "from", "to", **{"from": list(given), "to": list(into)})


def _share(right: Sequence[bool | None]) -> float:
    told = [each for each in right if each is not None]
    return sum(told) / len(told) if told else float("nan")


def probe(state: State) -> None:
    if not isinstance(state.at[0], int):
        state.left_out["probe"] = "it needs queries of the last token: at=(-1,)"
        return
    found, chance = generalise.probe(state.bench, state.task, state.given, state.pairs, state.seed + 3)
    rows = [rate_of(right.tolist(), chance) for right in found.values()]
    state.add("probe", rows, "member", "measure", member=labels(list(found)), measure=RATE)
    state.arrays["probe"].attrs["chance"] = chance
