"""Plain hooks on a Llama-class model, for screening it without weft's own machinery.

seen = record(model, ids, "q")                         # {layer: [row, place, head, d_head]}
logits = run(model, ids, {("q", 3): edit})             # with edit(tensor) in place of layer 3's queries
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch

Edit = Callable[[torch.Tensor], torch.Tensor]
SITES = ("q", "z", "x")
"""Queries before rotary; each head's output before the output projection; the stream after a layer."""


def run(model: Any, ids: torch.Tensor, edits: Mapping[tuple[str, int], Edit] | None = None) -> torch.Tensor:
    """Logits [row, place, token] of ids [row, place], the named sites replaced by what the edits make of them."""
    with ExitStack() as stack, torch.no_grad():
        for (site, layer), edit in (edits or {}).items():
            stack.callback(_hook(model, site, layer, edit).remove)
        return model(input_ids=ids, use_cache=False).logits


def record(model: Any, ids: torch.Tensor, site: str) -> dict[int, torch.Tensor]:
    """A site at every layer: [row, place, head, d_head] for "q" and "z", [row, place, width] for "x"."""
    found: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Edit:
        def look(value: torch.Tensor) -> torch.Tensor:
            found[layer] = value.clone()
            return value

        return look

    run(model, ids, {(site, layer): keep(layer) for layer in range(model.config.num_hidden_layers)})
    return found


def _hook(model: Any, site: str, layer: int, edit: Edit) -> Any:
    block = model.model.layers[layer]
    heads = model.config.num_attention_heads

    def by_head(value: torch.Tensor) -> torch.Tensor:
        return value.unflatten(-1, (heads, -1))

    if site == "q":
        return block.self_attn.q_proj.register_forward_hook(lambda _m, _i, out: edit(by_head(out)).flatten(-2))
    if site == "z":
        return block.self_attn.o_proj.register_forward_pre_hook(
            lambda _m, given: (edit(by_head(given[0])).flatten(-2),)
        )
    return block.register_forward_hook(lambda _m, _i, out: edit(out))


def put(source: torch.Tensor, at: torch.Tensor, heads: list[int] | None = None) -> Edit:
    """Row by row, `source` in place of what stands at the places `at`: [row, n] each, of the given heads only.

    `source` has a value for each place: [row, n, …].
    """

    def edit(value: torch.Tensor) -> torch.Tensor:
        value = value.clone()
        rows = torch.arange(len(value))[:, None]
        if heads is None:
            value[rows, at] = source
        else:
            for head in heads:
                value[rows, at, head] = source[:, :, head]
        return value

    return edit


def taken(value: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """What stands at the places `at` [row, n] of a site: [row, n, …]."""
    return value[torch.arange(len(value))[:, None], at]
