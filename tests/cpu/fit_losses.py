"""The same trainings as losses for model.fit, used here and through a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Loss = Callable[[Any, Any], Any]


def exchange(rotation: torch.Tensor, layer: int) -> Loss:
    """DAS: what the source run has in the plane takes the place of what the base run has there."""

    def loss(s, batch):
        source, run = s.run(batch["source"]), s.run(batch["base"])
        target = source.logits[:, -1].log_softmax(-1)
        here = run.resid_post[layer][:, -1]
        run.resid_post[layer][:, -1] = here + (source.resid_post[layer][:, -1] - here) @ rotation @ rotation.T
        logits = run.logits[:, -1].log_softmax(-1)
        return (target.exp() * (target - logits)).sum(-1).mean()

    return loss


def masked(mask: torch.Tensor, l1: float) -> Loss:
    """DCM: each head from the base run, or as far as the mask goes from the source run."""

    def loss(s, batch):
        source, run = s.run(batch["source"]), s.run(batch["base"])
        target = source.logits[:, -1].log_softmax(-1)
        for layer in range(mask.shape[0]):
            weight = mask[layer][:, None]
            run.z[layer][:, -1] = (1 - weight) * run.z[layer][:, -1] + weight * source.z[layer][:, -1]
        logits = run.logits[:, -1].log_softmax(-1)
        return (target.exp() * (target - logits)).sum(-1).mean() + l1 * mask.abs().sum()

    return loss


def start_of(rows: int, columns: int = 2, seed: int = 3) -> torch.Tensor:
    """A random orthonormal basis to begin with."""
    return torch.linalg.qr(torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))).Q
