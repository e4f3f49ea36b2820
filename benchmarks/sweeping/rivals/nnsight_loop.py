"""nnsight: one trace for each patch, as its documentation writes it; (g) in one trace of many invokes."""

from __future__ import annotations

import torch

from sweeping.models import SHAPES, build, part, tokenizer
from sweeping.rivals.hooks import inputs, places
from sweeping.tasks import Data

LIBRARY = "nnsight"
CANNOT: dict[str, str] = {}


class Handle:
    def __init__(self, name: str) -> None:
        from nnsight import TransformersModel

        self.shape = SHAPES[name]
        self.module = build(name)
        words = tokenizer(self.shape.vocabulary)
        self.model = TransformersModel(self.module, tokenizer=words, task="text-generation")
        gpt2 = self.shape.family == "gpt2"
        self.blocks = self.model.transformer.h if gpt2 else self.model.model.layers
        self.embedding = self.model.transformer.wte if gpt2 else self.model.model.embed_tokens

    def attention(self, layer: int):
        return self.blocks[layer].attn if self.shape.family == "gpt2" else self.blocks[layer].self_attn

    def projection(self, layer: int):
        attention = self.attention(layer)
        return attention.c_proj if self.shape.family == "gpt2" else attention.o_proj


setup = Handle


@torch.no_grad()
def heads(handle: Handle, data: Data) -> torch.Tensor:
    import nnsight

    model, size, at = handle.model, handle.shape.d_head, places(data)
    projections = [handle.projection(layer) for layer in range(handle.shape.layers)]
    clean, corrupt, rows = inputs(handle, data.clean), inputs(handle, data.corrupt), torch.arange(len(data.clean))
    with model.trace(**clean):
        kept = nnsight.save([])
        for each in projections:
            kept.append(each.input[rows, at])
    found = []
    for layer, head in data.patches:
        span = slice(head * size, (head + 1) * size)
        with model.trace(**corrupt):
            projections[layer].input[rows, at, span] = kept[layer][:, span]
            score = data.score(model.lm_head.output[:, -1]).save()
        found.append(score)
    return torch.stack(found)


@torch.no_grad()
def positions(handle: Handle, data: Data) -> torch.Tensor:
    import nnsight

    model, blocks = handle.model, handle.blocks
    clean, corrupt = inputs(handle, data.clean), inputs(handle, data.corrupt)
    with model.trace(**clean):
        kept = nnsight.save([])
        for layer in range(handle.shape.layers):
            kept.append(blocks[layer].output.clone())
    found = []
    for layer, place in data.patches:
        with model.trace(**corrupt):
            blocks[layer].output[:, place] = kept[layer][:, place]
            score = data.score(model.lm_head.output[:, -1]).save()
        found.append(score)
    return torch.stack(found)


def attribution(handle: Handle, data: Data) -> torch.Tensor:
    """Gradients are asked for from the last site to the first, as nnsight wants; the weights take none."""
    import nnsight

    model, layers = handle.model, range(handle.shape.layers)
    clean, corrupt = inputs(handle, data.clean), inputs(handle, data.corrupt)
    handle.module.requires_grad_(False)
    try:
        with torch.no_grad(), model.trace(**clean):
            before = nnsight.save([])
            for layer in layers:
                before.append(handle.projection(layer).input)
                before.append(handle.attention(layer).output[0])
                before.append(handle.blocks[layer].mlp.output)
                before.append(handle.blocks[layer].output)
        with model.trace(**corrupt):
            handle.embedding.output.requires_grad_(True)
            sites = nnsight.save([])
            gradients = nnsight.save([])
            for layer in layers:
                sites.append(handle.projection(layer).input)
                sites.append(handle.attention(layer).output[0])
                sites.append(handle.blocks[layer].mlp.output)
                sites.append(handle.blocks[layer].output)
            with data.score(model.lm_head.output[:, -1]).sum().backward():
                for site in reversed(sites):
                    gradients.append(site.grad)
    finally:
        handle.module.requires_grad_(True)
    pairs = zip(before, sites, reversed(gradients), strict=True)
    effects = torch.stack([((a - b.detach()) * g).flatten(1).sum(1) for a, b, g in pairs])
    return effects.unflatten(0, (-1, 4)).transpose(0, 1).flatten(0, 1)  # [site, layer] as the others have it


@torch.no_grad()
def lens(handle: Handle, data: Data) -> torch.Tensor:
    import nnsight

    model, module = handle.model, handle.module
    with model.trace(**inputs(handle, data.clean)):
        kept = nnsight.save([])
        for layer in range(handle.shape.layers):
            kept.append(handle.blocks[layer].output[:, -1])
    norm = part(module, handle.shape.final_norm)
    return torch.stack([data.score(module.lm_head(norm(x))) for x in kept])


@torch.no_grad()
def one_edit(handle: Handle, data: Data) -> torch.Tensor:
    model, ids, vector = handle.model, torch.tensor(data.clean), data.vectors[0]
    with model.trace(ids):
        handle.blocks[0].output[:, -1] += vector
        logits = model.lm_head.output[:, -1].save()
    return logits


@torch.no_grad()
def together(handle: Handle, data: Data) -> torch.Tensor:
    import nnsight

    model = handle.model
    with model.trace() as tracer:
        found = nnsight.save({})
        for layer, row in data.patches:
            with tracer.invoke(torch.tensor([data.clean[row]])):
                handle.blocks[layer].output[:, -1] += data.vectors[row]
                found[row] = model.lm_head.output[:, -1]
    logits = torch.cat([found[row] for _, row in data.patches])
    answers = torch.tensor([data.answers[row] for _, row in data.patches])
    return logits[torch.arange(len(answers)), answers] - logits.logsumexp(-1)


@torch.no_grad()
def prefixes(handle: Handle, data: Data) -> torch.Tensor:
    model, found = handle.model, []
    for layer, row in data.patches:
        ids, at, vector = torch.tensor([data.clean[row]]), data.at[row], data.vectors[row]
        with model.trace(ids):
            handle.blocks[layer].output[:, at] += vector
            logits = model.lm_head.output[0, -1].save()
        found.append(logits[data.answers[row]] - logits.logsumexp(-1))
    return torch.stack(found)


@torch.no_grad()
def generation(handle: Handle, data: Data) -> torch.Tensor:
    model, ids, steps, vector = handle.model, torch.tensor(data.clean), data.steps, data.vectors[0]
    mask = torch.ones_like(ids)
    with model.generate(ids, attention_mask=mask, max_new_tokens=steps, do_sample=False) as tracer:
        for _ in tracer.iter[:steps]:
            handle.blocks[data.layer].output[:, -1] += vector
        made = tracer.result.save()
    return made[:, ids.shape[1] :]
