"""What a careful user writes by hand, for each task anew.

Patches are expanded into the batch in chunks, logits are made at the last position alone, base activations are cached,
inference_mode is on, a shared prefix is run once (i), and the faster of sdpa and eager is found by trying, as is the
size of the chunks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from sweeping.models import block
from sweeping.rivals import hooks
from sweeping.rivals.hooks import Handle, hooked, inputs, places
from sweeping.tasks import Data, pad

LIBRARY = "torch"
CANNOT = {"one_edit": "as hooks"}
setup = Handle
_CHOSEN: dict[tuple, tuple[str, int]] = {}
"""Attention and rows a chunk, for each sort of sweep, as they were found to be fastest."""


@torch.inference_mode()
def heads(handle: Handle, data: Data) -> torch.Tensor:
    shape, at = handle.shape, places(data)
    spans = [slice(head * shape.d_head, (head + 1) * shape.d_head) for head in range(shape.heads)]
    rows = torch.arange(len(data.clean))

    def write(x: torch.Tensor, kept: torch.Tensor, first: int, head: int) -> None:
        x[first + rows, at, spans[head]] = kept[rows, at, spans[head]]

    return _sweep(handle, data, shape.projection, True, write)


@torch.inference_mode()
def positions(handle: Handle, data: Data) -> torch.Tensor:
    batch = len(data.clean)

    def write(x: torch.Tensor, kept: torch.Tensor, first: int, place: int) -> None:
        x[first : first + batch, place] = kept[:, place]

    return _sweep(handle, data, "", False, write)


def _sweep(handle: Handle, data: Data, inside: str, before: bool, write: Callable) -> torch.Tensor:
    model, shape = handle.model, handle.shape
    modules = [block(model, shape, layer, inside) for layer in range(shape.layers)]
    kept: dict[int, torch.Tensor] = {}
    keep = [(module, before, lambda x, at=at: kept.__setitem__(at, x)) for at, module in enumerate(modules)]
    with hooked(*keep):
        model(**inputs(handle, data.clean), logits_to_keep=1, use_cache=False)
    corrupt = inputs(handle, data.corrupt)
    batch = len(data.corrupt)

    def chunk(patches: list[tuple[int, int]]) -> torch.Tensor:
        def apply(layer: int):
            mine = [(slot * batch, item) for slot, (where, item) in enumerate(patches) if where == layer]

            def patch(x: torch.Tensor) -> torch.Tensor:
                for first, item in mine:
                    write(x, kept[layer], first, item)
                return x

            return patch

        layers = {layer for layer, _ in patches}
        many = {name: value.repeat(len(patches), 1) for name, value in corrupt.items()}
        with hooked(*((modules[layer], before, apply(layer)) for layer in layers)):
            logits = model(**many, logits_to_keep=1, use_cache=False).logits[:, -1]
        return data.score(logits.unflatten(0, (len(patches), batch)))

    return _fastest(handle, data, chunk)


def _fastest(handle: Handle, data: Data, chunk: Callable) -> torch.Tensor:
    key = (handle.shape.name, len(data.clean), len(data.clean[0]), bool(data.others))
    key += (len(data.patches) > 2 * handle.shape.layers * handle.shape.heads,)
    if key not in _CHOSEN:
        _CHOSEN[key] = _try(handle, data, chunk)
    attention, rows = _CHOSEN[key]
    count = max(1, rows // len(data.clean))
    with _attention(handle, attention):
        pieces = [chunk(data.patches[i : i + count]) for i in range(0, len(data.patches), count)]
    return torch.cat(pieces)


def _try(handle: Handle, data: Data, chunk: Callable) -> tuple[str, int]:
    """What is fastest here; the first product of a kind is slow, so one chunk is run before any is timed."""
    patches = (data.patches * 128)[:128]
    chunk(patches[:1])
    found = {}
    for attention in ("sdpa", "eager"):
        for rows in (16, 64):
            count = max(1, rows // len(data.clean))
            started = time.perf_counter()
            with _attention(handle, attention):
                chunk(patches[:count])
            found[attention, rows] = (time.perf_counter() - started) / count
    return min(found, key=found.__getitem__)


class _attention:
    """The model's attention for a while; its configuration is left as it was."""

    def __init__(self, handle: Handle, name: str) -> None:
        self.model, self.name = handle.model, name

    def __enter__(self) -> None:
        self.before = self.model.config._attn_implementation
        self.model.set_attn_implementation(self.name)

    def __exit__(self, *error: object) -> None:
        self.model.set_attn_implementation(self.before)


def attribution(handle: Handle, data: Data) -> torch.Tensor:
    return hooks.attribution(handle, data, logits_to_keep=1, use_cache=False)


@torch.inference_mode()
def lens(handle: Handle, data: Data) -> torch.Tensor:
    return hooks.lens(handle, data, logits_to_keep=1, use_cache=False)


@torch.inference_mode()
def together(handle: Handle, data: Data) -> torch.Tensor:
    """All prompts in one padded batch, each row with its own edit."""
    taken = [row for _, row in data.patches]
    rows = [data.clean[row] for row in taken]
    with hooked(*_adding(handle, data, dict.fromkeys(range(len(rows)), -1))):
        logits = handle.model(**inputs(handle, rows), logits_to_keep=1, use_cache=False).logits[:, -1]
    return replace(data, answers=[data.answers[row] for row in taken]).score(logits)


@torch.inference_mode()
def prefixes(handle: Handle, data: Data) -> torch.Tensor:
    """The shared tokens once; then every prompt's own tokens in one batch, on the prefix's keys and values."""
    taken = [data.clean[row] for _, row in data.patches]
    common = (
        next(i for i, tokens in enumerate(zip(*taken, strict=True)) if len(set(tokens)) > 1) if len(taken) > 1 else 1
    )
    common = min(common, min(data.at))
    cache = handle.model(torch.tensor([taken[0][:common]]), logits_to_keep=1, use_cache=True).past_key_values
    cache.batch_repeat_interleave(len(taken))
    at = {slot: data.at[row] - common for slot, (_, row) in enumerate(data.patches)}
    with hooked(*_adding(handle, data, at)):
        own = torch.tensor([row[common:] for row in taken])
        logits = handle.model(own, past_key_values=cache, logits_to_keep=1).logits[:, -1]
    return replace(data, answers=[data.answers[row] for _, row in data.patches]).score(logits)


def _adding(handle: Handle, data: Data, at: dict[int, int]) -> list:
    """Hooks that add each row's vector at its layer and place."""
    pairs = []
    for layer in sorted({layer for layer, _ in data.patches}):

        def add(x: torch.Tensor, layer: int = layer) -> None:
            for slot, (where, row) in enumerate(data.patches):
                if where == layer:
                    x[slot, at[slot]] += data.vectors[row]

        pairs.append((block(handle.model, handle.shape, layer), False, add))
    return pairs


@torch.inference_mode()
def generation(handle: Handle, data: Data) -> torch.Tensor:
    """The decoding loop written out, so that nothing is done between steps but choosing tokens."""
    ids = torch.tensor(data.clean)

    def add(x: torch.Tensor) -> None:
        x[:, -1] += data.vectors[0]

    made, cache = [], None
    with hooked((block(handle.model, handle.shape, data.layer), False, add)):
        for _ in range(data.steps):
            out = handle.model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache, ids = out.past_key_values, out.logits[:, -1:].argmax(-1)
            made.append(ids)
    return torch.cat(made, 1)


__all__ = [
    "CANNOT",
    "LIBRARY",
    "attribution",
    "generation",
    "heads",
    "lens",
    "pad",
    "positions",
    "prefixes",
    "setup",
    "together",
]
