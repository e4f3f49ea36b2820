"""`model.collect`: prompts in, activations on disk out, in memory that does not grow with the number of prompts."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from weft.collect import batches as b
from weft.collect.bar import Bar
from weft.collect.batches import Batch, Shard
from weft.collect.folder import Folder, ShardFile, writing
from weft.collect.prompts import At, Prompt, prompts_of
from weft.collect.read import Collection
from weft.collect.source import Column, bytes_per_token, columns, parts, written
from weft.errors import DtypeError, ExecutionError, LimitError, RefusedError, WeftError
from weft.ir.hash import content_hash
from weft.ir.types import DTYPES, TensorType
from weft.models.dtypes import NAMES
from weft.trace.location import where

if TYPE_CHECKING:
    from weft.trace.model import Model

BUDGET = 500_000_000
SHARD_BYTES = 256 << 20
AHEAD = 2
"""Batches handed over before the first of them is fetched: a server works while the last one's numbers come home."""


class _Step(NamedTuple):
    shard: Shard
    batch: Batch
    pending: Any


def collect(
    model: Model,
    prompts: Any,
    sites: Any,
    at: At = None,
    to: str | Path | None = None,
    dtype: str | torch.dtype | None = None,
    *,
    column: str = "text",
    budget: int = BUDGET,
    progress: bool = True,
) -> Collection:
    """See `Model.collect`."""
    if to is None:
        raise RefusedError("collect writes to a folder: give to=FOLDER", where=where())
    wanted, stored = columns(model, sites), _dtypes(dtype)
    tokens = min(int(budget) // bytes_per_token(model, wanted), b.MOST_TOKENS)
    if tokens < 1:
        raise LimitError(f"a budget of {budget:,} bytes is less than one token takes; raise budget=", where=where())
    rows = prompts_of(model, prompts, at, column)
    first = next(rows, None)
    if first is None:
        raise RefusedError("there are no prompts to collect from", where=where())
    kinds = [stored or each.dtype for each in wanted]
    row_bytes = sum(TensorType(kind, each.shape).nbytes for kind, each in zip(kinds, wanted, strict=True)) + 16
    about = _about(model, wanted, kinds, first, at, tokens)
    with writing(Path(to), about) as folder:
        work = _Work(model, wanted, kinds, folder)
        found = b.shards(itertools.chain([first], rows), tokens, max(SHARD_BYTES // row_bytes, 1))
        with Bar(progress, _count(prompts)) as bar:
            try:
                work.all(found, bar)
            except BaseException as error:
                work.stop()
                raise _told(error, folder) from (error.__cause__ if isinstance(error, WeftError) else error)
    return Collection(to)


class _Work:
    """The shards that are not there yet, batch after batch."""

    def __init__(self, model: Model, wanted: tuple[Column, ...], kinds: list[str], folder: Folder) -> None:
        self.model, self.wanted, self.kinds, self.folder = model, wanted, kinds, folder
        self.waiting: deque[_Step] = deque()
        self.file: ShardFile | None = None
        self.seen = 0

    def all(self, shards: Iterator[Shard], bar: Bar) -> None:
        prompts = rows = 0
        for shard in shards:
            prompts, rows = prompts + len(shard.prompts), rows + shard.rows
            self.seen += 1
            if shard.number < len(self.folder.entries):
                self._check(shard)
                bar.add(len(shard.prompts))
                continue
            if self.folder.complete:
                raise RefusedError(f"{self.folder.path} is a complete collection of fewer prompts; give another folder")
            for batch in shard.batches:
                self._begin(shard, batch)
                if len(self.waiting) > AHEAD - 1:
                    self._take(bar)
        while self.waiting:
            self._take(bar)
        if self.seen < len(self.folder.entries):
            raise RefusedError(f"{self.folder.path} is a collection of more prompts than were given now")
        if not self.folder.complete:
            self.folder.enter({"complete": True, "prompts": prompts, "rows": rows})

    def stop(self) -> None:
        """Nothing more: jobs not yet fetched are cancelled, the shard not yet whole is dropped."""
        for step in self.waiting:
            if step.pending is not None:
                step.pending.cancel()
        self.waiting.clear()
        if self.file is not None:
            self.file.drop()

    def _check(self, shard: Shard) -> None:
        if self.folder.entries[shard.number]["digest"] != shard.digest():
            raise RefusedError(
                f"the prompts are not those that {shard.file} in {self.folder.path} was collected from; "
                "give the same prompts in the same order, or another folder"
            )

    def _begin(self, shard: Shard, batch: Batch) -> None:
        pending = self.model.backend.begin(written(self.model, batch, self.wanted)) if batch.rows else None
        self.waiting.append(_Step(shard, batch, pending))

    def _take(self, bar: Bar) -> None:
        """Fetch the oldest batch and write it; with the last batch of a shard the shard is whole."""
        step = self.waiting[0]
        values = step.pending.values() if step.pending is not None else {}
        if self.file is None:
            self.file = self._start(step.shard)
        if step.pending is not None:
            self._put(self.file, step, values)
        if step.batch is step.shard.batches[-1]:
            self.file.finish()
            self.file = None
            shard = step.shard
            self.folder.enter(
                {"file": shard.file, "prompts": len(shard.prompts), "rows": shard.rows, "digest": shard.digest()}
            )
        self.waiting.popleft()
        if step.pending is not None:
            step.pending.forget()
        bar.add(len(step.batch.prompts))

    def _start(self, shard: Shard) -> ShardFile:
        """A new file with all but the activations in it."""
        prompts = shard.prompts
        labels = {
            "prompt": [each.number for each in prompts],
            "length": [len(each.positions) for each in prompts],
            "position": [position for each in prompts for position in each.positions],
            "token": [each.ids[position] for each in prompts for position in each.positions],
        }
        types = {name: TensorType("int64", (len(found),)) for name, found in labels.items()}
        for kind, each in zip(self.kinds, self.wanted, strict=True):
            types[each.name] = TensorType(kind, (shard.rows, *each.shape))
        file = ShardFile(self.folder.path / shard.file, types)
        for name, found in labels.items():
            file.put(name, 0, torch.tensor(found, dtype=torch.int64))
        return file

    def _put(self, file: ShardFile, step: _Step, values: dict[str, torch.Tensor]) -> None:
        for index, (kind, each) in enumerate(zip(self.kinds, self.wanted, strict=True)):
            row = step.batch.first
            for part in parts(values, index):
                stored = part.to(getattr(torch, kind))
                if not bool(torch.isfinite(stored).all()):
                    raise _not_finite(part, stored, each, step.batch, row - step.batch.first)
                row = file.put(each.name, row, stored)


def _not_finite(part: torch.Tensor, stored: torch.Tensor, column: Column, batch: Batch, before: int) -> ExecutionError:
    """Which prompt and position it was, and whether the model or the dtype is to blame."""
    at = before + int((~torch.isfinite(stored)).flatten(1).any(1).nonzero()[0, 0])
    pairs = [(prompt.number, position) for prompt in batch.prompts for position in prompt.positions]
    number, position = pairs[at]
    place = f"{column.name} at prompt {number}, position {position}"
    if bool(torch.isfinite(part).all()):
        kind = NAMES[stored.dtype]
        return ExecutionError(f"{place} is too large for {kind}; collect with dtype='bfloat16' or 'float32'")
    return ExecutionError(
        f"{place} is not a finite number: the model gives NaN or infinity there; leave the prompt out"
    )


def _dtypes(dtype: str | torch.dtype | None) -> str | None:
    name = NAMES.get(dtype, str(dtype)) if isinstance(dtype, torch.dtype) else dtype
    if name is not None and (name not in DTYPES or DTYPES[name].category != "float"):
        raise DtypeError(
            f"dtype={dtype!r}: activations are kept as float16, bfloat16, float32 or float64", where=where()
        )
    return name


def _about(
    model: Model, wanted: tuple[Column, ...], kinds: list[str], first: Prompt, at: At, tokens: int
) -> dict[str, Any]:
    """What a collection is of: all that has to be the same for it to be taken up again."""
    edits = content_hash(written(model, Batch((first,), 0), wanted)) if model.edits and first.positions else ""
    return {
        "format": 1,
        "model": model.card.name,
        "fingerprint": model.backend.fingerprint(),
        "edits": edits,
        "sites": {
            each.name: {"dtype": kind, "axes": list(each.axes), "shape": list(each.shape)}
            for kind, each in zip(kinds, wanted, strict=True)
        },
        "at": "a function" if callable(at) else list(at) if isinstance(at, tuple | list) else at,
        "batch_tokens": tokens,
    }


def _count(prompts: Any) -> int | None:
    if isinstance(prompts, str):
        return 1
    return len(prompts) if hasattr(prompts, "__len__") else None


def _told(error: BaseException, folder: Folder) -> BaseException:
    """The error, saying what is kept and how to go on."""
    kept = sum(each["prompts"] for each in folder.entries)
    rest = (
        f"{kept:,} prompts are collected and kept in {folder.path}; call collect again with the same arguments to go on"
    )
    if isinstance(error, RefusedError) and folder.complete:
        return error
    if isinstance(error, WeftError):
        return type(error)(f"{error.message}; {rest}", where=error.where, **error.details)
    if isinstance(error, OSError):
        return ExecutionError(f"the activations could not be written: {error}; make room, or give another disk. {rest}")
    error.add_note(rest)
    return error
