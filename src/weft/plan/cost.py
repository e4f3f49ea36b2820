"""What a plan costs, counted from its pieces: layers times tokens, and floating-point operations."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from weft.plan.pieces import Plan


@dataclass(frozen=True)
class Prices:
    """Of each layer the number of weights a token is multiplied with, how many of them come before `z`, and of its
    attention heads times d_head."""

    weights: tuple[int, ...]
    before_z: tuple[int, ...]
    attention: int


class Cost(NamedTuple):
    """Layers times tokens; operations in the layers' weights; operations of queries with keys and weights with values."""

    layer_tokens: int
    weights: int
    attention: int

    @property
    def flops(self) -> int:
        return self.weights + self.attention


class Layer(NamedTuple):
    """What one layer computes: rows and tokens of bases, and rows and tokens of runs."""

    base_rows: int
    base_tokens: int
    rows: int
    tokens: int


def cost(plan: Plan, prices: Prices) -> Cost:
    """The whole plan's cost. A multiplication and an addition are two operations."""
    below = [0, *accumulate(prices.weights)]
    tokens = weights = attention = 0
    alike = Counter((each.first, len(each.row), each.layer, each.last, each.half) for each in plan.pieces.values())
    for (first, end, layer, last, half), count in alike.items():
        layers = last + 1 - layer
        length = end - first
        tokens += count * length * layers
        saved = prices.weights[last] - prices.before_z[last] if half and layers else 0
        weights += count * length * 2 * (below[last + 1] - below[layer] - saved)
        keys = (end * (end + 1) - first * (first + 1)) // 2
        attention += count * keys * 4 * prices.attention * layers
    return Cost(tokens, weights, attention)


def layer_tokens(plan: Plan) -> int:
    """Layers times tokens: what a plan costs, whatever the model."""
    return sum(piece.length * (piece.last + 1 - piece.layer) for piece in plan.pieces.values())


def by_layer(plan: Plan) -> tuple[Layer, ...]:
    """What each layer computes, over all passes."""
    starts: Counter[tuple[int, int]] = Counter()  # what begins, less what ends, by layer and column
    for piece in plan.pieces.values():
        column = 0 if piece.run is None else 2
        for layer, sign in ((piece.layer, 1), (piece.last + 1, -1)):
            starts[layer, column] += sign
            starts[layer, column + 1] += sign * piece.length
    columns = [list(accumulate(starts[layer, column] for layer in range(plan.layers))) for column in range(4)]
    return tuple(Layer(*(column[layer] for column in columns)) for layer in range(plan.layers))


def most_tokens(plan: Plan) -> int:
    """The packed tokens of the largest pass."""
    return max((sum(plan.pieces[number].length for number in numbers) for numbers in plan.passes), default=0)
