"""q, k and v that come out of one projection: how they lie in it, taken apart and put together again.

"side by side"   all heads' q, then all heads' k, then all heads' v
"by group"       for each kv head: the q of its group, its k, its v; with as many kv heads as heads, head by head
"in four"        four parts, each with q, v, k (in this order) of a quarter of the heads (CodeGen)
"""

from __future__ import annotations

import torch

QUARTERS = 4


def split(whole: torch.Tensor, layout: str, sizes: dict[str, int]) -> list[torch.Tensor]:
    """q, k and v, each [..., head, d_head], of [..., all of them]."""
    heads, kv_heads, width = (sizes[name] for name in ("n_heads", "n_kv_heads", "d_head"))
    if layout == "by group":
        groups = whole.unflatten(-1, (kv_heads, heads // kv_heads + 2, width))
        return [groups[..., :-2, :].flatten(-3, -2), groups[..., -2, :], groups[..., -1, :]]
    if layout == "in four":
        q, v, k = whole.unflatten(-1, (QUARTERS, 3, heads // QUARTERS, width)).unbind(-3)
        return [part.flatten(-3, -2) for part in (q, k, v)]
    sides = whole.split([heads * width, kv_heads * width, kv_heads * width], dim=-1)
    return [side.unflatten(-1, (-1, width)) for side in sides]


def join(parts: list[torch.Tensor], layout: str) -> torch.Tensor:
    """The inverse of `split`."""
    q, k, v = parts
    if layout == "by group":
        groups = q.unflatten(-2, (k.shape[-2], -1))
        return torch.cat([groups, k.unsqueeze(-2), v.unsqueeze(-2)], -2).flatten(-3)
    if layout == "in four":
        return torch.stack([part.unflatten(-2, (QUARTERS, -1)) for part in (q, v, k)], -3).flatten(-4)
    return torch.cat([q, k, v], -2).flatten(-2)
