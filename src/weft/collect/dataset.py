"""Collected rows as a PyTorch data set: batches drawn across all shards, with memory for a few blocks at a time.

A true permutation of a billion rows would have to be held, and would read one row here and one there. Instead blocks of
neighbouring rows are taken in random order from all shards, a pool of them is shuffled, and batches are cut from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from weft.errors import RefusedError

if TYPE_CHECKING:
    from weft.collect.read import Collection

BLOCK = 256
"""Rows read together."""
POOL = 64
"""Blocks shuffled together."""

LABELS = ("prompt", "position", "token")
Batch = torch.Tensor | dict[str, torch.Tensor]


class Rows(IterableDataset[Batch]):
    """Batches of rows. Each pass over it is shuffled in its own way; the same seed gives the same passes again."""

    def __init__(
        self, collection: Collection, sites: str | list[str], batch_size: int, *, shuffle: bool, seed: int, labels: bool
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise RefusedError(f"a batch has at least one row, not {batch_size}")
        self.collection, self.batch_size, self.shuffle, self.seed, self.labels = (
            collection, batch_size, shuffle, seed, labels,
        )  # fmt: skip
        self.sites = [sites] if isinstance(sites, str) else list(sites)
        self.one = isinstance(sites, str) and not labels
        self.passes = 0

    def __len__(self) -> int:
        """Batches in a pass of one process; the last may be smaller."""
        return -(-self.collection.rows // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.passes)
        self.passes += 1
        left: dict[str, torch.Tensor] | None = None
        for pool in self._pools(generator):
            pool = pool if left is None else {name: torch.cat([left[name], pool[name]]) for name in pool}
            count = len(next(iter(pool.values())))
            whole = count - count % self.batch_size
            for at in range(0, whole, self.batch_size):
                yield self._given({name: rows[at : at + self.batch_size] for name, rows in pool.items()})
            left = {name: rows[whole:].clone() for name, rows in pool.items()} if whole < count else None
        if left is not None:
            yield self._given(left)

    def _given(self, batch: dict[str, torch.Tensor]) -> Batch:
        return batch[self.sites[0]] if self.one else batch

    def _pools(self, generator: torch.Generator) -> Iterator[dict[str, torch.Tensor]]:
        rows = self.collection.rows
        count = -(-rows // BLOCK)
        order = torch.randperm(count, generator=generator) if self.shuffle else torch.arange(count)
        worker = get_worker_info()
        if worker is not None:
            order = order[worker.id :: worker.num_workers]
        for blocks in order.split(POOL):
            spans = [(at * BLOCK, min((at + 1) * BLOCK, rows)) for at in blocks.tolist()]
            pool = {site: torch.cat([self.collection.read(site, *span) for span in spans]) for site in self.sites}
            if self.labels:
                pool |= {name: torch.cat([self._label(name)[a:b] for a, b in spans]) for name in LABELS}
            if self.shuffle:
                mixed = torch.randperm(len(next(iter(pool.values()))), generator=generator)
                pool = {name: found[mixed] for name, found in pool.items()}
            yield pool

    def _label(self, name: str) -> Any:
        return getattr(self.collection, f"{name}_of")
