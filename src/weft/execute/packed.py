"""A model's layers called on packed tokens: rows of any length, one after another, in one call, without padding.

All of a layer but its attention treats tokens one by one, so it need not know where rows begin. Attention is weft's own
while a pass is under way: it knows for each segment (the tokens of one row that this pass computes) where its earlier
keys and values are, and attends to those and to its own under one softmax.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from weft.errors import ExecutionError
from weft.execute.fused import activations, fused
from weft.models import attention
from weft.models.attention import How
from weft.models.hooks import lock_of
from weft.models.placement import here
from weft.models.supplied import supplied

FEW = 256
"""Rows of logits up to which weights times rows is the faster way round on a processor (`weft bench logits`)."""


class _Captured(Exception):
    """Raised to stop a forward pass before its first layer."""


@dataclass(frozen=True)
class Arguments:
    """How the model calls its layers, for packed tokens: the hidden state first, then these, layer by layer."""

    hidden: torch.Tensor  # 1 token d_model
    calls: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...]
    count: int

    def at(self, layer: int, tokens: torch.Tensor | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """A layer's arguments for some of the tokens (None: all of them)."""
        args, kwargs = self.calls[layer]
        return (args, kwargs) if tokens is None else (self._cut(args, tokens), self._cut(kwargs, tokens))

    def _cut(self, value: Any, tokens: torch.Tensor) -> Any:
        if isinstance(value, torch.Tensor):
            has_tokens = value.dim() >= 2 and value.shape[0] == 1 and value.shape[1] == self.count
            return value.index_select(1, tokens) if has_tokens else value
        if isinstance(value, tuple | list):
            return type(value)(self._cut(item, tokens) for item in value)
        return {k: self._cut(item, tokens) for k, item in value.items()} if isinstance(value, dict) else value


class Packed:
    """The layers of a loaded decoder, to be called one by one inside `with packed.open():`."""

    def __init__(self, loaded: Any) -> None:
        self.loaded = loaded
        self.layers = list(loaded.module.get_submodule(loaded.family.layers))
        self.final_norm = loaded.module.get_submodule(loaded.family.final_norm)
        self.unembed = loaded.module.get_submodule(loaded.family.unembed)
        self.weights = [sum(_used(p, loaded.module.config) for p in layer.parameters()) for layer in self.layers]
        self.before_z = [self._before_z(layer) for layer in self.layers]
        self.activations = activations(self.layers)
        self.attend: Any = None
        self.attended = 0

    def _before_z(self, layer: torch.nn.Module) -> int:
        """The weights of a layer that come before z: those of its attention, without the output's."""
        family, config = self.loaded.family, self.loaded.module.config
        attention = layer.get_submodule(family.attn)
        out = {id(p) for p in attention.get_submodule(family.o.removeprefix(f"{family.attn}.")).parameters()}
        return sum(_used(p, config) for p in attention.parameters() if id(p) not in out)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Attention is this pass's; the model's setting is as it was afterwards."""
        config = self.loaded.module.config
        attention.register()
        with lock_of(self.loaded.module):
            original, before = config._attn_implementation, attention.LOCAL.packed
            config._attn_implementation = attention.NAME
            attention.LOCAL.packed = self._attention
            try:
                with supplied(self.loaded.module, self.loaded.family), fused(self.activations):
                    yield
            finally:
                attention.LOCAL.packed = before
                config._attn_implementation = original

    def _attention(self, module: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, how: How) -> torch.Tensor:
        self.attended += 1
        return self.attend(module.layer_idx, q, k, v, how)

    def arguments(self, tokens: torch.Tensor, positions: torch.Tensor) -> Arguments:
        """The embedded tokens, and what each layer is called with beside the hidden state. No layer is run."""
        called: list[tuple[int, Any, dict[str, Any]]] = []

        def stub(number: int, *args: Any, **kwargs: Any) -> Any:
            called.append((number, args, kwargs))
            if number == len(self.layers) - 1:
                raise _Captured
            return called[0][1][:1]  # a tuple: some models take the first of what a layer gives, others all of it

        own = [vars(layer).get("forward") for layer in self.layers]  # as accelerate's placement puts there
        try:
            for number, layer in enumerate(self.layers):
                layer.forward = partial(stub, number)
            # Told that no token is padding, transformers does not look for packed rows by itself.
            told = {"attention_mask": torch.ones_like(tokens)[None], "position_ids": positions[None]}
            self.loaded.module(input_ids=tokens[None], use_cache=False, **told)
        except _Captured:
            pass
        finally:
            for layer, forward in zip(self.layers, own, strict=True):
                vars(layer).pop("forward", None)
                if forward is not None:
                    layer.forward = forward
        if [number for number, _, _ in called] != list(range(len(self.layers))) or not called[0][1]:
            raise ExecutionError("the model does not call its layers once each, in order, the stream first")
        calls = tuple((args[1:], kwargs) for _, args, kwargs in called)
        return Arguments(called[0][1][0], calls, int(tokens.shape[0]))

    def layer(self, number: int, hidden: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        """One layer on packed tokens: [1, token, d_model] to the same."""
        before = self.attended
        out = self.layers[number](hidden, *args, **kwargs)
        out = out[0] if isinstance(out, tuple) else out
        if self.attended != before + 1:
            raise ExecutionError(
                f"layer {number} calls attention {self.attended - before} times where transformers looks it up, not once"
            )
        if out.shape != hidden.shape:
            raise ExecutionError(f"layer {number} makes {list(out.shape)} of a stream of {list(hidden.shape)}")
        return out

    def logits(self, normed: torch.Tensor, entries: torch.Tensor | None = None) -> torch.Tensor:
        """Logits of normed states [n, d_model]; only of some vocabulary entries where these are given."""
        few = 1 < len(normed) <= FEW and normed.device.type == "cpu" and type(self.unembed) is torch.nn.Linear
        if entries is None and not few:
            return self.loaded.capped(self.unembed(normed))
        with here(self.unembed):
            if entries is None:
                return self.loaded.capped(few_rows(self.unembed, normed))
            bias = self.unembed.bias
            weight, bias = self.unembed.weight[entries], None if bias is None else bias[entries]
        return self.loaded.capped(torch.nn.functional.linear(normed, weight, bias))


def few_rows(unembed: torch.nn.Linear, normed: torch.Tensor) -> torch.Tensor:
    """The unembedding of a few rows: on a processor, weights times rows takes half the time of rows times weights."""
    found = (unembed.weight @ normed.T).T.contiguous()
    return found if unembed.bias is None else found + unembed.bias


def _used(parameter: torch.Tensor, config: Any) -> int:
    """Multiplications that a parameter costs each token: of experts, those that a token is sent to."""
    if parameter.dim() == 3:
        return parameter[0].numel() * int(getattr(config, "num_experts_per_tok", 1))
    return parameter.numel() if parameter.dim() == 2 else 0
