"""Plain hooks on the model's default forward, one forward for each patch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sweeping.models import block, part, shared
from sweeping.tasks import Data, pad

LIBRARY = "torch"
CANNOT: dict[str, str] = {}


class Handle:
    def __init__(self, name: str) -> None:
        from sweeping.models import SHAPES

        self.model, self.shape = shared(name), SHAPES[name]


setup = Handle


@contextmanager
def hooked(*pairs) -> Iterator[None]:
    """Hooks as (module, before?, function of the value)."""
    handles = []
    for module, before, function in pairs:
        if before:
            handles.append(module.register_forward_pre_hook(lambda m, args, f=function: _replace(args, f)))
        else:
            handles.append(module.register_forward_hook(lambda m, args, out, f=function: _changed(out, f)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _replace(args, function):
    new = function(args[0])
    return None if new is None else (new, *args[1:])


def _changed(out, function):
    if not isinstance(out, tuple):
        return function(out)
    new = function(out[0])
    return None if new is None else (new, *out[1:])


def inputs(handle: Handle, rows: list[list[int]]) -> dict[str, torch.Tensor]:
    """What the model is called with: padding is spelled out only where there is some."""
    padded = pad(rows)
    if not bool(padded.start.any()):
        return {"input_ids": padded.ids}
    return {"input_ids": padded.ids, "attention_mask": padded.mask, "position_ids": padded.positions}


def places(data: Data) -> torch.Tensor:
    """The edited position of each row, counted in the padded batch."""
    start = pad(data.clean).start
    return start + torch.tensor(data.at) if data.at else torch.full_like(start, pad(data.clean).ids.shape[1] - 1)


@torch.no_grad()
def heads(handle: Handle, data: Data) -> torch.Tensor:
    model, shape = handle.model, handle.shape
    kept: dict[int, torch.Tensor] = {}
    outs = [block(model, shape, layer, shape.projection) for layer in range(shape.layers)]
    with hooked(*((out, True, lambda x, at=at: kept.__setitem__(at, x)) for at, out in enumerate(outs))):
        model(**inputs(handle, data.clean))
    corrupt, rows, at = inputs(handle, data.corrupt), torch.arange(len(data.clean)), places(data)

    found = []
    for layer, head in data.patches:
        span = slice(head * shape.d_head, (head + 1) * shape.d_head)

        def patch(x: torch.Tensor, layer: int = layer, span: slice = span) -> torch.Tensor:
            x[rows, at, span] = kept[layer][rows, at, span]
            return x

        with hooked((outs[layer], True, patch)):
            found.append(data.score(model(**corrupt).logits[:, -1]))
    return torch.stack(found)


@torch.no_grad()
def positions(handle: Handle, data: Data) -> torch.Tensor:
    model, shape = handle.model, handle.shape
    clean: dict[int, torch.Tensor] = {}
    blocks = [block(model, shape, layer) for layer in range(shape.layers)]
    with hooked(*((each, False, lambda x, at=at: clean.__setitem__(at, x)) for at, each in enumerate(blocks))):
        model(**inputs(handle, data.clean))
    corrupt = inputs(handle, data.corrupt)

    found = []
    for layer, place in data.patches:

        def patch(x: torch.Tensor, layer: int = layer, place: int = place) -> torch.Tensor:
            x[:, place] = clean[layer][:, place]
            return x

        with hooked((blocks[layer], False, patch)):
            found.append(data.score(model(**corrupt).logits[:, -1]))
    return torch.stack(found)


def sites(handle: Handle, taken: list[torch.Tensor | None]) -> list:
    """Hooks that put z, attn_out, mlp_out and resid_post of every layer into `taken`, in that order."""
    model, shape, n = handle.model, handle.shape, handle.shape.layers
    pairs = []
    for at, (inside, before) in enumerate(
        ((shape.projection, True), (shape.attention, False), ("mlp", False), ("", False))
    ):
        for layer in range(n):
            keep = lambda x, slot=at * n + layer: taken.__setitem__(slot, x)  # noqa: E731
            pairs.append((block(model, shape, layer, inside), before, keep))
    return pairs


def attribution(handle: Handle, data: Data, **options) -> torch.Tensor:
    count = 4 * handle.shape.layers
    clean: list = [None] * count
    corrupt: list = [None] * count
    with torch.no_grad(), hooked(*sites(handle, clean)):
        handle.model(**inputs(handle, data.clean), **options)
    with torch.enable_grad(), hooked(*sites(handle, corrupt)):
        logits = handle.model(**inputs(handle, data.corrupt), **options).logits[:, -1]
        gradients = torch.autograd.grad(data.score(logits).sum(), corrupt)
    pairs = zip(clean, corrupt, gradients, strict=True)
    return torch.stack([((a - b.detach()) * g).flatten(1).sum(1) for a, b, g in pairs])


@torch.no_grad()
def lens(handle: Handle, data: Data, **options) -> torch.Tensor:
    model, shape = handle.model, handle.shape
    kept: list = []
    blocks = [block(model, shape, layer) for layer in range(shape.layers)]
    with hooked(*((each, False, lambda x: kept.append(x[:, -1])) for each in blocks)):
        model(**inputs(handle, data.clean), **options)
    return torch.stack([data.score(model.lm_head(part(model, shape.final_norm)(x))) for x in kept])


@torch.no_grad()
def one_edit(handle: Handle, data: Data) -> torch.Tensor:
    def add(x: torch.Tensor) -> None:
        x[:, -1] += data.vectors[0]

    with hooked((block(handle.model, handle.shape, 0), False, add)):
        return handle.model(torch.tensor(data.clean)).logits[:, -1]


@torch.no_grad()
def together(handle: Handle, data: Data) -> torch.Tensor:
    found = []
    for layer, row in data.patches:

        def add(x: torch.Tensor, row: int = row) -> None:
            x[:, data.at[row] if data.at else -1] += data.vectors[row]

        with hooked((block(handle.model, handle.shape, layer), False, add)):
            logits = handle.model(torch.tensor([data.clean[row]])).logits[0, -1]
        found.append(logits[data.answers[row]] - logits.logsumexp(-1))
    return torch.stack(found)


prefixes = together


@torch.no_grad()
def generation(handle: Handle, data: Data) -> torch.Tensor:
    ids = torch.tensor(data.clean)

    def add(x: torch.Tensor) -> None:
        x[:, -1] += data.vectors[0]

    with hooked((block(handle.model, handle.shape, data.layer), False, add)):
        made = handle.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=data.steps, do_sample=False
        )
    return made[:, ids.shape[1] :]
