"""What the heads do, held against controls."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

import weft
from weft.methods.filtering import effects as measured
from weft.methods.filtering import generalise, localise
from weft.methods.filtering.pairs import right_pairs
from weft.methods.filtering.patch import Head
from weft.methods.filtering.state import FEW, RATE, State, labels, rate
from weft.methods.filtering.subspace import check_weights, learn_subspace


def sets_of_heads(state: State) -> None:
    """The found sets against random ones, on pairs that none was found on."""
    bench = state.bench
    count = len(state.heads) or max(1, bench.model.n_layers * bench.model.n_heads * FEW // 1000)
    sets: dict[Any, list[Head]] = {state.called: state.heads} if state.heads else {}
    for name, array in (("attention", "attention"), ("single", "delta")):
        if array in state.arrays:
            sets[name] = localise.strongest(torch.tensor(state.arrays[array].values), count)
    if not sets:
        state.left_out["sets"] = "no head was kept by the mask, and neither of the other two parts was asked for"
        return
    drawn = {("random", number): heads for number, heads in enumerate(state.others(next(iter(sets.values()))))}
    every = {**sets, **drawn}
    averaged, plain = (
        measured.effects(bench, state.held, every, state.evaluate_at, average=average, what="patching sets of heads")
        for average in (True, False)
    )
    sizes = {name: len(heads) for name, heads in sets.items()}
    if drawn:
        sizes["random"] = len(drawn["random", 0])
        for found in (averaged, plain):
            found["random"] = measured.pooled([found[name] for name in drawn])
    rows = [
        [size, *rate(averaged[name].causality), *rate(plain[name].causality), averaged[name].delta]
        for name, size in sizes.items()
    ]
    names = list(sizes)
    measures = ["heads", "causality", "low", "high", "one_source", "one_source_low", "one_source_high", "delta"]
    state.add("sets", rows, "set", "measure", set=names, measure=measures)


def same_answer(state: State) -> None:
    """Sources that ask the prompt's own question: nothing has to change."""
    found = measured.effects(
        state.bench, state.held, {"these": state.heads}, state.evaluate_at, same=True, what="the same answer"
    )["these"]
    state.add("same_answer", [*rate(found.causality), found.delta], "measure", measure=[*RATE, "delta"])


def necessity(state: State) -> None:
    if reason := state.bench.model.support("scores"):
        state.left_out["necessity"] = reason
        return
    drawn = {("random", number): heads for number, heads in enumerate(state.others(state.heads))}
    found = localise.knocked_out(state.bench, state.held, {"none": [], state.called: state.heads, **drawn})
    if drawn:
        found["random"] = measured.pooled([found[name] for name in drawn])
    names = [name for name in ("none", state.called, "random") if name in found]
    rows = [rate(found[name].causality) for name in names]
    state.add("necessity", rows, "set", "measure", set=names, measure=["accuracy", "low", "high"])


def looks(state: State) -> None:
    if reason := state.bench.model.support("pattern"):
        state.left_out["looks"] = reason
        return
    values = localise.looks(state.bench, state.held, state.heads, state.at)
    state.add("looks", values, "when", "item", when=["before", "after"], item=["answer", "target", "other options"])


def subspace(state: State) -> None:
    elsewhere = "" if state.at == (-1,) else "directions are learned of queries at the last token alone: at=(-1,)"
    if reason := check_weights(state.bench.model) or elsewhere:
        state.left_out["subspace"] = reason
        return
    found = learn_subspace(state.bench, state.train, state.heads, state.how)
    state.add("subspace", found.mask, "member", "direction", member=labels(state.heads))
    state.add("rank", (found.mask > state.keep).sum(-1), "member", member=labels(state.heads))
    if found.stopped:
        state.bench.stopped = f"in the subspace: {found.stopped}"
        return
    ways = {
        "whole query": None,
        "subspace": found.projectors(state.keep),
        "random directions": found.shuffled(state.seed, state.keep),
    }
    rows = [
        rate(measured.effects(state.bench, state.held, {"m": state.heads}, state.at, projectors=way)["m"].causality)
        for way in ways.values()
    ]
    state.add("subspace_causality", rows, "part", "measure", part=list(ways), measure=RATE)


def question_first(state: State) -> None:
    """The same task with the question before the list, and items' residuals exchanged in both."""
    names = {False: "list first", True: "question first"}
    ours = state.task.question_first
    formats = {names[ours]: state.held}
    try:
        other = replace(state.task, question_first=not ours)
        formats[names[not ours]] = right_pairs(state.bench, other, state.pairs, state.seed + 1, state.mode)
    except weft.errors.ProgramError as error:
        state.left_out[names[not ours]] = str(error)
    swapped = [
        [float(layer.float().mean()) for layer in generalise.residual_swap(state.bench, pairs)]
        for pairs in formats.values()
    ]
    state.add("residual_swap", swapped, "format", "layer", format=list(formats))
    if state.heads:
        rows = [
            rate(measured.effects(state.bench, pairs, {"m": state.heads}, state.at)["m"].causality)
            for pairs in formats.values()
        ]
        state.add("format", rows, "format", "measure", format=list(formats), measure=RATE)
