"""Keys and values of rows that are being decoded: one place in memory for each, filled step by step.

Shapes: n rows, K kv heads, G = H/K heads a group, D d_head, C columns. Rows end at the same column, so a step writes one
column for all; a shorter row begins later.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int

from weft.models.attention import How


class Keys:
    """Keys and values of the rows under way, [row, K, C, D] for each layer.

    `source` [n, P] says where in the packed prompts each row's tokens are, -1 before its first; `more` columns follow.
    """

    def __init__(self, source: Int[torch.Tensor, "n P"], more: int) -> None:
        self.rows, self.filled = source.shape
        self.columns = self.filled + more
        self.places = source.clamp(min=0).reshape(-1)
        self.keys: dict[int, torch.Tensor] = {}
        self.values: dict[int, torch.Tensor] = {}
        self.masks: dict[tuple[Any, ...], torch.Tensor] = {}
        begins = (source < 0).sum(-1)
        self.begins = begins if bool(begins.any()) else None  # each row's first column; None: all begin with the first

    def fill(self, layer: int, k: Float[torch.Tensor, "1 K N D"], v: Float[torch.Tensor, "1 K N V"]) -> None:
        """Take the prompts' keys and values."""
        self.keys[layer], self.values[layer] = self._filled(k[0]), self._filled(v[0])

    def _filled(self, packed: torch.Tensor) -> torch.Tensor:
        heads, _, width = packed.shape
        held = packed.new_empty(self.rows, heads, self.columns, width)
        rows = packed.index_select(1, self.places.to(packed.device)).reshape(heads, self.rows, self.filled, width)
        held[:, :, : self.filled] = rows.transpose(0, 1)
        return held

    def step(self) -> None:
        """One column more."""
        self.filled += 1

    def attend(
        self,
        layer: int,
        q: Float[torch.Tensor, "1 H n D"],
        k: Float[torch.Tensor, "1 K n D"],
        v: Float[torch.Tensor, "1 K n V"],
        how: How,
    ) -> Float[torch.Tensor, "1 n H V"]:
        """Attention of one new token in each row to all of its row, itself among them. Its key goes into the last column."""
        n, until = self.rows, self.filled
        keys, values = self.keys[layer], self.values[layer]
        keys[:n, :, until - 1] = k[0].transpose(0, 1)
        values[:n, :, until - 1] = v[0].transpose(0, 1)
        keys, values = keys[:n, :, :until], values[:n, :, :until]
        grouped = (
            q[0].transpose(0, 1).reshape(n, k.shape[1], -1, q.shape[3])
        )  # a group's heads as queries of their kv head
        seen = self._seen(how, q.device)
        if how.softcap is None and how.sinks is None and how.key_bias is None:
            z = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=seen, scale=how.scale)
        else:
            z = self._weights(grouped, keys, seen, how) @ values
        return z.reshape(1, n, q.shape[1], v.shape[3])  # values may be narrower than keys

    def _positions(self, device: torch.device) -> Int[torch.Tensor, "n C"]:
        """Where each column is in its row's text; below 0 before it begins."""
        columns = torch.arange(self.filled, device=device)[None].expand(self.rows, -1)
        return columns if self.begins is None else columns - self.begins[: self.rows, None].to(device)

    def _seen(self, how: How, device: torch.device) -> torch.Tensor | None:
        """Which columns the new tokens see, [n, 1, 1, C]; None: all."""
        windowed = how.rule is not None and not how.rule.causal
        if self.begins is None and not windowed:
            return None
        now = (self.filled, self.rows, how.rule.function if windowed and how.rule else None)
        if now not in self.masks:  # layers of one kind share it
            self.masks = {key: mask for key, mask in self.masks.items() if key[:2] == now[:2]}
            places = self._positions(device)
            seen = places >= 0
            if windowed and how.rule is not None:
                seen = seen & how.rule.visible(places[:, -1:], places)
            self.masks[now] = seen[:, None, None]
        return self.masks[now]

    def _weights(self, grouped: torch.Tensor, keys: torch.Tensor, seen: torch.Tensor | None, how: How) -> torch.Tensor:
        """The pattern in plain steps, [n, K, G, C]."""
        n, kv, per, _ = grouped.shape
        scores = (grouped * how.scale) @ keys.transpose(-1, -2)
        if how.softcap is not None:
            scores = torch.tanh(scores / how.softcap) * how.softcap
        if how.key_bias is not None:
            scores = scores + how.key_bias(self._positions(keys.device)).reshape(kv, per, n, -1).permute(2, 0, 1, 3)
        if seen is not None:
            scores = scores.masked_fill(~seen, float("-inf"))
        if how.sinks is None:
            return torch.softmax(scores, -1)
        sinks = how.sinks.reshape(1, kv, per, 1).expand(n, -1, -1, -1).to(scores.dtype)
        return torch.softmax(torch.cat([scores, sinks], -1), -1)[..., :-1]

    def keep(self, rows: list[int]) -> list[int]:
        """Let the other rows go: the last ones move into their places. Gives which row is now at each place."""
        count = len(rows)
        kept = set(rows)
        holes = [row for row in range(count) if row not in kept]
        movers = [row for row in rows if row >= count]
        for held in (*self.keys.values(), *self.values.values()):
            held[holes, :, : self.filled] = held[movers, :, : self.filled]
        if self.begins is not None and holes:
            self.begins[holes] = self.begins[movers]
        self.rows = count
        moved = dict(zip(holes, movers, strict=True))
        return [moved.get(row, row) for row in range(count)]
