"""Where an MLP's neurons come from: one projection, a gate and one, or both in one; the other way round must fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from weft.errors import ModelError
from weft.models.inspecting.layer import Layer
from weft.models.inspecting.watch import same

Facts = dict[str, Any]


def neurons(layer: Layer, out: str, attention: set[str]) -> tuple[Facts, torch.Tensor]:
    """The facts of the MLP whose last projection is `out`, and what it reads."""
    post = layer.seen.took(out)
    assert post is not None
    order = list(layer.seen.given)
    sources = [
        path for path in layer.linears if path != out and path not in attention and order.index(path) < order.index(out)
    ]
    moved = [path for path in sources if not same(_after(layer, out, {path: lambda x: 0.5 * x}), post)]
    read = [path for path in moved if _width(layer, path) in (post.shape[-1], 2 * post.shape[-1])]
    widths = [_width(layer, path) // post.shape[-1] for path in read]
    if widths == [1]:
        found = {"mlp_in": layer.short(read[0])}
    elif widths == [2]:
        _check_halves(layer, out, read[0], post)
        found = {"gate_up": layer.short(read[0])}
    elif widths == [1, 1]:
        passes = [path for path in read if _linear(layer, out, path, post)]
        if len(passes) != 1:
            raise ModelError(
                f"which of {' and '.join(read)} is the gate cannot be told: the neurons are linear in {len(passes)} of them"
            )
        (up,) = passes
        found = {"gate": layer.short(next(path for path in read if path != up)), "mlp_in": layer.short(up)}
    else:
        raise ModelError(
            f"the neurons that {out} reads hang on {', '.join(moved) or 'no projection'}: neither one projection, "
            "nor a gate and one"
        )
    reads = layer.seen.took(read[0])
    assert reads is not None
    return {**found, "mlp_out": layer.short(out)}, reads


def _width(layer: Layer, path: str) -> int:
    value = layer.seen.gave(path)
    return 0 if value is None else value.shape[-1]


def _after(layer: Layer, out: str, changes: dict[str, Callable[[torch.Tensor], torch.Tensor]]) -> torch.Tensor | None:
    return layer.changed(changes).took(out)


def _linear(layer: Layer, out: str, path: str, post: torch.Tensor) -> bool:
    """Whether the neurons are turned round with what this gives, and doubled with it: what comes after the gate does that."""
    turned = _after(layer, out, {path: lambda x: -x})
    doubled = _after(layer, out, {path: lambda x: 2 * x})
    return same(turned, -post) and (same(doubled, 2 * post) or same(doubled, post))  # a norm undoes the doubling


def _check_halves(layer: Layer, out: str, path: str, post: torch.Tensor) -> None:
    def second(x: torch.Tensor) -> torch.Tensor:
        gate, up = x.chunk(2, dim=-1)
        return torch.cat([gate, -up], dim=-1)

    if not same(_after(layer, out, {path: second}), -post):
        raise ModelError(
            f"{path} gives a gate and neurons, but not the gate first and then the neurons; weft has no column for that"
        )
