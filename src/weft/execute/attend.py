"""Attention of segments to the keys before them, which are shared, and to their own, under one softmax.

Shapes: N tokens packed, H heads, K kv heads, G = H/K heads a group, D d_head (V of values), n segments of S tokens,
B shared rows of L keys. A segment names the shared row whose first `valid` keys come before it; many segments may name the
same row, whose keys and values are never copied for them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float

from weft.errors import ExecutionError
from weft.models.attention import How, Rule


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


@dataclass(frozen=True, eq=False)
class Group:
    """Segments of one length: `tokens` [n, S] are their places in the packed tokens, or the first of a straight run.

    A segment's first token comes right after the keys of all its parts, so positions are known from these alone.
    """

    tokens: torch.Tensor
    start: int | None
    parts: tuple[Part, ...]
    _hidden: dict[int, tuple[Rule, Hidden]] = field(default_factory=dict, repr=False)

    @cached_property
    def before(self) -> list[torch.Tensor]:
        """For each part and at last for the segments themselves: the position of the first key, [n]."""
        places = [torch.zeros(self.tokens.shape[0], dtype=torch.long)]
        for each in self.parts:
            valid = each.valid.reshape(-1)
            places.append(places[-1] + (valid if each.back is None else valid.index_select(0, each.back)))
        return places

    @cached_property
    def queries(self) -> torch.Tensor:
        """Each token's position, [n, S]."""
        return self.before[-1][:, None] + torch.arange(self.tokens.shape[1])

    def hidden(self, rule: Rule | None) -> Hidden:
        """Which keys a rule hides from which queries."""
        if rule is None or rule.causal:
            return Hidden(None, (None,) * len(self.parts))
        if id(rule) not in self._hidden:
            self._hidden[id(rule)] = rule, self._look(rule)
        return self._hidden[id(rule)][1]

    def _look(self, rule: Rule) -> Hidden:
        queries, length = self.queries, self.tokens.shape[1]
        seen = rule.visible(queries[:, :, None], queries[:, None, :]).expand(-1, length, length)
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        if bool((seen & later).any()):
            raise ExecutionError("its attention looks at later positions")
        own = None if torch.equal(~seen, later.expand_as(seen)) else ~seen
        return Hidden(own, tuple(self._look_at(rule, number) for number in range(len(self.parts))))

    def _look_at(self, rule: Rule, number: int) -> torch.Tensor | None:
        each, slots = self.parts[number], self.parts[number].slots.clamp(min=0)
        keys = self.before[number][slots][:, :, None, None] + torch.arange(each.longest)
        seen = rule.visible(self.queries[slots][:, :, :, None], keys)  # R c S L
        return None if bool(seen.all()) else ~seen


class Hidden(NamedTuple):
    """Own keys [n, S, S], and each part's [R, c, S, L], that are hidden; None: no more than causality hides."""

    own: torch.Tensor | None
    parts: tuple[torch.Tensor | None, ...]


def attend(
    groups: list[Group],
    layer: int,
    q: Float[torch.Tensor, "1 H N D"],
    k: Float[torch.Tensor, "1 K N D"],
    v: Float[torch.Tensor, "1 K N V"],
    how: How,
) -> Float[torch.Tensor, "1 N H V"]:
    """Attention of all segments of a pass."""
    out = torch.empty(q.shape[2], q.shape[1], v.shape[3], dtype=q.dtype, device=q.device)
    for group in groups:
        n, length = group.tokens.shape
        mine = [_taken(each, group, n, length) for each in (q, k, v)]
        mixed = _group(group, layer, mine[0], mine[1], mine[2], how)
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


def _group(group: Group, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, how: How) -> torch.Tensor:
    """[n, H, S, D] → [n, S, H, D]"""
    n, heads, length, width = q.shape
    kv = k.shape[1]
    hidden = group.hidden(how.rule)
    plain = how.softcap is None and how.sinks is None and how.key_bias is None
    if not group.parts and plain:
        seen = None if hidden.own is None else ~hidden.own[:, None]
        causal = length > 1 and seen is None
        z = F.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, is_causal=causal, scale=how.scale, enable_gqa=heads != kv
        )
        return z.transpose(1, 2)
    per = heads // kv
    folded = (q * how.scale).reshape(n, kv, per * length, width)
    scores = [_shared_scores(group, number, layer, folded, how, hidden) for number in range(len(group.parts))]
    scores.append(_own_scores(group, folded, k, how, hidden))
    widths = [each.shape[-1] for each in scores]
    if how.sinks is not None:
        scores.append(how.sinks.reshape(kv, per, 1).expand(n, -1, -1, length).reshape(n, kv, -1, 1).to(q.dtype))
        widths.append(1)
    half = q.dtype in (torch.float16, torch.bfloat16)
    weights = torch.softmax(torch.cat(scores, -1), -1, dtype=torch.float32 if half else None).to(q.dtype)
    weights = weights.split(widths, -1)
    z = weights[len(group.parts)] @ v
    for each, weight in zip(group.parts, weights, strict=False):
        z = z + _shared_values(each, layer, weight)
    return z.reshape(n, heads, length, -1).transpose(1, 2)


def _own_scores(group: Group, folded: torch.Tensor, k: torch.Tensor, how: How, hidden: Hidden) -> torch.Tensor:
    """Scores of segments' own keys: [n, K, G·S, S]"""
    scores = _capped(folded @ k.transpose(-1, -2), how)
    length = k.shape[2]
    per = scores.shape[2] // length
    if how.key_bias is not None:
        bias = how.key_bias(group.queries.to(k.device))  # H n S
        scores = scores + bias.reshape(k.shape[1], per, -1, 1, length).permute(2, 0, 1, 3, 4).expand(
            -1, -1, -1, length, -1
        ).reshape(scores.shape)
    if hidden.own is not None:
        return scores.masked_fill(hidden.own.repeat(1, per, 1)[:, None].to(k.device), float("-inf"))
    if length == 1:
        return scores
    later = torch.ones(length, length, dtype=torch.bool, device=k.device).triu(1).repeat(per, 1)
    return scores.masked_fill(later, float("-inf"))


def _capped(scores: torch.Tensor, how: How) -> torch.Tensor:
    return scores if how.softcap is None else torch.tanh(scores / how.softcap) * how.softcap


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


def _shared_scores(
    group: Group, number: int, layer: int, folded: torch.Tensor, how: How, hidden: Hidden
) -> torch.Tensor:
    """Scores of a part's keys: [n, K, G·S, L]"""
    each, length = group.parts[number], group.tokens.shape[1]
    keys = _rows(each.store.keys[layer], each)
    scores = _capped(_spread(each, folded) @ keys.transpose(-1, -2), how)  # R K c·G·S L
    (rows, width), kv = each.slots.shape, keys.shape[1]
    shaped = scores.reshape(rows, kv, width, -1, length, each.longest)  # R K c G S L
    if how.key_bias is not None:
        places = group.before[number][each.slots.clamp(min=0)][:, :, None] + torch.arange(each.longest)
        bias = how.key_bias(places.to(keys.device))  # H R c L
        shaped = shaped + bias.reshape(kv, -1, *places.shape).permute(2, 0, 3, 1, 4)[:, :, :, :, None]
    if not each.full:
        late = torch.arange(each.longest, device=keys.device) >= each.valid.to(keys.device)[:, :, None]  # R c L
        shaped = shaped.masked_fill(late[:, None, :, None, None], float("-inf"))
    unseen = hidden.parts[number]
    if unseen is not None:
        shaped = shaped.masked_fill(unseen[:, None, :, None].to(keys.device), float("-inf"))
    return _gathered(each, shaped.reshape(scores.shape), folded.shape)


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
