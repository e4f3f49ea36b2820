"""Attention of segments to the keys before them, which are shared, and to their own, under one softmax.

Shapes: N tokens packed, H heads, K kv heads, G = H/K heads a group, D d_head, n segments of S tokens, B shared rows of L
keys. A segment names the shared row whose first `valid` keys come before it; many segments may name the same row, whose
keys and values are never copied for them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float


@dataclass(frozen=True)
class Store:
    """Keys and values of `rows` shared rows, layer by layer: [B, K, L, D] each."""

    rows: int
    keys: dict[int, torch.Tensor]
    values: dict[int, torch.Tensor]


@dataclass(frozen=True)
class Part:
    """Which shared rows some segments attend to. `slots` [R, c] lists segments by row, -1 where a row has fewer.

    `rows` [R] are the rows in use, `valid` [R, c] how many of a row's keys come before each segment, `longest` the
    largest of these, `full` whether all are that; `back` [n] is each segment's place in the flattened slots.
    """

    store: Store
    rows: torch.Tensor | None
    slots: torch.Tensor
    valid: torch.Tensor
    longest: int
    full: bool
    back: torch.Tensor | None


def part(store: Store, row_of: torch.Tensor, valid: torch.Tensor) -> Part | None:
    """The part for segments that name `row_of` [n], of whose keys the first `valid` [n] come before them."""
    longest = int(valid.max())
    if longest == 0:
        return None
    rows, place = torch.unique(row_of, return_inverse=True)
    order = torch.argsort(place, stable=True)
    counts = torch.bincount(place, minlength=len(rows))
    width = int(counts.max())
    within = torch.arange(len(order)) - (counts.cumsum(0) - counts)[place[order]]
    slots = torch.full((len(rows), width), -1, dtype=torch.long)
    slots[place[order], within] = order
    back = torch.empty(len(order), dtype=torch.long)
    back[order] = place[order] * width + within
    straight = bool((back == torch.arange(len(order))).all()) and len(order) == slots.numel()
    whole = len(rows) == store.rows
    full = bool((valid == longest).all())
    return Part(
        store, None if whole else rows, slots, valid[slots.clamp(min=0)], longest, full, None if straight else back
    )


@dataclass(frozen=True)
class Group:
    """Segments of one length: `tokens` [n, S] are their places in the packed tokens, or the first of a straight run."""

    tokens: torch.Tensor
    start: int | None
    parts: tuple[Part, ...]


def attend(
    groups: list[Group],
    layer: int,
    q: Float[torch.Tensor, "1 H N D"],
    k: Float[torch.Tensor, "1 K N D"],
    v: Float[torch.Tensor, "1 K N D"],
    scale: float,
) -> Float[torch.Tensor, "1 N H D"]:
    """Attention of all segments of a pass."""
    out = torch.empty(q.shape[2], q.shape[1], q.shape[3], dtype=q.dtype, device=q.device)
    for group in groups:
        n, length = group.tokens.shape
        mine = [_taken(each, group, n, length) for each in (q, k, v)]
        mixed = _group(group, layer, mine[0], mine[1], mine[2], scale)
        if group.start is not None:
            out[group.start : group.start + n * length] = mixed.reshape(n * length, *mixed.shape[2:])
        else:
            out[group.tokens.reshape(-1)] = mixed.reshape(n * length, *mixed.shape[2:])
    return out[None]


def _taken(x: torch.Tensor, group: Group, n: int, length: int) -> torch.Tensor:
    """[1, H, N, D] → [n, H, S, D]"""
    if group.start is not None:
        x = x[0, :, group.start : group.start + n * length]
    else:
        x = x[0].index_select(1, group.tokens.reshape(-1))
    return x.reshape(x.shape[0], n, length, x.shape[-1]).transpose(0, 1)


def _group(group: Group, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    """[n, H, S, D] → [n, S, H, D]"""
    n, heads, length, width = q.shape
    kv = k.shape[1]
    if not group.parts:
        z = F.scaled_dot_product_attention(q, k, v, is_causal=length > 1, scale=scale, enable_gqa=heads != kv)
        return z.transpose(1, 2)
    per = heads // kv
    folded = (q * scale).reshape(n, kv, per * length, width)
    own = folded @ k.transpose(-1, -2)  # n K G·S S
    if length > 1:
        later = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1).repeat(per, 1)
        own = own.masked_fill(later, float("-inf"))
    scores = [_shared_scores(each, layer, folded) for each in group.parts] + [own]
    weights = torch.softmax(torch.cat(scores, -1), -1).split([each.shape[-1] for each in scores], -1)
    z = weights[-1] @ v
    for each, weight in zip(group.parts, weights, strict=False):
        z = z + _shared_values(each, layer, weight)
    return z.reshape(n, heads, length, width).transpose(1, 2)


def _rows(stored: torch.Tensor, each: Part) -> torch.Tensor:
    rows = stored if each.rows is None else stored.index_select(0, each.rows)
    return rows[:, :, : each.longest]


def _spread(each: Part, x: torch.Tensor) -> torch.Tensor:
    """[n, K, m, D] by segment → [R, K, c·m, D] by row"""
    slots = each.slots
    spread = x if each.back is None else x.index_select(0, slots.clamp(min=0).reshape(-1))
    rows, width = slots.shape
    return spread.reshape(rows, width, *x.shape[1:]).transpose(1, 2).reshape(rows, x.shape[1], -1, x.shape[-1])


def _gathered(each: Part, x: torch.Tensor, like: torch.Size) -> torch.Tensor:
    """[R, K, c·m, E] by row → [n, K, m, E] by segment"""
    rows, width = each.slots.shape
    flat = (
        x.reshape(rows, like[1], width, like[2], x.shape[-1]).transpose(1, 2).reshape(-1, like[1], like[2], x.shape[-1])
    )
    return flat if each.back is None else flat.index_select(0, each.back)


def _shared_scores(each: Part, layer: int, folded: torch.Tensor) -> torch.Tensor:
    keys = _rows(each.store.keys[layer], each)
    scores = _spread(each, folded) @ keys.transpose(-1, -2)  # R K c·m L
    if not each.full:
        rows, width = each.slots.shape
        late = torch.arange(each.longest, device=keys.device) >= each.valid[:, :, None]  # R c L
        shaped = scores.reshape(rows, scores.shape[1], width, -1, each.longest)
        scores = shaped.masked_fill(late[:, None, :, None], float("-inf")).reshape(scores.shape)
    return _gathered(each, scores, folded.shape)


def _shared_values(each: Part, layer: int, weight: torch.Tensor) -> torch.Tensor:
    values = _rows(each.store.values[layer], each)
    return _gathered(each, _spread(each, weight) @ values, weight.shape)


def stored(x: Float[torch.Tensor, "1 K N D"], starts: list[int], lengths: list[int]) -> Float[torch.Tensor, "B K L D"]:
    """Packed keys or values [1, K, N, D] of segments as rows [B, K, L, D], filled up with 0."""
    if len(set(lengths)) == 1 and all(start == at * lengths[0] for at, start in enumerate(starts)):
        used = x[0, :, : len(starts) * lengths[0]]
        return used.reshape(x.shape[1], len(starts), lengths[0], x.shape[3]).transpose(0, 1).contiguous()
    rows = torch.zeros(len(starts), x.shape[1], max(lengths), x.shape[3], dtype=x.dtype, device=x.device)
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        rows[row, :, :length] = x[0, :, start : start + length]
    return rows
