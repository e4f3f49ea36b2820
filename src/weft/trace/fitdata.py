"""What a loop learns from: tables of rows, and which rows each step has.

data ::= None | column | {name: column} | (column, column, …) | batches
column ::= LongTensor or other tensor [n, …] | n prompts (texts) | n numbers
batches ::= an iterable of batches alike in everything but their numbers: {name: tensor or texts} or a tuple of them
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from weft.errors import ProgramError, ShapeError, TokenError
from weft.models.tokens import encode_ids
from weft.trace.location import where

if TYPE_CHECKING:
    from weft.trace.model import Model


@dataclass(frozen=True)
class Table:
    """The columns by name, all of one length; `starts` are the columns that say where another's rows begin."""

    columns: dict[str, torch.Tensor]
    starts: dict[str, str]
    order: torch.Tensor | None
    shape: Callable[[dict[str, Any]], Any]
    """From the values of a step by name, what the user's loss is given."""


def table(model: Model, data: Any, steps: int, batch_size: int | None, shuffle: bool, seed: int) -> Table:
    """The table and the order of its rows; ShapeError where columns or batches do not fit one another."""
    if data is None:
        if batch_size is not None or shuffle:
            raise ProgramError("batch_size and shuffle need data to take rows of", where=where())
        return Table({}, {}, None, lambda _: None)
    if not _is_columns(data):
        named, sizes, shape = _joined(list(islice(data, steps)), batch_size, shuffle)
    else:
        named, shape = _named(data)
        sizes = None
    columns, starts = _encoded(model, named)
    rows = {name: len(column) for name, column in columns.items()}
    if len(set(rows.values())) != 1:
        shown = ", ".join(f"{name} has {count}" for name, count in rows.items() if name not in starts.values())
        raise ShapeError(f"every column of the data needs the same number of rows; {shown}", where=where())
    count = next(iter(rows.values()))
    if not count:
        raise ShapeError("the data has no rows", where=where())
    if sizes is not None:
        return Table(columns, starts, torch.arange(count).reshape(-1, sizes), shape)
    return Table(
        columns, starts, order(count, steps, count if batch_size is None else batch_size, shuffle, seed), shape
    )


def order(count: int, steps: int, size: int, shuffle: bool, seed: int) -> torch.Tensor:
    """Which of `count` rows each step has, LongTensor [batches, size]: epoch after epoch, none left out.

    Unshuffled, the same batches come round, and the order is as short as can be. Shuffled, each epoch is drawn anew.
    """
    if type(size) is not int or size < 1:
        raise ProgramError(f"batch_size is a whole number of at least 1, not {size!r}", where=where())
    wanted = steps * size
    if not shuffle:
        lap = torch.arange(count)
        period = torch.lcm(torch.tensor(count), torch.tensor(size)).item()
        return lap.repeat(-(-min(wanted, int(period)) // count))[: min(wanted, int(period))].reshape(-1, size)
    generator = torch.Generator().manual_seed(seed)
    laps = [torch.randperm(count, generator=generator) for _ in range(-(-wanted // count))]
    return torch.cat(laps)[:wanted].reshape(steps, size)


def _is_columns(data: Any) -> bool:
    """Whether data is columns, not batches."""
    if isinstance(data, Mapping | torch.Tensor | tuple):
        return True
    if not isinstance(data, Iterable) or isinstance(data, str):
        raise ProgramError(
            f"data is a tensor, a list of prompts, a dict or tuple of these, or an iterable of batches, not {data!r:.60}",
            where=where(),
        )
    return isinstance(data, list) and bool(data) and isinstance(data[0], str | int | float)


def _named(data: Any) -> tuple[dict[str, Any], Callable[[dict[str, Any]], Any]]:
    if isinstance(data, Mapping):
        return {str(name): column for name, column in data.items()}, dict
    if isinstance(data, tuple):
        return {str(index): column for index, column in enumerate(data)}, lambda found: tuple(found.values())
    return {"batch": data}, lambda found: found["batch"]


def _joined(
    batches: list[Any], batch_size: int | None, shuffle: bool
) -> tuple[dict[str, Any], int, Callable[[dict[str, Any]], Any]]:
    """Batches as one table, and how many rows each has."""
    if not batches:
        raise ShapeError("the data gives no batch", where=where())
    if batch_size is not None or shuffle:
        raise ProgramError("the data is batches already; batch_size and shuffle are for columns of rows", where=where())
    several = [_named(tuple(batch) if isinstance(batch, list) and _of_columns(batch) else batch) for batch in batches]
    first, shape = several[0]
    for number, (batch, _) in enumerate(several):
        if batch.keys() != first.keys():
            raise ShapeError(f"batch {number} has {_names(batch)}, batch 0 has {_names(first)}", where=where())
        for name, column in batch.items():
            if _shape(column) != _shape(first[name]):
                raise ShapeError(
                    f"batch {number} is of another shape than batch 0: {name} is {_shape(column)}, not "
                    f"{_shape(first[name])}; every step of a loop has batches alike (leave out or fill up the odd one)",
                    where=where(),
                )
    joined = {
        name: torch.cat([batch[name] for batch, _ in several])
        if isinstance(column, torch.Tensor)
        else [item for batch, _ in several for item in batch[name]]
        for name, column in first.items()
    }
    sizes = {len(column) for column in first.values()}
    if len(sizes) != 1:
        raise ShapeError(f"batch 0 has columns of {sorted(sizes)} rows; every column needs as many", where=where())
    return joined, sizes.pop(), shape


def _of_columns(batch: list[Any]) -> bool:
    return bool(batch) and not isinstance(batch[0], str | int | float)


def _names(batch: Mapping[str, Any]) -> str:
    return ", ".join(batch) or "nothing"


def _shape(column: Any) -> str:
    if isinstance(column, torch.Tensor):
        return f"{str(column.dtype).removeprefix('torch.')}{list(column.shape)}"
    return f"{len(column)} {'prompts' if column and isinstance(column[0], str) else 'numbers'}"


def _encoded(model: Model, named: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The columns as tensors: prompts as their tokens, with a column that says where each begins if they differ."""
    columns: dict[str, torch.Tensor] = {}
    starts: dict[str, str] = {}
    for name, column in named.items():
        if isinstance(column, torch.Tensor):
            if column.dim() == 0:
                raise ShapeError(f"the column {name} has no rows: it is one number; use it as it is", where=where())
            columns[name] = column.detach()
        elif len(column) and isinstance(column[0], str):
            columns[name], start = _tokens(model, list(column))
            if bool((start > 0).any()):
                starts[name] = f"{name}, from"
                columns[starts[name]] = start
        else:
            columns[name] = torch.tensor(list(column))
    return columns, starts


def _tokens(model: Model, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    vocabulary = model.card.sizes.get("d_vocab", 1 << 62)
    try:
        if model.tokens is None:
            return encode_ids(prompts, vocabulary)
        return model.tokens.encode(prompts, vocabulary)
    except TokenError as error:
        raise error.at(where()) from None


__all__ = ["Table", "order", "table"]
