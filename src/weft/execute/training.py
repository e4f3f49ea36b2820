"""What a loop does with gradients: clipping, torch's own optimisers, schedules, and when to end early."""

from __future__ import annotations

import math
from typing import Any

import torch

from weft.ir.loops import state_names
from weft.ir.nodes import Loop

_CLASSES: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
_OURS = frozenset(
    "optimiser lr schedule warmup gamma horizon clip_norm clip_value every below patience min_delta".split()
)


class Optimiser:
    """The carried values as torch's optimiser has them, from step `start` on; `state` is what an earlier loop left."""

    def __init__(self, loop: Loop, values: list[torch.Tensor], state: list[torch.Tensor], start: int) -> None:
        self.options: dict[str, Any] = dict(loop.options)
        self.steps = loop.steps
        self.values = values
        self.names = state_names(loop.options)
        rates = self.options["lr"]
        self.rates: list[float] = list(rates) if isinstance(rates, tuple) else [rates] * len(values)
        groups = [{"params": [value], "lr": lr} for value, lr in zip(values, self.rates, strict=True)]
        own = {name: value for name, value in self.options.items() if name not in _OURS}
        self.torch = _CLASSES[self.options["optimiser"]](groups, **own)
        if state:
            self._go_on(state, start)

    def _go_on(self, state: list[torch.Tensor], start: int) -> None:
        given = iter(state)
        for value in self.values:
            held: dict[str, Any] = {name: next(given).to(value.device).clone() for name in self.names}
            if self.options["optimiser"] != "sgd":
                held["step"] = torch.tensor(float(start))
            self.torch.state[value] = held

    def step(self, number: int, gradients: list[torch.Tensor]) -> None:
        """One step with these gradients, at the learning rate of step `number`."""
        for value, gradient in zip(self.values, gradients, strict=True):
            value.grad = gradient
        if "clip_value" in self.options:
            torch.nn.utils.clip_grad_value_(self.values, self.options["clip_value"])
        if "clip_norm" in self.options:
            torch.nn.utils.clip_grad_norm_(self.values, self.options["clip_norm"])
        part = self.rate(number)
        for group, lr in zip(self.torch.param_groups, self.rates, strict=True):
            group["lr"] = lr * part
        self.torch.step()

    def rate(self, number: int) -> float:
        """The part of the learning rate that step `number` has: rising over `warmup` steps, then as scheduled."""
        warmup, horizon = self.options.get("warmup", 0), self.options.get("horizon", self.steps)
        if number < warmup:
            return (number + 1) / warmup
        done = min(1.0, (number - warmup) / max(horizon - warmup, 1))
        match self.options.get("schedule", "constant"):
            case "linear":
                return 1.0 - done
            case "cosine":
                return 0.5 * (1.0 + math.cos(math.pi * done))
            case "exponential":
                return self.options.get("gamma", 1.0) ** (number - warmup)
            case _:
                return 1.0

    def state(self) -> list[torch.Tensor]:
        """What a later loop needs to go on: by value, then by name."""
        held = [self.torch.state.get(value, {}) for value in self.values]
        return [
            each[name].detach().clone() if name in each else torch.zeros_like(value)
            for value, each in zip(self.values, held, strict=True)
            for name in self.names
        ]


class Patience:
    """Whether the loss says to end: below a number, or no better by `min_delta` for `patience` steps."""

    def __init__(self, loop: Loop, watch: torch.Tensor | None) -> None:
        options: dict[str, Any] = dict(loop.options)
        self.below, self.patience = options.get("below"), options.get("patience")
        self.delta: float = options.get("min_delta", 0.0)
        self.best, self.since = (math.inf, 0.0) if watch is None else (float(watch[0]), float(watch[1]))

    def over(self, loss: float) -> str:
        """Why the loop ends after a step with this loss; "" if it goes on."""
        better = loss < self.best - self.delta
        self.best, self.since = (loss, 0.0) if better else (self.best, self.since + 1)
        if self.below is not None and loss < self.below:
            return f"the loss {loss:.4g} is below {self.below:g}"
        if self.patience is not None and self.since >= self.patience:
            return f"the loss was no better than {self.best:.4g} for {self.patience} steps"
        return ""

    def state(self) -> torch.Tensor:
        return torch.tensor([self.best, self.since], dtype=torch.float64)
