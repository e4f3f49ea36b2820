"""pyvene: one intervenable model and one forward for each patch, source activations gathered as it does."""

from __future__ import annotations

import torch

from sweeping.models import SHAPES, build
from sweeping.tasks import Data

LIBRARY = "pyvene"
CANNOT = {
    "generation": "its generate() intervenes at positions of the prompt; no way was found to name each step's own",
    "attribution": "its interventions give no gradients at sites",
    "lens": "it collects a site at a time; no part for the unembedding",
    "ragged": "positions are given a batch, for prompts of one length",
}


class Handle:
    def __init__(self, name: str) -> None:
        self.shape = SHAPES[name]
        self.model = build(name)
        self.model.set_attn_implementation("eager")  # as its own loaders do


setup = Handle


def _intervenable(handle: Handle, layer: int, component: str, unit: str = "pos", kind: str = "VanillaIntervention"):
    import pyvene

    what = {"layer": layer, "component": component, "unit": unit, "intervention_type": getattr(pyvene, kind)}
    return pyvene.IntervenableModel(pyvene.IntervenableConfig([what]), model=handle.model)


def _forward(model, base: torch.Tensor, places, **given) -> torch.Tensor:
    _, out = model({"input_ids": base}, unit_locations={"sources->base": places}, **given)
    return out.logits


@torch.no_grad()
def heads(handle: Handle, data: Data) -> torch.Tensor:
    if data.ragged:
        raise NotImplementedError(CANNOT["ragged"])
    base, source = torch.tensor(data.corrupt), torch.tensor(data.clean)
    last, batch, found = base.shape[1] - 1, len(base), []
    for layer, head in data.patches:
        model = _intervenable(handle, layer, "head_attention_value_output", "h.pos")
        place = [[[[head]] * batch, [[last]] * batch]]
        logits = _forward(model, base, (place, place), sources=[{"input_ids": source}])
        found.append(data.score(logits[:, -1]))
    return torch.stack(found)


@torch.no_grad()
def positions(handle: Handle, data: Data) -> torch.Tensor:
    base, source = torch.tensor(data.corrupt), torch.tensor(data.clean)
    found = []
    for layer, place in data.patches:
        model = _intervenable(handle, layer, "block_output")
        logits = _forward(model, base, place, sources=[{"input_ids": source}])
        found.append(data.score(logits[:, -1]))
    return torch.stack(found)


def _added(handle: Handle, data: Data, ids: torch.Tensor, layer: int, row: int, at: int) -> torch.Tensor:
    model = _intervenable(handle, layer, "block_output", kind="AdditionIntervention")
    given = data.vectors[row].expand(len(ids), 1, -1)
    return _forward(model, ids, at, source_representations=dict.fromkeys(model.interventions, given))


@torch.no_grad()
def one_edit(handle: Handle, data: Data) -> torch.Tensor:
    ids = torch.tensor(data.clean)
    return _added(handle, data, ids, 0, 0, ids.shape[1] - 1)[:, -1]


@torch.no_grad()
def together(handle: Handle, data: Data) -> torch.Tensor:
    found = []
    for layer, row in data.patches:
        ids = torch.tensor([data.clean[row]])
        at = data.at[row] if data.at else ids.shape[1] - 1
        logits = _added(handle, data, ids, layer, row, at)[0, -1]
        found.append(logits[data.answers[row]] - logits.logsumexp(-1))
    return torch.stack(found)


prefixes = together
