"""A model's layers called on packed tokens: rows of any length, one after another, in one call, without padding.

All of a layer but its attention treats tokens one by one, so it need not know where rows begin. Attention is weft's own
while a pass is under way: it knows for each segment (the tokens of one row that this pass computes) where its earlier
keys and values are, and attends to those and to its own under one softmax.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from weft.errors import ExecutionError
from weft.models import attention
from weft.models.hooks import lock_of


class _Captured(Exception):
    """Raised to stop a forward pass before its first layer."""


@dataclass(frozen=True)
class Arguments:
    """How the model calls its layers, for packed tokens: the hidden state first, then these."""

    hidden: torch.Tensor  # 1 token d_model
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    count: int

    def at(self, tokens: torch.Tensor | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments for some of the tokens (None: all of them)."""
        if tokens is None:
            return self.args, self.kwargs
        return self._cut(self.args, tokens), self._cut(self.kwargs, tokens)

    def _cut(self, value: Any, tokens: torch.Tensor) -> Any:
        if isinstance(value, torch.Tensor):
            has_tokens = value.dim() >= 2 and value.shape[1] == self.count
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
        self.weights = [sum(p.numel() for p in layer.parameters() if p.dim() == 2) for layer in self.layers]
        self.attend: Any = None

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
                yield
            finally:
                attention.LOCAL.packed = before
                config._attn_implementation = original

    def _attention(self, module: Any, q: Any, k: Any, v: Any, scaling: float | None) -> torch.Tensor:
        return self.attend(module.layer_idx, q, k, v, q.shape[-1] ** -0.5 if scaling is None else scaling)

    def arguments(self, tokens: torch.Tensor, positions: torch.Tensor) -> Arguments:
        """The embedded tokens, and what the layers are called with beside the hidden state."""
        found: list[Any] = []

        def stop(*args: Any, **kwargs: Any) -> None:
            found.append((args, kwargs))
            raise _Captured

        first = self.layers[0]
        first.forward = stop
        try:
            self.loaded.module(input_ids=tokens[None], position_ids=positions[None], use_cache=False)
        except _Captured:
            pass
        finally:
            del first.forward
        if not found:
            raise ExecutionError("this model does not call its layers as decoders do")
        (hidden, *args), kwargs = found[0]
        return Arguments(hidden, tuple(args), kwargs, int(tokens.shape[0]))

    def layer(self, number: int, hidden: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        """One layer on packed tokens: [1, token, d_model] to the same."""
        out = self.layers[number](hidden, *args, **kwargs)
        return out[0] if isinstance(out, tuple) else out

    def logits(self, normed: torch.Tensor, entries: torch.Tensor | None = None) -> torch.Tensor:
        """Logits of normed states [n, d_model]; only of some vocabulary entries where these are given."""
        if entries is None:
            return self.unembed(normed)
        bias = self.unembed.bias
        return torch.nn.functional.linear(normed, self.unembed.weight[entries], None if bias is None else bias[entries])
