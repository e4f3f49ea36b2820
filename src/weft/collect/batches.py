"""Which prompts run together, and which are stored together. Settled by the prompts and the budget alone.

    prompts ──▶ windows of prompts ──▶ sorted by length ──▶ batches of tokens ──▶ shards of bytes

The same prompts in the same order always come to the same batches and shards: that is what makes a collection that was
killed and taken up again the same bytes as one that was not.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from weft.collect.prompts import Prompt

WINDOW_PROMPTS = 4096
WINDOW_TOKENS = 1 << 20
"""Prompts are read so many at a time, to be sorted by length."""
MOST_TOKENS = 8192
"""Tokens of a batch: more of them are no faster."""


@dataclass(frozen=True)
class Batch:
    """Prompts of one pass; `first` is where their rows begin in the shard."""

    prompts: tuple[Prompt, ...]
    first: int

    @property
    def rows(self) -> int:
        return sum(len(prompt.positions) for prompt in self.prompts)


@dataclass(frozen=True)
class Shard:
    """One file: its batches, one after another."""

    number: int
    batches: tuple[Batch, ...]

    @property
    def file(self) -> str:
        return f"{self.number:06d}.safetensors"

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        return tuple(prompt for batch in self.batches for prompt in batch.prompts)

    @property
    def rows(self) -> int:
        return sum(batch.rows for batch in self.batches)

    def digest(self) -> str:
        """SHA-256 of which prompts these are, of what tokens, and of which positions are collected."""
        found = hashlib.sha256()
        for prompt in self.prompts:
            numbers = (prompt.number, len(prompt.ids), *prompt.ids, *prompt.positions)
            found.update(struct.pack(f"<{len(numbers)}q", *numbers))
        return found.hexdigest()


def shards(prompts: Iterable[Prompt], batch_tokens: int, shard_rows: int) -> Iterator[Shard]:
    """The shards of a collection: batches of at most `batch_tokens` tokens, files of about `shard_rows` rows."""
    number = 0
    for window in _windows(prompts):
        batches: list[Batch] = []
        rows = 0
        for group in _groups(window, batch_tokens):
            batch = Batch(group, rows)
            if batches and rows + batch.rows > shard_rows:
                yield Shard(number, tuple(batches))
                number, batches, rows = number + 1, [], 0
                batch = Batch(group, 0)
            batches.append(batch)
            rows += batch.rows
        yield Shard(number, tuple(batches))
        number += 1


def _windows(prompts: Iterable[Prompt]) -> Iterator[list[Prompt]]:
    window: list[Prompt] = []
    tokens = 0
    for prompt in prompts:
        window.append(prompt)
        tokens += len(prompt.ids)
        if len(window) >= WINDOW_PROMPTS or tokens >= WINDOW_TOKENS:
            yield window
            window, tokens = [], 0
    if window:
        yield window


def _groups(window: list[Prompt], batch_tokens: int) -> Iterator[tuple[Prompt, ...]]:
    """Prompts of a window, longest first: what does not fit into memory fails at once and not in the end."""
    group: list[Prompt] = []
    tokens = 0
    for prompt in sorted(window, key=lambda each: -len(each.ids)):
        if group and tokens + len(prompt.ids) > batch_tokens:
            yield tuple(group)
            group, tokens = [], 0
        group.append(prompt)
        tokens += len(prompt.ids)
    if group:
        yield tuple(group)
