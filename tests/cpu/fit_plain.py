"""Training loops as one writes them by hand: hooks, torch.optim, a batch a step. Nothing of weft's."""

from __future__ import annotations

import torch
from torch import nn


def das(
    module: nn.Module, layer: int, start: torch.Tensor, data: dict[str, torch.Tensor], size: int, steps: int, lr: float
):
    """DAS at resid_post[layer], last position: the losses [steps] and the learned basis."""
    rotation = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([rotation], lr=lr)
    losses, block = [], module.transformer.h[layer]
    held: dict[str, torch.Tensor] = {}

    def keep(_, __, output):
        held["source"] = output[:, -1]

    def exchange(_, __, output):
        changed = output.clone()
        changed[:, -1] = output[:, -1] + (held["source"] - output[:, -1]) @ rotation @ rotation.T
        return changed

    for parameter in module.parameters():
        parameter.requires_grad_(False)
    for step in range(steps):
        rows = [(step * size + n) % len(data["base"]) for n in range(size)]
        hook = block.register_forward_hook(keep)
        with torch.no_grad():
            target = module(data["source"][rows]).logits[:, -1].log_softmax(-1)
        hook.remove()
        hook = block.register_forward_hook(exchange)
        logits = module(data["base"][rows]).logits[:, -1].log_softmax(-1)
        hook.remove()
        loss = (target.exp() * (target - logits)).sum(-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            q, r = torch.linalg.qr(rotation)
            rotation.copy_(q * torch.where(r.diagonal() < 0, -1.0, 1.0))
        losses.append(float(loss.detach()))
    return torch.tensor(losses, dtype=torch.float64), rotation.detach()


def head_mask(
    module: nn.Module, start: torch.Tensor, data: dict[str, torch.Tensor], size: int, steps: int, lr: float, l1: float
):
    """A mask over heads [layer, head] (DCM): each head's z at the last position from base or, unmasked, from source."""
    mask = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([mask], lr=lr)
    layers, heads = start.shape
    held: dict[int, torch.Tensor] = {}
    losses = []

    def keep(layer):
        def hook(_, args):
            held[layer] = args[0][:, -1]

        return hook

    def mix(layer):
        def hook(_, args):
            z = args[0].clone()
            weight = mask[layer].repeat_interleave(z.shape[-1] // heads)
            z[:, -1] = (1 - weight) * args[0][:, -1] + weight * held[layer]
            return (z,)

        return hook

    for parameter in module.parameters():
        parameter.requires_grad_(False)
    for step in range(steps):
        rows = [(step * size + n) % len(data["base"]) for n in range(size)]
        blocks = [module.transformer.h[layer].attn.c_proj for layer in range(layers)]
        hooks = [block.register_forward_pre_hook(keep(layer)) for layer, block in enumerate(blocks)]
        with torch.no_grad():
            target = module(data["source"][rows]).logits[:, -1].log_softmax(-1)
        for hook in hooks:
            hook.remove()
        hooks = [block.register_forward_pre_hook(mix(layer)) for layer, block in enumerate(blocks)]
        logits = module(data["base"][rows]).logits[:, -1].log_softmax(-1)
        for hook in hooks:
            hook.remove()
        loss = (target.exp() * (target - logits)).sum(-1).mean() + l1 * mask.abs().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            mask.clamp_(0, 1)
        losses.append(float(loss.detach()))
    return torch.tensor(losses, dtype=torch.float64), mask.detach()
