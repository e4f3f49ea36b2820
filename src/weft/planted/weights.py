"""The weights of one planted head, of positions, of noise: numbers, but still for the stream on paper."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from weft.planted.stream import D_HEAD, NEAR, ONE, SPEEDS, Gates, Head, Matrix, Stream

N_NOISE_NEURONS = 16
UNITS = {"gpt2": 11.0, "llama": 4.0}
"""About how much of the squared norm is not in `one`: learned positions are 7 of it. All is a third of a percent."""
PHASE = 0.6
"""`latest`: cos(PHASE + speed·distance) falls steadily from 0 to 128 tokens at the speed numbered below."""
SLOW, LATER = 4, 200.0


class Weights(NamedTuple):
    """The weights of a head of `D_HEAD` dimensions, still for the stream on paper."""

    query: Matrix
    key: Matrix
    value: Matrix
    out: Matrix


def weights_of(head: Head, stream: Stream, rotary: bool) -> Weights:
    """Content goes to the pairs that stand still, the slowest first; distance to those that turn."""
    half = D_HEAD // 2
    query, key = torch.zeros(stream.width, D_HEAD), torch.zeros(stream.width, D_HEAD)
    for column in range(head.query.shape[1]):
        query[:, half - 1 - column] = head.query[:, column] * D_HEAD**0.5
        key[:, half - 1 - column] = head.key[:, column]
    for pair, (strength, angle) in _angles(head).items():
        for part, weight, turn in ((query, strength * D_HEAD**0.5, angle), (key, 1.0, 0.0)):
            columns = [pair, pair + half]
            if rotary:  # the model turns (1, 0) by the position; what is left to add is the angle
                straight = torch.tensor([[1.0]])
                cos, sin = torch.cos(torch.tensor(turn)) * weight, torch.sin(torch.tensor(turn)) * weight
                part[:, columns] = torch.cat([stream.read(one=straight * cos), stream.read(one=straight * sin)], 1)
            else:
                part[:, columns] = _turned(stream, pair, turn) * weight
    value, out = torch.zeros(stream.width, D_HEAD), torch.zeros(D_HEAD, stream.width)
    value[:, : head.value.shape[1]], out[: head.out.shape[0]] = head.value, head.out
    return Weights(query, key, value, out)


def _angles(head: Head) -> dict[int, tuple[float, float]]:
    """By pair: how strongly it counts, and the angle by which the query is turned; the score is cos(angle + distance)."""
    if head.latest:
        return {SLOW: (LATER, PHASE)}
    if head.back is None:
        return {}
    return {pair: (NEAR, -speed * head.back) for pair, speed in enumerate(SPEEDS)}


def _turned(stream: Stream, pair: int, angle: float) -> Matrix:
    """Reads pair number `pair` of the block `position`, turned by an angle."""
    start, turn = stream["position"].start + 2 * pair, torch.tensor(angle)
    rows = torch.zeros(stream.width, 2)
    rows[start] = torch.stack([turn.cos(), turn.sin()])
    rows[start + 1] = torch.stack([-turn.sin(), turn.cos()])
    return rows


def positions_of(stream: Stream, n: int) -> Matrix:
    """What the first `n` positions write into the block `position`."""
    rows = torch.zeros(n, stream.width)
    for pair, speed in enumerate(SPEEDS):
        angle = torch.arange(n, dtype=torch.float64) * speed
        start = stream["position"].start + 2 * pair
        rows[:, start], rows[:, start + 1] = angle.cos().float(), angle.sin().float()
    return rows


def noise_weights(stream: Stream, noise: torch.Generator) -> Weights:
    """Scores of about ±1, and a write of about a hundredth of a one-hot's length, spread over the whole stream."""
    query, key, value = (normal(noise, scale, stream.width, D_HEAD) for scale in (0.2, 0.2, 0.1))
    for weight in (query, key, value):
        weight[stream["one"]] = 0
    out = normal(noise, 0.0005, D_HEAD, stream.width)
    out[:, stream["one"]] = 0
    return Weights(query, key, value, out)


def noise_gates(stream: Stream, noise: torch.Generator) -> Gates:
    reads, out = normal(noise, 0.3, stream.width, N_NOISE_NEURONS), normal(noise, 0.0003, N_NOISE_NEURONS, stream.width)
    reads[stream["one"]] = 0
    out[:, stream["one"]] = 0
    return Gates(reads, normal(noise, 0.1, N_NOISE_NEURONS), out)


def normal(noise: torch.Generator, scale: float, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=noise) * scale


def gain(family: str, d_model: int, eps: float) -> float:
    """What a normalisation layer multiplies by to undo its division."""
    return ((ONE**2 + UNITS[family]) / d_model + eps) ** 0.5
