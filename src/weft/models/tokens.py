"""Text to tokens and back, and places in the text.

    tokens.encode(["The Colosseum is in", "Rome"])  -> Encoded(ids [batch, pos] padded on the left, start [batch])
    tokens.find(ids[0], " Rome")                    -> Span(first, last), by characters
    tokens.single(" Paris")                         -> its one token id

It works from the text of a tokenizer.json with its settings, so a client that has nothing but a model's card has exactly
the server's tokens.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch

from weft.errors import PositionError, TokenError

FILE = "tokenizer.json"
_REMEMBERED = 4096
"""Rows of text whose characters are remembered; others are found in the text that their tokens decode to."""


class Encoded(NamedTuple):
    """Token ids [batch, pos], padded on the left, and each row's first real position [batch]."""

    ids: torch.Tensor
    start: torch.Tensor


class Span(NamedTuple):
    """The first and the last token of a place in the text, both included."""

    first: int
    last: int


class _Text(NamedTuple):
    text: str
    offsets: list[tuple[int, int]]


class Tokens:
    """A tokenizer, from a card's `tokenizer` (see `data_of`)."""

    def __init__(self, data: dict[str, str]) -> None:
        from tokenizers import Tokenizer

        if FILE not in data:
            raise TokenError(
                "this model has no tokenizer that can be sent as data; give token ids: LongTensor [batch, pos]"
            )
        self.data = dict(data)
        self._tokenizer = Tokenizer.from_str(data[FILE])
        self.vocab_size: int = self._tokenizer.get_vocab_size(with_added_tokens=True)
        self.bos_id = self._id("bos_token")
        self.eos_id = self._id("eos_token")
        pads = (self._id("pad_token"), self.eos_id, 0)
        self.pad_id: int = next(each for each in pads if each is not None)
        self.adds_bos = self.bos_id is not None and self._tokenizer.encode("a").ids[:1] == [self.bos_id]
        self._texts: OrderedDict[tuple[int, ...], _Text] = OrderedDict()

    def _id(self, name: str) -> int | None:
        return self._tokenizer.token_to_id(self.data[name]) if self.data.get(name) else None

    def encode(self, prompts: Any, d_vocab: int | None = None) -> Encoded:
        """Tokens of a str, a list of str, chat messages, ids [batch, pos], or a list of lists of ids.

        Exactly what the tokenizer gives. A conversation that does not end with the assistant's words gets the
        template's opening of an answer.
        """
        rows = _chats(prompts)
        if rows is not None:
            return pad(
                [self._row(self._render(chat), row, special=False) for row, chat in enumerate(rows)], self.pad_id
            )
        if isinstance(prompts, str):
            prompts = [prompts]
        if isinstance(prompts, list | tuple) and prompts and all(isinstance(each, str) for each in prompts):
            return pad([self._row(text, row, special=True) for row, text in enumerate(prompts)], self.pad_id)
        return encode_ids(prompts, self.vocab_size if d_vocab is None else d_vocab, self.pad_id)

    def _row(self, text: str, row: int, special: bool) -> list[int]:
        found = self._tokenizer.encode(text, add_special_tokens=special)
        if not found.ids:
            raise TokenError(f"row {row}: {text!r} gives no tokens; give at least one")
        if special and self.adds_bos and found.ids[:2] == [self.bos_id, self.bos_id]:
            bos = self.data["bos_token"]
            raise TokenError(
                f"row {row}: {text[:40]!r} begins with {bos!r}, which the tokenizer adds by itself: it would be there "
                f"twice; leave it out of the text"
            )
        self._texts[tuple(found.ids)] = _Text(text, found.offsets)
        self._texts.move_to_end(tuple(found.ids))
        if len(self._texts) > _REMEMBERED:
            self._texts.popitem(last=False)
        return found.ids

    def _render(self, chat: list[dict[str, Any]]) -> str:
        from transformers.utils.chat_template_utils import render_jinja_template

        template = self.data.get("chat_template")
        if not template:
            raise TokenError("this tokenizer has no chat template; give the prompt as text")
        special: dict[str, Any] = {
            name: self.data[name] for name in ("bos_token", "eos_token", "pad_token") if name in self.data
        }
        opens = chat[-1].get("role") != "assistant"
        texts, _ = render_jinja_template([chat], chat_template=template, add_generation_prompt=opens, **special)
        return texts[0]

    def ids(self, text: str) -> list[int]:
        """The tokens of a text that stands in the middle of another: no BOS, no EOS."""
        found = self._tokenizer.encode(text, add_special_tokens=False).ids
        if not found:
            raise TokenError(f"{text!r} gives no tokens; give at least one")
        return found

    def decode(self, ids: torch.Tensor | Sequence[int], skip_special: bool = False) -> str:
        """The text of one row of tokens."""
        return self._tokenizer.decode(_ints(ids), skip_special_tokens=skip_special)

    def pieces(self, ids: torch.Tensor | Sequence[int]) -> list[str]:
        """What each token of a row adds to the text, for labels; a character's further tokens add nothing."""
        row = self._decoded(_ints(ids))
        ends = [0, *(end for _, end in row.offsets)]
        return [row.text[min(a, b) : b] if a < b else "" for a, b in pairwise(ends)]

    def single(self, text: str) -> int:
        """The one token that `text` is. TokenError with its pieces if it is several."""
        ids = self.ids(text)
        if len(ids) == 1:
            return ids[0]
        bare = self.ids(text[1:]) if text[:1] == " " and text[1:] else []
        if len(bare) == 1 and self._continues(bare[0]) == text:  # tokenizers that put a space before every text
            return bare[0]
        parts = [self._tokenizer.id_to_token(each) for each in ids]
        raise TokenError(
            f"{text!r} is {len(ids)} tokens, not one: {parts}; give a text that is one token, a token id, "
            "or use weft.score(run, answers) for longer answers"
        )

    def _continues(self, token: int) -> str:
        """The token's text where it follows others."""
        anchor = self.ids("a")
        return self.decode([*anchor, token])[len(self.decode(anchor)) :]

    def find(
        self,
        ids_row: torch.Tensor | Sequence[int],
        text: str,
        occurrence: int | None = None,
        row: int = 0,
        start: int = 0,
    ) -> Span:
        """The tokens that `text` lies in, looked for from position `start` on (the row's first real one).

        With `occurrence` None the text must be there once; else the occurrences count from 0 (-1 is the last).
        """
        ids = _ints(ids_row)[start:]
        if not text:
            raise PositionError(f"row {row}: an empty text has no place; give some text or a position")
        found, where = self._places(ids, text)
        known = found.text if len(found.text) < 200 else found.text[:200] + "…"
        if not where:
            raise PositionError(f"row {row}: {text!r} is not in {known!r}; spaces and capitals count")
        if occurrence is None and len(where) > 1:
            raise PositionError(
                f"row {row}: {text!r} is {len(where)} times in {known!r}; "
                f"say which with occurrence=0 … {len(where) - 1}"
            )
        if not -len(where) <= (occurrence or 0) < len(where):
            raise PositionError(f"row {row}: occurrence={occurrence}, but {text!r} is {len(where)} times in {known!r}")
        begin, end = where[occurrence or 0]
        inside = [at for at, (a, b) in enumerate(found.offsets) if a < end and b > begin]
        if not inside:
            raise PositionError(f"row {row}: no token holds {text!r} in {known!r}; take in a neighbouring character")
        return Span(start + inside[0], start + inside[-1])

    def at(
        self, ids: torch.Tensor, start: torch.Tensor, text: str, occurrence: int | None = None, end: str = "last"
    ) -> torch.Tensor:
        """For each row the position of the first or last token of `text`: LongTensor [batch]."""
        if end not in ("first", "last"):
            raise PositionError(f'end={end!r}; give "first" or "last", the token of the text that is meant')
        spans = [
            self.find(row, text, occurrence, number, int(begin))
            for number, (row, begin) in enumerate(zip(ids, start, strict=True))
        ]
        return torch.tensor([span.first if end == "first" else span.last for span in spans])

    def _places(self, ids: list[int], text: str) -> tuple[_Text, list[tuple[int, int]]]:
        """Where `text` is in the prompt as it was given, or else in what the tokens decode to."""
        given = self._texts.get(tuple(ids))
        where = _occurrences(given.text, text) if given else []
        if given and where:
            return given, where
        decoded = self._decoded(ids)
        where = _occurrences(decoded.text, text)
        return (decoded if where or given is None else given), where

    def _decoded(self, ids: list[int]) -> _Text:
        """The row's text, each token with the characters that it completes; parts of one character share them."""
        from tokenizers.decoders import DecodeStream

        stream, text, offsets, waiting = DecodeStream(skip_special_tokens=False), "", [], 0
        for each in ids:
            chunk = stream.step(self._tokenizer, each)
            waiting += 1
            if chunk is not None:
                offsets += [(len(text), len(text) + len(chunk))] * waiting
                text, waiting = text + chunk, 0
        return _Text(text, offsets + [(len(text), len(text))] * waiting)


def data_of(tokenizer: Any) -> dict[str, str]:
    """A tokenizer as data: its tokenizer.json and settings; {} for one that is Python only (then: ids only)."""
    from tokenizers import Tokenizer

    backend = tokenizer if isinstance(tokenizer, Tokenizer) else getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        return {}
    text = backend.to_str()
    if backend.truncation is not None or backend.padding is not None:
        plain = json.loads(text)
        plain["truncation"] = plain["padding"] = (
            None  # left over from somebody's last call; they would change the tokens
        )
        text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
    data = {FILE: text}
    for name in ("bos_token", "eos_token", "pad_token", "unk_token", "chat_template"):
        value = getattr(tokenizer, name, None)
        if isinstance(value, str) and value:
            data[name] = value
    return data


def encode_ids(prompts: Any, d_vocab: int, pad_id: int = 0) -> Encoded:
    """Prompts that are token ids already: an integer tensor [batch, pos], or a list of lists of ids of any lengths."""
    if isinstance(prompts, torch.Tensor):
        if prompts.dim() != 2 or prompts.is_floating_point() or prompts.dtype == torch.bool or not prompts.numel():
            kind = f"{str(prompts.dtype).removeprefix('torch.')}{list(prompts.shape)}"
            raise TokenError(f"prompts as a tensor must be token ids, int64 [batch, pos]; this is {kind}")
        encoded = Encoded(prompts.detach().cpu().long(), torch.zeros(len(prompts), dtype=torch.long))
    else:
        rows = [prompts] if _is_ids(prompts) else prompts
        if not isinstance(rows, list | tuple) or not rows or not all(_is_ids(row) for row in rows):
            raise TokenError(
                f"prompts must be text, a list of texts, chat messages, or token ids; this is {type(prompts).__name__}"
                f" {str(prompts)[:60]!r}"
                + ("" if not _is_text(prompts) else ", and the model has no tokenizer: give ids")
            )
        encoded = pad([list(row) for row in rows], pad_id)
    bad = (encoded.ids < 0) | (encoded.ids >= d_vocab)
    if bool(bad.any()):
        row, position = (int(each) for each in bad.nonzero()[0])
        raise TokenError(
            f"row {row}, position {position}: token id {int(encoded.ids[row, position])} is not in 0 … {d_vocab - 1}"
        )
    return encoded


def pad(rows: list[list[int]], pad_id: int) -> Encoded:
    """Rows of ids of different lengths, padded on the left to the longest."""
    longest = max(map(len, rows))
    ids = [[pad_id] * (longest - len(row)) + row for row in rows]
    return Encoded(torch.tensor(ids, dtype=torch.long), torch.tensor([longest - len(row) for row in rows]))


def _is_ids(row: Any) -> bool:
    return isinstance(row, list | tuple) and bool(row) and all(type(each) is int for each in row)


def _is_text(prompts: Any) -> bool:
    return isinstance(prompts, str) or (
        isinstance(prompts, list | tuple) and any(isinstance(e, str | dict) for e in prompts)
    )


def _chats(prompts: Any) -> list[list[dict[str, Any]]] | None:
    """Conversations, if that is what these prompts are: lists of {"role": …, "content": …}."""
    is_chat = lambda each: isinstance(each, list) and bool(each) and all(isinstance(m, dict) for m in each)  # noqa: E731
    if is_chat(prompts):
        return [prompts]
    return prompts if isinstance(prompts, list) and prompts and all(map(is_chat, prompts)) else None


def _ints(ids: torch.Tensor | Sequence[int]) -> list[int]:
    return [int(each) for each in (ids.tolist() if isinstance(ids, torch.Tensor) else ids)]


def _occurrences(whole: str, text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(re.escape(text), whole)]
