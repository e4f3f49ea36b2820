"""The least work a sweep needs, counted by hand: the limits that a plan's own count is held to.

Multiply and add are two. Matrix products and attention alone: everything else is below a hundredth.
"""

from __future__ import annotations

from sweeping.models import Shape
from sweeping.tasks import Data


def counted(kind: str, data: Data) -> float | None:
    """FLOPs of task function `kind`, or None where nobody has counted: base runs once, then what the edits change."""
    if data.ragged or kind not in ("heads", "positions"):
        return None
    return _heads(data) if kind == "heads" else _positions(data)


class Costs:
    """FLOPs of a layer's parts for one token, and of one token's logits."""

    def __init__(self, shape: Shape) -> None:
        inner = shape.heads * shape.d_head
        self.q = 2 * shape.width * inner
        self.kv = 4 * shape.width * shape.kv_heads * shape.d_head
        self.out = 2 * inner * shape.width
        self.mlp = (4 if shape.family == "gpt2" else 6) * shape.width * shape.mlp
        self.layer = self.q + self.kv + self.out + self.mlp
        self.seen = 4 * inner  # scores and mix of values, for each key that is looked at
        self.logits = 2 * shape.width * shape.vocabulary


def _base(data: Data, costs: Costs, logits: int) -> float:
    """One run, and in the last layer what the last position needs."""
    batch, length, layers = len(data.clean), len(data.clean[0]), data.shape.layers
    whole = batch * (layers - 1) * length * (costs.layer + length * costs.seen)
    last = batch * (length * costs.kv + costs.layer - costs.kv + length * costs.seen)
    return whole + last + logits * costs.logits


def _metric(data: Data, costs: Costs) -> float:
    """Of one row's last position: all logits for a log-probability, two for a difference."""
    return 2 * 2 * data.shape.width if data.others else costs.logits


def _heads(data: Data) -> float:
    costs, layers = Costs(data.shape), data.shape.layers
    batch, length = len(data.clean), len(data.clean[0])
    total = 2 * _base(data, costs, 0)
    for layer, _ in data.patches:
        rest = costs.out + costs.mlp + (layers - 1 - layer) * (costs.layer + length * costs.seen)
        total += batch * (rest + _metric(data, costs))
    return total


def _positions(data: Data) -> float:
    costs, layers = Costs(data.shape), data.shape.layers
    batch, length = len(data.clean), len(data.clean[0])
    unmoved = any(layer == layers - 1 and place < length - 1 for layer, place in data.patches)
    total = 2 * _base(data, costs, 0) + (batch * _metric(data, costs) if unmoved else 0)
    for layer, place in data.patches:
        if layer == layers - 1:  # above the last layer only the last position is read
            total += batch * _metric(data, costs) if place == length - 1 else 0
            continue
        tokens = length - place
        looked = sum(range(place + 1, length + 1))
        middle = (layers - 2 - layer) * (tokens * costs.layer + looked * costs.seen)
        last = tokens * costs.kv + costs.layer - costs.kv + length * costs.seen
        total += batch * (middle + last + _metric(data, costs))
    return total
