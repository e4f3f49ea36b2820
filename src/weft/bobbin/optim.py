"""The optimiser: Muon for the matrices of the layers, Adam for everything else.

optimizer = Optimizer(model)
optimizer.step(scale=0.5)                              # half the learning rates
optimizer.state()                                      # tensors by name, as `restore` takes them

Muon (Keller Jordan, 2024) turns a matrix's momentum into the nearest one whose singular values are all about 1, so that rare
directions are learned as fast as common ones. Matrices of one shape are turned at once, in the type that the processor
multiplies sooner.
"""

from __future__ import annotations

from typing import Any

import torch

from weft.bobbin.forward import products

MUON_RATE, ADAM_RATE = 0.02, 3e-3
MOMENTUM, BETAS, DECAY = 0.95, (0.9, 0.98), 0.2
_QUINTIC = (3.4445, -4.7750, 2.0315)


class Optimizer:
    """Both optimisers over a model's parameters; their state is a flat dictionary of tensors."""

    def __init__(self, model: torch.nn.Module, rate: float = 1.0) -> None:
        self.rate = rate
        self.count = 0
        parameters = dict(model.named_parameters())
        self.adam = {name: each for name, each in parameters.items() if each.ndim < 2 or "embed" in name}
        matrices = {name: each for name, each in parameters.items() if name not in self.adam}
        self.momentum = {name: torch.zeros_like(each) for name, each in matrices.items()}
        self.moments = {name: (torch.zeros_like(each), torch.zeros_like(each)) for name, each in self.adam.items()}
        self.shapes: dict[tuple[int, ...], list[tuple[str, torch.nn.Parameter]]] = {}
        for name, each in matrices.items():
            self.shapes.setdefault(tuple(each.shape), []).append((name, each))

    @torch.no_grad()
    def step(self, scale: float = 1.0) -> None:
        """Move every parameter along its gradient, and forget the gradients."""
        self.count += 1
        for group in self.shapes.values():
            self._muon(group, MUON_RATE * self.rate * scale)
        for name, each in self.adam.items():
            self._adam(name, each, ADAM_RATE * self.rate * scale)

    def _muon(self, group: list[tuple[str, torch.nn.Parameter]], rate: float) -> None:
        ahead = []
        for name, each in group:
            assert each.grad is not None
            momentum = self.momentum[name].lerp_(each.grad, 1 - MOMENTUM)
            ahead.append(each.grad.lerp(momentum, MOMENTUM))
            each.grad = None
        turned = orthogonal(torch.stack(ahead))
        rows, columns = turned.shape[-2:]
        for (_, each), step in zip(group, turned, strict=True):
            each.mul_(1 - rate * DECAY).add_(step, alpha=-rate * max(1.0, rows / columns) ** 0.5)

    def _adam(self, name: str, each: torch.nn.Parameter, rate: float) -> None:
        assert each.grad is not None
        mean, square = self.moments[name]
        mean.lerp_(each.grad, 1 - BETAS[0])
        square.lerp_(each.grad.square(), 1 - BETAS[1])
        unbiased = (square / (1 - BETAS[1] ** self.count)).sqrt_().add_(1e-9)
        each.addcdiv_(mean / (1 - BETAS[0] ** self.count), unbiased, value=-rate)
        each.grad = None

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that the next step depends on, beside the parameters."""
        found = {f"momentum.{name}": each for name, each in self.momentum.items()}
        for name, (mean, square) in self.moments.items():
            found |= {f"mean.{name}": mean, f"square.{name}": square}
        return found | {"count": torch.tensor(self.count)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        for name, mine in self.state().items():
            mine.copy_(state[name])
        self.count = int(state["count"])


def orthogonal(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Matrices [n, rows, columns] with all singular values brought to about 1 (0.7 to 1.2), by Newton-Schulz steps."""
    a, b, c = _QUINTIC
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).to(products())
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if tall else x).to(matrices.dtype)
