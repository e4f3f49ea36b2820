"""Which heads and which layer, and what their vector does beside its controls."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr

import weft
from weft.methods.functions.effects import Head, written
from weft.methods.functions.prompts import Examples
from weft.methods.functions.steering import Outcome, Try, outcomes

SIZES = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144)
SHARE = 0.15
"""At most this share of all heads is summed when the number is chosen here."""
STATS = ["value", "low", "high", "n"]


class Choice(NamedTuple):
    """Heads, the vector that they write together, the layer after which it is added, and how that was chosen."""

    heads: list[Head]
    vector: torch.Tensor
    layer: int
    search: xr.DataArray
    records: list[Any]
    stopped: str


def choose(
    model: Any, examples: Examples, z: torch.Tensor, order: Sequence[Head], sizes: Sequence[int], layers: Sequence[int],
    plan: str, progress: bool,
) -> Choice:  # fmt: skip
    """By accuracy without examples on the queries kept for that; of equals, the likelier answer, then fewer heads."""
    each, record = written(model, z, order[: sizes[-1]], plan)
    sums = each.cumsum(0)
    asked = {"bare": examples.bare("valid")}
    tries = [Try((n, at), "bare", at, sums[n - 1]) for n in sizes for at in layers]
    tried = outcomes(model, asked, tries, plan, progress)
    scores = {key: (float(each.right.float().mean()), float(each.prob.mean())) for key, each in tried.found.items()}
    best = max(scores, key=lambda key: (round(scores[key][0], 6), round(scores[key][1], 3), -key[0], -key[1]))
    grid = [[scores.get((n, at), (np.nan,))[0] for at in layers] for n in sizes]
    search = xr.DataArray(np.array(grid), dims=("heads", "layer"), coords={"heads": list(sizes), "layer": list(layers)})
    return Choice(list(order[: best[0]]), sums[best[0] - 1], best[1], search, [record, *tried.records], tried.stopped)


def sizes_of(model: Any, n_heads: int | str, heads: Sequence[Head] | None) -> list[int]:
    """How many heads may be summed: `n_heads`, those that "auto" stands for, or as many as were given."""
    total = model.n_layers * model.n_heads
    if heads is not None:
        if n_heads != "auto":
            raise weft.errors.ProgramError(f"heads=… says which heads are summed, so leave out n_heads={n_heads!r}")
        return [len(heads)]
    if n_heads == "auto":
        return [n for n in SIZES if n <= max(1, int(total * SHARE))]
    if not isinstance(n_heads, int) or not 1 <= n_heads <= total:
        raise weft.errors.ProgramError(f'n_heads is "auto" or a number of heads from 1 to {total}, not {n_heads!r}')
    return [n_heads]


def layers_of(model: Any, layer: int | str) -> list[int]:
    """The layers after which a vector may be added."""
    if layer == "sweep":
        return list(range(model.n_layers))
    if not isinstance(layer, int) or not -model.n_layers <= layer < model.n_layers:
        raise weft.errors.ProgramError(f'layer is "sweep" or a layer from 0 to {model.n_layers - 1}, not {layer!r}')
    return [layer % model.n_layers]


def controlled(
    model: Any, z: torch.Tensor, choice: Choice, draws: int, seed: int, plan: str
) -> tuple[dict[str, list[torch.Tensor]], list[Any]]:
    """Vectors that should do nothing: of as many random heads, and random ones as long as the vector; and records.

    Of a vector that is the sum over all heads there are no other heads: then the second alone.
    """
    if not draws:
        return {}, []
    rng = random.Random(f"random heads {seed}")
    others = [(i, h) for i in range(model.n_layers) for h in range(model.n_heads) if (i, h) not in choice.heads]
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(draws, choice.vector.numel(), generator=generator).to(choice.vector)
    noise = noise / noise.norm(dim=1, keepdim=True) * choice.vector.norm()
    if not others:
        return {"random vectors": list(noise)}, []
    size = min(len(choice.heads), len(others))
    sets = [rng.sample(others, size) for _ in range(draws)]
    each, record = written(model, z, [head for one in sets for head in one], plan)
    sums = each.unflatten(0, (draws, size)).sum(1)
    return {"random heads": list(sums), "random vectors": list(noise)}, [record]


def tested(
    model: Any, examples: Examples, choice: Choice, controls: Mapping[str, list[torch.Tensor]],
    plan: str, progress: bool, only_right: bool = True,
) -> tuple[dict[str, xr.DataArray], list[Any], str]:  # fmt: skip
    """On the queries kept for the end, of those that the model answers with examples (or all of them)."""
    shown = examples.few_shot("test")
    first = outcomes(model, {"shown": shown}, [Try("with examples", "shown")], plan, False)
    right = first.found["with examples"].right
    known = [query for query, good in zip(shown.queries, right.tolist(), strict=True) if good or not only_right]
    if not known:
        raise weft.errors.ProgramError(
            f"the model answers none of the {len(right)} queries kept for the end, even with examples; "
            "give more pairs or shots; only_right=False asks all of them"
        )
    only = examples.only("test", known)
    prompts = {"zero-shot": only.bare("test"), "shuffled": only.few_shot("test", shuffled=True)}
    vectors = {"function vector": [choice.vector], **controls}
    tries = [Try((kind, "no vector", 0, None), kind) for kind in prompts]
    for kind in prompts:
        for name, each in vectors.items():
            layers = range(model.n_layers) if kind == "zero-shot" else [choice.layer]
            tries += [Try((kind, name, i, at), kind, at, v) for i, v in enumerate(each) for at in layers]
    tried = outcomes(model, prompts, tries, plan, progress)
    records = [*first.records, *tried.records]
    if tried.stopped:
        return {}, records, tried.stopped
    accuracy = {"with examples": right}
    for kind in prompts:
        accuracy[kind] = tried.found[kind, "no vector", 0, None].right
        for name, each in vectors.items():
            own = [tried.found[kind, name, i, choice.layer].right for i in range(len(each))]
            accuracy[f"{kind}, {name}"] = torch.cat(own)
    arrays = {"accuracy": intervals(accuracy)} | _curves(model, vectors, tried.found)
    return arrays, records, ""


def _curves(
    model: Any, vectors: Mapping[str, list[torch.Tensor]], found: Mapping[Any, Outcome]
) -> dict[str, xr.DataArray]:
    """By layer: accuracy, and the answer's probability; controls are means over their draws."""
    coords = {"vector": list(vectors), "layer": range(model.n_layers)}
    made: dict[str, xr.DataArray] = {}
    for name, part in (("curve", 0), ("probability", 1)):
        rows = [
            [
                float(torch.cat([found["zero-shot", vector, i, at][part].float() for i in range(len(each))]).mean())
                for at in range(model.n_layers)
            ]
            for vector, each in vectors.items()
        ]
        made[name] = xr.DataArray(np.array(rows), dims=("vector", "layer"), coords=coords)
    return made


def intervals(found: Mapping[str, torch.Tensor]) -> xr.DataArray:
    """[condition, value]: the share that is right, Wilson's interval and how many there were."""
    rows = []
    for right in found.values():
        accuracy = weft.tasks.Accuracy(tuple(bool(each) for each in right.tolist()), "first token", 0.0)
        rows.append([accuracy.value, *accuracy.interval, accuracy.n])
    return xr.DataArray(np.array(rows), dims=("condition", "value"), coords={"condition": list(found), "value": STATS})
