"""Prompts of a drawn experiment: shared prefixes, duplicates, ragged lengths, as text, as lists of ids, as a tensor."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.generated.sketch import Sketch
from tests.generated.zoo import VOCABULARY


@dataclass(frozen=True)
class Handle:
    """A run (or a step of a generation) as the draw refers to it. `least` is its shortest row's length."""

    name: str
    key: str
    batch: int
    pos: int
    least: int
    base: int = 0  # where the step's sites begin in the order of the whole generation


def prompt_rows(sketch: Sketch, stem: list[int]) -> list[list[int]]:
    """One to four rows of ids, most of them beginning like `stem`."""
    rng, rows = sketch.rng, []
    length, ragged = rng.randrange(3, 10), rng.random() < 0.45
    for _ in range(rng.choice([1, 1, 2, 2, 3, 4])):
        size = rng.randrange(2, 10) if ragged else length
        row = [rng.randrange(2, VOCABULARY) for _ in range(size)]
        draw = rng.random()
        if draw < 0.5:
            shared = rng.randrange(1, size + 1)
            row[:shared] = stem[:shared]
        elif draw < 0.65 and rows and (ragged or len(rows[-1]) == size):
            row = list(rows[-1])
        rows.append(row)
    return rows


def _long_rows(sketch: Sketch, stem: list[int]) -> list[list[int]]:
    """Rows that share most of a long beginning: more than the engine thinks worth a pass of its own."""
    rng = sketch.rng
    size = rng.randrange(18, 23) if rng.random() < 0.7 else 0
    rows = []
    for _ in range(rng.randrange(1, 4)):
        own = [rng.randrange(2, VOCABULARY) for _ in range(size or rng.randrange(18, 23))]
        shared = rng.randrange(16, min(len(own), 20) + 1)
        rows.append(stem[:shared] + own[shared:])
    return rows


def written(sketch: Sketch, rows: list[list[int]]) -> str:
    """The prompts as text of the program, in one of the forms that `s.run` takes."""
    rng, ragged = sketch.rng, len({len(row) for row in rows}) > 1
    sketch.features.add("ragged" if ragged else "one length")
    if len(rows) > 1:
        sketch.features.add("batch")
    if len({tuple(row) for row in rows}) < len(rows):
        sketch.features.add("duplicate rows")
    if not ragged and rng.random() < 0.4:
        sketch.features.add("prompts as a tensor")
        return f"torch.tensor({rows})"
    if rng.random() < 0.4:
        sketch.features.add("prompts as ids")
        return str(rows)
    sketch.features.add("prompts as text")
    texts = [" ".join(f"w{token:02}" for token in row) for row in rows]
    return repr(texts[0]) if len(texts) == 1 else str(texts)


def add_runs(sketch: Sketch, count: int) -> list[Handle]:
    """Runs on new prompts and forks of earlier ones."""
    rng: random.Random = sketch.rng
    stem = [rng.randrange(2, VOCABULARY) for _ in range(10)]
    known: list[list[list[int]]] = []
    handles: list[Handle] = []
    forks: set[str] = set()
    long = rng.random() < 0.12
    if long:
        stem = [rng.randrange(2, VOCABULARY) for _ in range(20)]
        sketch.features.add("long prefix")
    for _ in range(count):
        name = sketch.name("r")
        if handles and rng.random() < 0.5:
            of = rng.choice(handles)
            sketch.add(f"{name} = {of.name}.fork()", "fork", *(["fork of a fork"] if of.name in forks else []))
            forks.add(name)
            handles.append(Handle(name, name, of.batch, of.pos, of.least))
            continue
        rows = prompt_rows(sketch, stem) if not long else _long_rows(sketch, stem)
        if known and rng.random() < 0.35:
            rows = rng.choice(known)
            sketch.features.add("the same prompts again")
        elif known and rng.random() < 0.4:
            rows = [[rng.randrange(2, VOCABULARY), *row[1:]] for row in rng.choice(known)]  # same lengths, other texts
        known.append(rows)
        sketch.add(f"{name} = s.run({written(sketch, rows)})")
        handles.append(Handle(name, name, len(rows), max(map(len, rows)), min(map(len, rows))))
    prefixes = [tuple(row[:2]) for rows in known for row in rows]
    if len(set(prefixes)) < len(prefixes):
        sketch.features.add("shared prefix")
    if count > 1:
        sketch.features.add("several runs")
    return handles
