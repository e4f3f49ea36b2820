"""What else is asked of a function vector: other forms of the prompt, what it unembeds to, and a vector made from that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr

import weft
from weft.methods.functions.evaluate import Choice, intervals
from weft.methods.functions.prompts import Asked, Examples, Form
from weft.methods.functions.steering import Try, outcomes
from weft.methods.places import numbers, sharp

Found = tuple[dict[str, xr.DataArray], list[Any]]
"""Arrays by name, and records."""


def template_gain(model: Any, examples: Examples, choice: Choice, templates: Sequence[Form], plan: str) -> Found:
    """Accuracy without examples in other forms, without and with the vector: "templates" [condition, value]."""
    if not templates:
        return {}, []
    prompts: dict[str, Asked] = {}
    for form in templates:
        prompts["…".join(form)] = replace(examples, form=form).bare("test")
    tries = [Try((name, ""), name) for name in prompts]
    tries += [Try((name, ", function vector"), name, choice.layer, choice.vector) for name in prompts]
    tried = outcomes(model, prompts, tries, plan, False)
    shown = {name + what: tried.found[name, what].right for name in prompts for what in ("", ", function vector")}
    return {"templates": intervals(shown)}, tried.records


def reconstruct(
    model: Any, examples: Examples, choice: Choice, steps: int, seed: int, plan: str, top: int = 100
) -> Found:
    """A vector trained to unembed as the function vector does, and what it does: section 3.2's test that there is more to
    a function vector than the words that it makes likelier."""
    if not steps:
        return {}, []
    with model.session(plan=plan) as s:
        torch.log_softmax(_unembedded(model, choice.vector), -1)[0].save("p")  # type: ignore[attr-defined]
    logs = s.results["p"]
    ids = logs.topk(min(top, logs.numel())).indices
    target = torch.softmax(logs[ids], -1)
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(choice.vector.shape, generator=generator).to(choice.vector)
    rebuilt = (start / start.norm() * choice.vector.norm()).requires_grad_()

    def loss(session: Any, batch: Any) -> Any:
        logits = _unembedded(session.model, rebuilt)[0, ids]
        return -(target * torch.log_softmax(logits, -1)).sum()

    fit = model.fit(loss, rebuilt, steps=steps, lr=0.1 * float(choice.vector.norm()) / choice.vector.numel() ** 0.5)
    made = rebuilt.detach()
    with model.session(plan=plan) as s:
        logits = _unembedded(model, made)
        weft.kl(logits[:, ids], logs[None, ids]).save("kl")  # type: ignore[attr-defined]
    prompts = {"bare": examples.bare("test")}
    vectors = {"function vector": choice.vector, "rebuilt from its words": made}
    tries = [Try(name, "bare", choice.layer, vector) for name, vector in vectors.items()]
    tried = outcomes(model, prompts, tries, plan, False)
    accuracy = intervals({name: each.right for name, each in tried.found.items()})
    arrays = {
        "rebuilt": accuracy.assign_attrs(kl=float(s.results["kl"])),
        "rebuilt_vector": xr.DataArray(numbers(made), dims=("d_model",)),
    }
    return arrays, [fit.record, s.record, *tried.records]


def read_out(model: Any, vector: torch.Tensor, n: int) -> Found:
    """The likeliest tokens if the vector were the whole stream at the end."""
    if not n:
        return {}, []
    with model.session() as s:
        logits = _unembedded(model, vector)
        top = torch.topk(torch.softmax(logits, -1)[0], n)
        top.values.save("p")  # type: ignore[attr-defined]
        top.indices.save("ids")  # type: ignore[attr-defined]
    words = [model.tokens.decode([token]) for token in s.results["ids"].tolist()]
    arrays = {
        "vocabulary": xr.DataArray(np.array(words), dims=("rank",)),
        "vocabulary_probability": xr.DataArray(numbers(s.results["p"]), dims=("rank",)),
    }
    return arrays, [s.record]


def _unembedded(model: Any, vector: torch.Tensor) -> torch.Tensor:
    """Logits [1, vocab] if the vector were the whole stream at the end."""
    return sharp(model.unembed(model.final_norm(vector[None].to(getattr(torch, model.card.dtype)))))
