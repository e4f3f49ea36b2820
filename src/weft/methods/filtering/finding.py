"""Where the predicate is: three ways to find the heads."""

from __future__ import annotations

import torch

from weft.methods.filtering import effects as measured
from weft.methods.filtering import localise
from weft.methods.filtering.mask import learn_mask
from weft.methods.filtering.state import State


def every_head_alone(state: State) -> None:
    """Every head's query alone."""
    heads = measured.every_head(state.bench.model)
    found = measured.effects(
        state.bench, state.located, {head: [head] for head in heads}, state.at, what="patching each head's query"
    )
    shape = (state.bench.model.n_layers, state.bench.model.n_heads)
    for name, values in (
        ("causality", [e.causality.value for e in found.values()]),
        ("delta", [e.delta for e in found.values()]),
    ):
        state.add(name, torch.tensor(values).reshape(shape), "layer", "head")


def attention(state: State) -> None:
    if reason := state.bench.model.support("pattern"):
        state.left_out["attention"] = reason
        return
    state.add("attention", localise.attention(state.bench, state.located), "layer", "head")


def mask(state: State) -> None:
    """The learned mask, and the heads it keeps."""
    found = learn_mask(state.bench, state.train, state.at, state.how)
    state.add("mask", found.mask, "layer", "head")
    state.add("loss", found.loss, "step")
    state.heads = [
        (layer, head) for layer, head in measured.every_head(state.bench.model) if found.mask[layer, head] > state.keep
    ]
    if found.stopped:
        state.bench.stopped = f"in the mask: {found.stopped}"
