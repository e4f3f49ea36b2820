"""Parts of a site: indices and chains of views, as text to be put after the site's own."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import torch

POSITIONS = ("pos", "query_pos", "key_pos")


class Region(NamedTuple):
    """`text` after a site's expression; `kind` names what was drawn; `rows` whether run.rows is in it."""

    text: str
    kind: str


def region(
    rng: random.Random, axes: tuple[str, ...], shape: tuple[int, ...], run: str, least: int, write: bool
) -> Region:
    """A random part of a site. `least` is the shortest row's length: writes keep to positions that every row has."""
    draw = rng.random()
    if draw < 0.12:
        return Region("" if not write else "[:]", "whole")
    if draw < 0.32 and ("pos" in axes or "query_pos" in axes):
        return Region("[:, -1]" if "pos" in axes else "[:, :, -1]", "last")
    if draw < 0.44 and axes[:2] == ("batch", "pos"):
        return _per_row(rng, axes, shape, run, least)
    if draw < 0.44 and axes[:1] + axes[2:3] == ("batch", "query_pos"):
        head = rng.choice([":", ":", str(rng.randrange(shape[1]))])
        return Region(f"[{run}.rows, {head}, {run}.at({rng.randrange(-least, 0)})]", "per row")
    if draw < 0.62:
        chain, sizes = _views(rng, shape)
        return Region(chain + (_plain_index(rng, sizes) if rng.random() < 0.5 or write else ""), "view chain")
    return _box(rng, axes, shape, least, write)


def on_padding(axes: tuple[str, ...], shape: tuple[int, ...], run: Any, name: str, text: str) -> bool:
    """Whether a part of a site lies wholly on padding in some row (weft refuses to write there)."""
    if "batch" not in axes or not bool((run.start > 0).any()):
        return False
    rows = _spread(axes, shape, "batch", torch.arange(shape[axes.index("batch")]))
    real = torch.ones(shape, dtype=torch.bool)
    for axis in set(POSITIONS) & set(axes):
        at = torch.arange(shape[axes.index(axis)])
        starts = run.start.reshape([-1 if each == "batch" else 1 for each in axes])
        real = real & (at.reshape([-1 if each == axis else 1 for each in axes]) >= starts)
    see = lambda x: eval(f"x{text}", {"x": x, name: run})  # noqa: E731, S307
    return set(see(rows).flatten().tolist()) != set(see(rows)[see(real)].flatten().tolist())


def _spread(axes: tuple[str, ...], shape: tuple[int, ...], name: str, values: torch.Tensor) -> torch.Tensor:
    return values.reshape([-1 if axis == name else 1 for axis in axes]).expand(shape).contiguous()


def _per_row(rng: random.Random, axes: tuple[str, ...], shape: tuple[int, ...], run: str, least: int) -> Region:
    place = f"{run}.at({rng.randrange(-least, least)})"
    if rng.random() < 0.3:
        place = f"{run}.at({rng.randrange(-least, 0)})"
    rest = ", " + str(rng.randrange(shape[2])) if len(shape) > 2 and rng.random() < 0.4 else ""
    rows = f"{run}.rows"
    turned = rng.random()
    if turned < 0.2:
        rows, place = f"{rows}.flip(0)", f"{place}.flip(0)"
    elif turned < 0.4:
        place = f"{place} - {run}.pos"  # counted from the end
    return Region(f"[{rows}, {place}{rest}]", "per row")


def _box(rng: random.Random, axes: tuple[str, ...], shape: tuple[int, ...], least: int, write: bool) -> Region:
    parts = [_along(rng, axis, size, least, write) for axis, size in zip(axes, shape, strict=True)]
    while parts and parts[-1] == ":":
        parts.pop()
    if not parts:
        return Region("[:]" if write else "", "whole")
    text = ", ".join(parts)
    kind = "steps" if "::" in text else "list" if "[" in text else "head" if _one_head(axes, parts) else "box"
    return Region(f"[{text}]", kind)


def _one_head(axes: tuple[str, ...], parts: list[str]) -> bool:
    return any("head" in axis and part.lstrip("-").isdigit() for axis, part in zip(axes, parts, strict=False))


def _along(rng: random.Random, axis: str, size: int, least: int, write: bool) -> str:
    whole = 0.75 if axis == "batch" else 0.3 if axis in POSITIONS else 0.45
    if rng.random() < whole or size == 1:
        return ":"
    low = size - least if axis in POSITIONS and write else 0
    kind = rng.random()
    if axis == "batch" and write and kind < 0.7:
        return str(rng.randrange(size))
    if kind < 0.4 or size - low < 2:
        return str(rng.randrange(low, size) - (size if rng.random() < 0.5 else 0))
    a, b = sorted(rng.sample(range(low, size + 1), 2))
    if kind < 0.7:
        return rng.choice([f"{a}:{b}", f"{a - size}:" if a else ":", f"{a}:", f":{b}"])
    if kind < 0.92:
        return f"{low + rng.randrange(2)}::{rng.choice([2, 3])}"
    return str(rng.sample(range(low, size), 2))


def _plain_index(rng: random.Random, shape: tuple[int, ...]) -> str:
    parts = []
    for size in shape:
        draw = rng.random()
        if draw < 0.5 or size < 2:
            parts.append(":")
        elif draw < 0.75:
            parts.append(f"{-rng.randrange(1, size)}:")
        else:
            parts.append(str(-rng.randrange(1, size + 1)))
    return f"[{', '.join(parts)}]" if parts else ""


def _views(rng: random.Random, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """A chain of one to three views of a dense tensor, and the shape it leads to."""
    text, sizes, dense = "", list(shape), True
    for _ in range(rng.randrange(1, 4)):
        kind = rng.choice(
            ["transpose", "flatten", "unflatten", "diagonal", "narrow", "movedim", "reshape", "unsqueeze", "select"]
        )
        a = rng.randrange(len(sizes))
        b = rng.randrange(len(sizes))
        if kind == "transpose" and a != b:
            text += f".transpose({a}, {b})"
            sizes[a], sizes[b] = sizes[b], sizes[a]
            dense = False
        elif kind == "movedim" and a != b:
            text += f".movedim({a}, {b})"
            sizes.insert(b, sizes.pop(a))
            dense = False
        elif kind == "flatten" and dense and a + 1 < len(sizes):
            text += f".flatten({a}, {a + 1})"
            sizes[a : a + 2] = [sizes[a] * sizes[a + 1]]
        elif kind == "reshape" and dense:
            text += ".reshape(-1)"
            total = 1
            for size in sizes:
                total *= size
            sizes = [total]
        elif kind == "unflatten" and (found := [n for n in (2, 3) if sizes[a] % n == 0]):
            n = rng.choice(found)
            text += f".unflatten({a}, ({n}, {sizes[a] // n}))"
            sizes[a : a + 1] = [n, sizes[a] // n]
        elif kind == "diagonal" and a != b and len(sizes) > 2:
            text += f".diagonal(dim1={a}, dim2={b})"
            length = min(sizes[a], sizes[b])
            sizes = [size for i, size in enumerate(sizes) if i not in (a, b)] + [length]
            dense = False
        elif kind == "narrow" and sizes[a] > 2:
            length = rng.randrange(1, sizes[a])
            text += f".narrow({a}, {sizes[a] - length}, {length})"
            sizes[a] = length
            dense = False
        elif kind == "select" and len(sizes) > 2 and a > 0:
            text += f".select({a}, -1)"
            sizes.pop(a)
            dense = False
        elif kind == "unsqueeze":
            text += f".unsqueeze({a})"
            sizes.insert(a, 1)
    return text, tuple(sizes)
