"""Places in the text: one index per row, found by position or by what is written there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from weft.errors import PositionError, TokenError
from weft.trace.location import where

if TYPE_CHECKING:
    from weft.trace.session import Session


class Places:
    """What a run and a generation know about their prompts' text."""

    session: Session
    tokens: Any
    start: torch.Tensor
    batch: int
    pos: int

    @property
    def prompt_tokens(self) -> torch.Tensor | None:
        """The prompts' token ids [batch, pos], in which text is looked for."""
        return self.tokens

    def at(self, place: int | str | list[str], occurrence: int | None = None, end: str = "last") -> torch.Tensor:
        """One index per row, LongTensor [batch]: of a position, or of a text's last (or `end="first"`) token.

        `run.at(-1)` is every row's last token, `run.at(0)` its first real one; `run.at(" Rome")` where that text stands,
        `run.at([" Rome", " Paris"])` where each row's own text does.
        `occurrence` counts from 0 (or from the end, if negative); left out, the text may stand only once.
        PositionError names the row in which it is missing, or stands more than once.
        """
        if isinstance(place, str | list | tuple):
            if end not in ("first", "last"):
                raise PositionError(f'end must be "first" or "last", not {end!r}', where=where())
            spans = self.find(place, occurrence)
            return spans[:, 1 if end == "last" else 0]
        lengths = (self.pos - self.session.latest(self)).tolist()
        for row, length in enumerate(lengths):
            if not -length <= place < length:
                raise PositionError(f"at({place}): row {row} has {length} tokens", where=where())
        return torch.full((self.batch,), self.pos + place) if place < 0 else self.start + place

    def find(self, text: str | list[str], occurrence: int | None = None) -> torch.Tensor:
        """The first and last token of `text` (one for all rows, or one a row) in each row, LongTensor [batch, 2]."""
        tokenizer = self.session.model.tokens
        if tokenizer is None or self.prompt_tokens is None:
            raise TokenError("this model has no tokenizer, so text cannot be found; use positions", where=where())
        if getattr(self.prompt_tokens, "_st", None) is not None:
            raise PositionError(
                "the prompts of a loop differ from step to step, so text cannot be found in them here; give the places as a "
                "column of the data, a LongTensor [rows], and use batch['place']",
                where=where(),
            )
        texts = [text] * self.batch if isinstance(text, str) else list(text)
        if len(texts) != self.batch:
            raise PositionError(
                f"{len(texts)} texts for {self.batch} rows; give one a row, or one for all", where=where()
            )
        try:
            spans = [
                tokenizer.find(self.prompt_tokens[row], each, occurrence, row, int(self.start[row]))
                for row, each in enumerate(texts)
            ]
        except (PositionError, TokenError) as error:
            raise error.at(where()) from None
        return torch.tensor(spans, dtype=torch.long)


def check_padding(run: Any, axes: tuple[str, ...], shape: tuple[int, ...], see: Any) -> None:
    """PositionError if a write lies, in some row, wholly on padding. `see` leads from the site's shape to the region."""
    start: torch.Tensor = run.session.latest(run)
    if not bool((start > 0).any()) or "batch" not in axes:
        return
    rows = _along(axes, shape, "batch", torch.arange(shape[axes.index("batch")]))
    inside = torch.ones(shape, dtype=torch.bool)
    for axis, name in enumerate(axes):
        if name in ("pos", "query_pos", "key_pos"):
            late = torch.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
            starts = start.reshape([-1 if n == "batch" else 1 for n in axes])
            inside = inside & (late >= starts)
    touched, real = see(rows).reshape(-1), see(inside).reshape(-1)
    every = set(torch.unique(touched).tolist())
    missing = sorted(every - set(torch.unique(touched[real]).tolist()))
    if missing:
        row = int(missing[0])
        raise PositionError(
            f"this write touches only padding in row {row}, whose text starts at position {int(start[row])}; "
            "count from the row's own start with run.at(i), or from run.start (negative positions count from the end, "
            "which is every row's last token)",
            where=where(),
        )


def _along(axes: tuple[str, ...], shape: tuple[int, ...], name: str, values: torch.Tensor) -> torch.Tensor:
    return values.reshape([-1 if axis == name else 1 for axis in axes]).expand(shape)
