"""Experts: what a router gives, which experts it chooses with what weights, and what each of them adds to the stream.

    router_logits[l]    batch pos expert             what the router's linear map gives, before any softmax, bias or choice
    expert_weights[l]   batch pos expert             what each expert's output is multiplied by: 0 where it is not chosen
    expert_out[l]       batch pos expert d_model     what each chosen expert adds, weighted: 0 where it is not chosen

No family's routing is written here again. Changed logits go through the router's own forward once more, in which its one
linear map gives them; and what single experts add comes from the model's own experts, asked for one choice at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from weft.errors import ExecutionError
from weft.ir.nodes import Site
from weft.models.unseen import unseen

SITES = ("router_logits", "expert_weights", "expert_out")
"""In the order in which a layer with experts computes them."""
Offer = Callable[[Site, torch.Tensor], torch.Tensor | None]


class Looked:
    """One layer's experts in the passes of one context.

    `whole`: every expert is called for every token, and
    the router gives their weights (Llama 4); otherwise experts are called with states, choices and the choices' weights.
    `times`: what the MLP gives is multiplied by it before it is added to the stream.
    """

    def __init__(self, layer: int, wanted: set[str], offer: Offer, whole: bool = False, times: float = 1.0) -> None:
        self.layer, self.wanted, self._offer, self.whole, self.times = layer, wanted, offer, whole, times
        self.shape = (0, 0)  # batch and positions: routers and experts are called on tokens one after another

    def entered(self, value: torch.Tensor, _: torch.Tensor | None) -> None:
        """Before the MLP: note its batch and positions."""
        self.shape = (int(value.shape[0]), int(value.shape[1]))

    def offer(self, name: str, value: torch.Tensor) -> torch.Tensor | None:
        """Offer [token, …] as [batch, pos, …]; what came back, as [token, …] again."""
        if name not in self.wanted:
            return None
        changed = self._offer(Site(name, self.layer), value.unflatten(0, self.shape))
        return None if changed is None else changed.flatten(0, 1)

    # -- the router ------------------------------------------------------------------------------------------------------

    def routed(self, router: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """After the router: its logits, and for `whole` its weights."""
        changed = self.offer("router_logits", output[1 if self.whole else 0])
        if changed is not None:
            output = rerouted(router, args, kwargs, changed)
        if self.whole:
            weights = self.offer("expert_weights", output[0])
            output = output if weights is None else (weights, *output[1:])
        return output

    # -- the experts -----------------------------------------------------------------------------------------------------

    def chosen(self, experts: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before the experts: their weights; changed ones choose anew."""
        if self.whole or "expert_weights" not in self.wanted:
            return None
        states, index, weights = args
        changed = self.offer("expert_weights", spread(index, weights, count_of(experts)))
        return None if changed is None else ((states, *choices(changed)), kwargs)

    def added(self, experts: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """After the experts: what each of them gave. A change is added to what they gave together."""
        if "expert_out" not in self.wanted:
            return output
        if self.whole:
            tokens = self.shape[0] * self.shape[1]
            changed = self.offer("expert_out", output.unflatten(0, (-1, tokens)).transpose(0, 1))
            return output if changed is None else changed.transpose(0, 1).flatten(0, 1)
        share = apart(experts, *args)
        share = share if self.times == 1.0 else share * self.times
        changed = self.offer("expert_out", share)
        return output if changed is None else output + (changed - share).sum(1) / self.times


def count_of(experts: Any) -> int:
    """How many experts there are."""
    return int(experts.num_experts)


def spread(index: torch.Tensor, values: torch.Tensor, count: int) -> torch.Tensor:
    """Values [token, choice, …] of the experts chosen, as [token, expert, …]; 0 for the others."""
    at = index.reshape(*index.shape, *[1] * (values.dim() - 2)).expand(values.shape)
    dense = values.new_zeros(len(values), count, *values.shape[2:])
    return dense.scatter_add(1, at, values)


def choices(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights [token, expert] as choices and their weights, both [token, choice], as many as any token needs.

    Where a gradient is asked for every expert is a choice: one of weight 0 has a gradient too.
    """
    if weights.requires_grad:
        every = torch.arange(weights.shape[1], device=weights.device).expand(weights.shape)
        return every.contiguous(), weights
    needed = max(int((weights != 0).sum(1).max()), 1)
    index = weights.abs().topk(needed, dim=1).indices
    return index, weights.gather(1, index)


def apart(experts: Any, states: torch.Tensor, index: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """What each expert gives each token, weighted: [token, expert, d_model]. Each choice goes in as a token of its own."""
    many = index.shape[1]
    with unseen():
        given = experts.forward(states.repeat_interleave(many, 0), index.reshape(-1, 1), weights.reshape(-1, 1))
    return spread(index, given.unflatten(0, (-1, many)), count_of(experts))


class _Instead(TorchFunctionMode):
    """Meanwhile the one linear map that is computed gives these values."""

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.values, self.maps = values, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not nn.functional.linear:
            return func(*args, **(kwargs or {}))
        self.maps += 1
        return self.values


def rerouted(router: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], logits: torch.Tensor) -> Any:
    """What the router gives where its linear map gives `logits` [token, expert]."""
    instead = _Instead(logits)
    with unseen(), instead:
        output = router.forward(*args, **kwargs)
    if instead.maps != 1:
        raise ExecutionError(
            f"router_logits cannot be written: {type(router).__name__} computes {instead.maps} linear maps, where the one "
            "that gives its logits is looked for; write expert_weights instead"
        )
    return output
