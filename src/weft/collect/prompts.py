"""Prompts of any kind as rows of token ids, one after another; never all at once.

prompts ::= one text | a Path to a text file, a prompt a line | LongTensor [batch, pos] | an iterable of items
          | an object with __len__ and __getitem__ (a `datasets.Dataset`)
item    ::= text | token ids | chat messages | a dict with such a thing under `column`
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from weft.errors import ModelError, PositionError, TokenError, WeftError
from weft.models.tokens import Encoded, encode_ids

if TYPE_CHECKING:
    from weft.trace.model import Model

At = int | str | list[int] | tuple[int, ...] | Callable[[int, list[int]], Any] | None


class Prompt(NamedTuple):
    """One prompt: its number, its token ids, and the positions of it that are collected, counted from its own start."""

    number: int
    ids: tuple[int, ...]
    positions: tuple[int, ...]


def prompts_of(model: Model, prompts: Any, at: At, column: str) -> Iterator[Prompt]:
    """Each prompt as its ids and positions; TokenError or PositionError names the prompt that cannot be had."""
    if model.card.kind != "decoder":
        raise ModelError("collect runs prompts through a language model; save the sites of a raw module in a session")
    for number, item in enumerate(_items(prompts)):
        try:
            ids = tuple(_ids(model, _column(item, column)))
            most = model.card.max_positions
            if most and len(ids) > most:
                raise TokenError(f"it has {len(ids)} tokens and this model takes {most}; cut it or leave it out")
            yield Prompt(number, ids, _positions(model, number, ids, at))
        except WeftError as error:
            raise type(error)(f"prompt {number}: {error.message}", **error.details) from None


def _items(prompts: Any) -> Iterator[Any]:
    if isinstance(prompts, Path):
        with prompts.open(encoding="utf-8") as file:  # empty lines between prompts are no prompts
            yield from (text for line in file if (text := line.rstrip("\r\n")))
    elif isinstance(prompts, str):
        yield prompts
    elif isinstance(prompts, Mapping):
        raise TokenError(
            f"prompts is one dict with {', '.join(map(str, list(prompts)[:6]))}; give a list of prompts, or a data set's "
            'split, e.g. data["train"]'
        )
    elif hasattr(prompts, "__iter__"):
        yield from prompts
    elif hasattr(prompts, "__len__") and hasattr(prompts, "__getitem__"):
        yield from (prompts[index] for index in range(len(prompts)))
    else:
        raise TokenError(f"prompts must be texts, a Path, token ids or a data set, not {type(prompts).__name__}")


def _column(item: Any, column: str) -> Any:
    if not isinstance(item, Mapping):
        return item
    if column not in item:
        raise TokenError(f"it has the columns {', '.join(map(str, item))} and no {column!r}; name the one with column=")
    return item[column]


def _ids(model: Model, item: Any) -> list[int]:
    if hasattr(item, "tolist"):
        item = item.tolist()
    if not item:
        raise TokenError("it is empty; give at least one token")
    vocabulary = model.card.sizes["d_vocab"]
    chat = isinstance(item, list) and isinstance(item[0], Mapping)
    given = [item] if chat or isinstance(item, str) else [list(item)]
    encoded: Encoded = encode_ids(given, vocabulary) if model.tokens is None else model.tokens.encode(given, vocabulary)
    return encoded.ids[0].tolist()


def _positions(model: Model, number: int, ids: tuple[int, ...], at: At) -> tuple[int, ...]:
    if at is None:
        return tuple(range(len(ids)))
    if isinstance(at, str):
        if model.tokens is None:
            raise PositionError("this model has no tokenizer to find a text with; give at= as positions")
        return (model.tokens.find(ids, at).last,)
    wanted = at(number, list(ids)) if callable(at) else at
    wanted = wanted.tolist() if isinstance(wanted, torch.Tensor) else wanted
    found = [wanted] if isinstance(wanted, int) else list(wanted)
    for position in found:
        if not isinstance(position, int) or not -len(ids) <= position < len(ids):
            raise PositionError(f"there is no position {position!r} in its {len(ids)} tokens")
    return tuple(position % len(ids) for position in found)
