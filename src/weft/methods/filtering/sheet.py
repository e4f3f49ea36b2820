"""Prompts with the words each is to be answered with, and how a word is scored.

"first_token": a word's logit is that of its first token, as the paper has it; all words of a row must differ there.
"answer": a word's score is its log-probability, all its tokens, each given the text before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

import weft

if TYPE_CHECKING:
    from weft.tasks import Prompts

MODES = ("first_token", "answer")
Place = int | str
"""A token of the prompt: counted from its end (-1 is the last), or a role of the task."""


@dataclass(frozen=True)
class Sheet:
    """`words[row]`: the prompt's own options first, then others that a patched run might say."""

    prompts: Prompts
    words: tuple[tuple[str, ...], ...]
    mode: str
    ids: torch.Tensor
    """First tokens, LongTensor [row, word]; rows with fewer words repeat their first."""
    tails: torch.Tensor
    """Tokens of each word after its prompt, LongTensor [row, word]."""
    valid: torch.Tensor
    """BoolTensor [row, word]: no repetition."""
    options: torch.Tensor
    """BoolTensor [row, word]: one of the prompt's own options."""

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def width(self) -> int:
        return self.ids.shape[1]

    @property
    def each(self) -> int:
        """Rows of a run for each prompt."""
        return 1 if self.mode == "first_token" else self.width

    @property
    def texts(self) -> list[str]:
        """What is run: prompts, or in the mode "answer" each prompt with each of its words."""
        if self.mode == "first_token":
            return list(self.prompts.prompts)
        rows = zip(self.prompts.prompts, self.words, strict=True)
        return [prompt + words[n if n < len(words) else 0] for prompt, words in rows for n in range(self.width)]

    def index(self, answers: Sequence[str]) -> torch.Tensor:
        """Which of its row's words each answer is, LongTensor [row]."""
        return torch.tensor([words.index(answer) for words, answer in zip(self.words, answers, strict=True)])

    def take(self, rows: Sequence[int]) -> Sheet:
        """Some of the rows."""
        pick = torch.tensor(list(rows), dtype=torch.long)
        return Sheet(
            self.prompts.take(rows), tuple(self.words[row] for row in rows), self.mode,
            self.ids[pick], self.tails[pick], self.valid[pick], self.options[pick],
        )  # fmt: skip

    def places(self, run: Any, at: Sequence[Place]) -> list[Any]:
        """For each place where it is in the rows of a run of `texts`: a position for all, or LongTensor [run's rows]."""
        tails = torch.zeros(1, dtype=torch.long) if self.mode == "first_token" else self.tails.reshape(-1)
        spread = [row for row in range(len(self)) for _ in range(self.each)]
        found: list[Any] = []
        for place in at:
            if isinstance(place, str):
                found.append(self.prompts.take(spread).positions(run, place))
            elif bool((tails == tails[0]).all()):
                found.append(place - int(tails[0]))
            else:
                found.append(run.pos + place - tails)
        return found

    def scores(self, run: Any) -> Any:
        """The words' scores in a run of `texts`: [row, word]."""
        if self.mode == "first_token":
            return run.logits[:, -1].gather(-1, self.ids)
        longest = int(self.tails.max())
        logs = torch.log_softmax(run.logits[:, -1 - longest : -1], -1)
        tokens = run.tokens[:, -longest:]
        mine = torch.arange(-longest, 0)[None, :] >= -self.tails.reshape(-1, 1)
        total = (logs.gather(-1, tokens[..., None])[..., 0] * mine).sum(-1)
        return total.reshape(len(self), self.width)


def sheet(model: Any, prompts: Prompts, extra: Sequence[Sequence[str]], mode: str) -> Sheet:
    """The sheet of these prompts, with `extra` words for each row besides its options."""
    words = [tuple(dict.fromkeys((*own, *more))) for own, more in zip(prompts.options, extra, strict=True)]
    width = max(map(len, words))
    pairs = [
        [_continued(model, prompt, word) for word in own] for prompt, own in zip(prompts.prompts, words, strict=True)
    ]
    filled = [row + [row[0]] * (width - len(row)) for row in pairs]
    return Sheet(
        prompts,
        tuple(words),
        mode,
        torch.tensor([[ids[0] for ids in row] for row in filled]),
        torch.tensor([[len(ids) for ids in row] for row in filled]),
        torch.tensor([[n < len(row) for n in range(width)] for row in words]),
        torch.tensor([[n < len(own) for n in range(width)] for own in prompts.options]),
    )


def distinct(model: Any, prompt: str, words: Sequence[str]) -> bool:
    """Whether all these words differ in their first token after the prompt."""
    return len({_continued(model, prompt, word)[0] for word in words}) == len(words)


def _continued(model: Any, prompt: str, word: str) -> list[int]:
    """The tokens that a word adds to its prompt."""
    before, after = (model.tokens.encode([text]).ids[0].tolist() for text in (prompt, prompt + word))
    if after[: len(before)] != before or len(after) == len(before):
        raise weft.errors.TokenError(
            f"the tokenizer joins the end of {prompt[-20:]!r} with {word!r}, so there is no last token to patch at; give the "
            "task a prompt that ends in a token of its own"
        )
    return after[len(before) :]
