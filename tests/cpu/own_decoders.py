"""Decoders written by hand in plain torch, as somebody's own architecture: nothing of transformers, names of their own."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from tests.tiny import randomised
from torch import nn


class Mix(nn.Module):
    """Attention with fewer key heads than heads, and no positions of its own."""

    def __init__(self, width: int, heads: int, groups: int, inner: int) -> None:
        super().__init__()
        self.heads, self.groups, self.inner = heads, groups, inner
        self.ask = nn.Linear(width, heads * inner)
        self.key = nn.Linear(width, groups * inner, bias=False)
        self.val = nn.Linear(width, groups * inner)
        self.out = nn.Linear(heads * inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (each(x).unflatten(-1, (-1, self.inner)).transpose(1, 2) for each in (self.ask, self.key, self.val))
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.out(z.transpose(1, 2).flatten(2))


class Fused(nn.Module):
    """Attention with one projection of q, k and v: side by side, or head by head."""

    def __init__(self, width: int, heads: int, by_head: bool) -> None:
        super().__init__()
        self.heads, self.by_head = heads, by_head
        self.all = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        whole = self.all(x)
        if self.by_head:
            parts = whole.unflatten(-1, (self.heads, 3, -1)).unbind(-2)
        else:
            parts = whole.unflatten(-1, (3, self.heads, -1)).unbind(-3)
        q, k, v = (part.transpose(1, 2) for part in parts)
        return self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class Feed(nn.Module):
    def __init__(self, width: int, neurons: int, gated: bool) -> None:
        super().__init__()
        self.up = nn.Linear(width, neurons)
        if gated:
            self.door = nn.Linear(width, neurons)
        self.down = nn.Linear(neurons, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.silu(self.door(x)) * self.up(x) if hasattr(self, "door") else F.gelu(self.up(x)))


class Block(nn.Module):
    def __init__(self, mix: nn.Module, feed: nn.Module, width: int, parallel: bool, after: bool) -> None:
        super().__init__()
        self.first, self.mix = nn.LayerNorm(width), mix
        self.second, self.feed = nn.LayerNorm(width), feed
        self.parallel = parallel
        if after:
            self.third, self.fourth = nn.RMSNorm(width), nn.RMSNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = self.mix(self.first(x))
        mixed = self.third(mixed) if hasattr(self, "third") else mixed
        if self.parallel:
            return x + mixed + self.feed(self.second(x))
        x = x + mixed
        fed = self.feed(self.second(x))
        return x + (self.fourth(fed) if hasattr(self, "fourth") else fed)


class Mine(nn.Module):
    """A decoder: `attention` is "groups", "side by side" or "by head"; the rest are switches."""

    def __init__(
        self,
        attention: str = "groups",
        gated: bool = False,
        parallel: bool = False,
        after: bool = False,
        width: int = 20,
    ) -> None:
        super().__init__()
        self.tok, self.place = nn.Embedding(17, width), nn.Embedding(24, width)
        mixes = [
            Mix(width, 4, 2, 6) if attention == "groups" else Fused(width, 5, attention == "by head") for _ in range(3)
        ]
        self.blocks = nn.ModuleList(Block(mix, Feed(width, 22, gated), width, parallel, after) for mix in mixes)
        self.last, self.read = nn.LayerNorm(width), nn.Linear(width, 17, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tok(ids) + self.place(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        return self.read(self.last(x))


def mine(**changes: object) -> Any:
    """A tiny random one."""
    return randomised(Mine(**changes), 3)  # type: ignore[arg-type]


TABLE = {
    "embed": "tok", "positions": "place", "layers": "blocks", "final_norm": "last", "unembed": "read",
    "norm1": "first", "attn": "mix", "q": "mix.ask", "k": "mix.key", "v": "mix.val", "o": "mix.out",
    "norm2": "second", "mlp": "feed", "mlp_in": "feed.up", "mlp_out": "feed.down",
}  # fmt: skip
