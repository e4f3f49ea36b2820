"""The parts of a planted GPT-2: named blocks of the residual stream, and heads that copy between them.

    blocks = Blocks(512, token=112, previous=112)
    value, out = blocks.reader("token", 128), blocks.writer("previous", 128)      # a head that copies token to previous

LayerNorm takes away the mean of the stream, which would leak between blocks. So every write sums to zero: what it puts
into a block it takes from the ballast, dimensions that nothing reads. Then there is no mean to take away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class Blocks:
    """`blocks["token"]` is a slice of the residual stream; what is left of its `d_model` is the ballast."""

    def __init__(self, d_model: int, **sizes: int) -> None:
        self.d_model = d_model
        self._slices: dict[str, slice] = {}
        start = 0
        for name, size in sizes.items():
            self._slices[name] = slice(start, start + size)
            start += size
        if start >= d_model:
            raise ValueError(f"blocks of {start} dimensions leave no ballast in a stream of {d_model}")
        self.ballast = slice(start, d_model)

    def __getitem__(self, name: str) -> slice:
        return self._slices[name]

    def reader(self, name: str, width: int, scale: float = 1.0) -> Float[Tensor, "d_model width"]:
        """A weight that copies block `name` of the stream to the first dimensions of something `width` wide."""
        weight = torch.zeros(self.d_model, width)
        block = self[name]
        size = block.stop - block.start
        weight[block, :size] = torch.eye(size) * scale
        return weight

    def writer(self, name: str, width: int, scale: float = 1.0) -> Float[Tensor, "width d_model"]:
        """The opposite of `reader`: copies to block `name`, and takes as much from the ballast."""
        return self.balanced(self.reader(name, width, scale).T)

    def balanced(self, rows: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """`rows` with each row's sum taken from the ballast, so that every row sums to zero."""
        out = rows.clone()
        n_ballast = self.ballast.stop - self.ballast.start
        out[..., self.ballast] -= rows.sum(-1, keepdim=True) / n_ballast
        return out

    def gain(self, units: int, eps: float) -> float:
        """The LayerNorm gain that gives a stream of `units` one-hot writes back unchanged, undoing the division."""
        n_ballast = self.ballast.stop - self.ballast.start
        variance = (units + units**2 / n_ballast) / self.d_model
        return (variance + eps) ** 0.5


@dataclass(frozen=True)
class Head:
    """The weights of one attention head, acting on a row vector of the stream: `x @ query + query_bias`, …"""

    query: Float[Tensor, "d_model d_head"]
    key: Float[Tensor, "d_model d_head"]
    value: Float[Tensor, "d_model d_head"]
    out: Float[Tensor, "d_head d_model"]
    query_bias: Float[Tensor, " d_head"]

    def place(self, attention: Any, head: int) -> None:
        """Write these weights into head number `head` of a GPT-2 attention, which keeps q, k and v side by side."""
        d_model, d_head = self.query.shape
        at = slice(head * d_head, (head + 1) * d_head)
        packed, bias = attention.c_attn.weight.data, attention.c_attn.bias.data
        for part, weight in enumerate((self.query, self.key, self.value)):
            packed[:, part * d_model + at.start : part * d_model + at.stop] = weight
        bias[at] = self.query_bias
        attention.c_proj.weight.data[at] = self.out
