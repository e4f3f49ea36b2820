"""Random programs of views and changes in place, on a site, on results and on new tensors, equal eager PyTorch."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tracing import PROMPTS, model

from weft.errors import OpError

Step = Callable[[list[Any]], Any]


def view(rng: random.Random, x: torch.Tensor) -> Callable[[Any], Any]:
    """A view of a tensor like `x` (or a copy, where reshape must copy)."""
    n = x.dim()
    if n == 0:
        return lambda x: x[None]
    dim, other = rng.randrange(n), rng.randrange(n)
    at, start = rng.randrange(x.shape[dim]), rng.randrange(x.shape[dim])
    order = rng.sample(range(n), n)
    choices: list[Callable[[Any], Any]] = [
        lambda x: x.select(dim, at),
        lambda x: x.narrow(dim, start, x.shape[dim] - start),
        lambda x: x[(slice(None),) * dim + (slice(start, None, 2),)],
        lambda x: x[..., at % x.shape[-1]],
        lambda x: x.transpose(dim, other),
        lambda x: x.permute(order),
        lambda x: x.flatten(min(dim, other), max(dim, other)),
        lambda x: x.reshape(-1),
        lambda x: x.unsqueeze(dim),
        lambda x: x.squeeze(),
        lambda x: x.chunk(2, dim)[-1],
        lambda x: x.unbind(dim)[at],
        lambda x: x.movedim(dim, other),
        lambda x: x.detach(),
        lambda x: x.diagonal(0, dim, other) if dim != other else x,
        lambda x: x.unfold(dim, min(2, x.shape[dim]), 2),
        lambda x: x.expand(2, *x.shape),
        lambda x: x.contiguous(),
        lambda x: x.split([start, x.shape[dim] - start], dim)[1],
    ]
    return rng.choice(choices)


def change(rng: random.Random, x: torch.Tensor) -> Callable[[Any], Any]:
    """A change in place of a tensor like `x`."""
    number = rng.randrange(1, 5)
    row = torch.arange(x.shape[-1] if x.dim() else 1, dtype=torch.float32)
    mask = torch.arange(x.shape[0]) % 2 == 0 if x.dim() else torch.tensor(True)

    def assign(x: Any) -> None:
        x[0] = number

    def add_at(x: Any) -> None:
        x[..., -1:] += number

    def masked(x: Any) -> None:
        x[mask] = number

    def listed(x: Any) -> None:
        x[[0, -1]] *= 2

    choices: list[Callable[[Any], Any]] = [lambda x: x.add_(number), lambda x: x.mul_(0.5), lambda x: x.copy_(row)]
    return rng.choice([*choices, assign, add_at, masked, listed] if x.dim() else choices[:2])


def result(rng: random.Random) -> Callable[[Any], Any]:
    return rng.choice(
        [lambda x: x * 2, lambda x: x.clone(), lambda x: x.cumsum(-1) if x.dim() else x + 1, lambda x: x + x]
    )


def program(seed: int) -> list[tuple[str, int, Callable[[Any], Any]]]:
    """Steps (kind, index into the pool, function) that are legal in PyTorch, drawn by running them."""
    rng = random.Random(seed)
    pool, steps = start(torch.randn(2, 5, 12)), []
    while len(steps) < 14:
        index = rng.randrange(len(pool))
        kind = rng.choice(["view", "view", "change", "change", "result", "read"])
        x = pool[index]
        make = view(rng, x) if kind == "view" else change(rng, x) if kind == "change" else result(rng)
        try:
            found = make(x)
        except (RuntimeError, IndexError, ValueError):
            continue
        if kind != "change" and (not found.numel() or found.dim() > 5):
            continue
        if kind != "change":
            pool.append(found)
        steps.append((kind, index, make))
    return steps


def start(h: torch.Tensor) -> list[torch.Tensor]:
    return [h, h.transpose(0, 1) * 1, torch.zeros(3, 4), torch.ones(4, 3).t() * 2]


def play(h: torch.Tensor, steps: list[tuple[str, int, Callable[[Any], Any]]]) -> list[torch.Tensor]:
    pool = start(h)
    for kind, index, function in steps:
        found = function(pool[index])
        if kind != "change":
            pool.append(found)
    return pool


@pytest.mark.filterwarnings("ignore:Use of")  # PyTorch, of writing into expanded tensors
@pytest.mark.parametrize("seed", range(60))
def test_random_views_and_changes(seed: int) -> None:
    torch.manual_seed(seed)
    with model().trace(PROMPTS) as run:
        h = run.resid_post[0].save()
    steps = program(seed)
    expected = play(h.value.clone(), steps)
    try:
        with model().session() as s:
            pool = play(s.run(PROMPTS).resid_post[0], steps)
            for i, x in enumerate(pool):
                x.save(f"{i}")
    except OpError as error:
        assert "clone()" in str(error)  # overlapping memory is refused
        return
    for i, x in enumerate(expected):
        assert torch.allclose(s.results[f"{i}"], x, atol=1e-5), f"value {i} after {[(k, n) for k, n, _ in steps]}"
