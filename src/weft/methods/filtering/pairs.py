"""Counterfactual pairs as Sen Sharma et al. build and keep them.

The task draws them (src and dst ask for different categories of lists that share no word; neither the answer nor the target
stands where the counterfactual's answer does). Kept are those in which the model ranks the right word first among the
options in three prompts: src, dst, and gold (src's question about dst's list).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

import weft
from weft.methods.filtering.sheet import MODES, Sheet, distinct, sheet

if TYPE_CHECKING:
    from weft.methods.filtering.bench import Bench
    from weft.tasks import Batch, Prompts

ROWS = 32
LEAST = 8
"""Fewer pairs than this say nothing."""
UNRUN = 10
"""How many times more pairs may be drawn where none has to be run to be kept."""


@dataclass(frozen=True)
class Pairs:
    """Pairs that the model gets right (or all); `dst` is patched, `target` is what it should then answer."""

    task: Any
    batch: Batch
    dst: Sheet
    target: torch.Tensor
    """LongTensor [pair]: which of dst's words."""
    answer: torch.Tensor
    drawn: int
    """How many pairs had to be drawn for these."""

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def src(self) -> Prompts:
        return self.batch.counterfactual

    @property
    def gold(self) -> Prompts:
        return self.task.gold(self.batch)

    @property
    def same(self) -> Prompts:
        """Src's lists under dst's own question: a patch from here has nothing to change."""
        rows = zip(self.batch.inputs, self.src.inputs, strict=True)
        return self.task.prompts({**other, "category": base["category"]} for base, other in rows)

    def take(self, rows: Any) -> Pairs:
        """Some of the pairs."""
        rows = list(rows)
        pick = torch.tensor(rows, dtype=torch.long)
        return Pairs(
            self.task, self.batch.take(rows), self.dst.take(rows), self.target[pick], self.answer[pick], self.drawn
        )

    def chunks(self, rows: int = ROWS) -> list[Pairs]:
        """All of them, some at a time: as many rows of a run whether words have one token or several."""
        size = max(1, rows // self.dst.each)
        return [self.take(range(at, min(at + size, len(self)))) for at in range(0, len(self), size)]


def right_pairs(bench: Bench, task: Any, n: int, seed: int, mode: str, tries: int = 4) -> Pairs:
    """`n` pairs that the model gets right; of at most `tries` times as many drawn, as many as there are.

    A bench that is not for right ones only takes all whose words can be told apart. ProgramError with the model's accuracy
    if there are fewer than 8 (or n, if that is less).
    """
    tries = tries if bench.only_right else UNRUN * tries
    kept: list[int] = []
    drawn, limit = 0, tries * n + ROWS
    batch = task.sample(1, seed)
    while len(kept) < n and drawn < limit:
        upto = min(limit, max(drawn + ROWS, drawn + n - len(kept)))
        batch = task.sample(upto, seed)
        kept += _right(bench, task, batch, range(drawn, upto), mode)
        drawn = upto
    if len(kept) < min(LEAST, n) and not bench.only_right:
        raise weft.errors.ProgramError(
            f"of {drawn} pairs of {task.name} {len(kept)} have words that all begin with different tokens, and "
            f'{min(LEAST, n)} are needed; score="answer" scores whole words'
        )
    if len(kept) < min(LEAST, n):
        raise weft.errors.ProgramError(
            f"the model answers all three prompts of a pair rightly in {len(kept)} of {drawn} pairs of {task.name}, and "
            f"{min(LEAST, n)} are needed; {task.name} is beyond it as it is asked here: try fewer distractors, another "
            f"question, other categories (task.evaluate(model) says how often it is right); or take wrong ones too: "
            f"only_right=False"
        )
    return paired(bench.model, task, batch.take(kept[:n]), mode, drawn)


def paired(model: Any, task: Any, batch: Batch, mode: str, drawn: int) -> Pairs:
    """The pairs of a batch."""
    dst = sheet(model, batch, [[answer] for answer in batch.counterfactual.answers], mode)
    return Pairs(task, batch, dst, dst.index(batch.expected), dst.index(batch.answers), drawn)


def mode_of(bench: Bench, task: Any, seed: int, asked: str) -> str:
    """How words are scored: as asked; of "auto", by first tokens where these differ in at least a quarter of the pairs."""
    if asked in MODES:
        return asked
    if asked != "auto":
        raise weft.errors.ProgramError(f'score is "auto", "first_token" or "answer", not {asked!r}')
    batch = task.sample(ROWS, seed)
    return "first_token" if len(_distinct(bench, task, batch, range(ROWS))) >= ROWS // 4 else "answer"


def _right(bench: Bench, task: Any, batch: Batch, rows: range, mode: str) -> list[int]:
    """Those of the rows that are answered rightly in all three prompts (and whose words can be told apart)."""
    left = list(rows) if mode == "answer" else _distinct(bench, task, batch, rows)
    for prompts in (batch, batch.counterfactual, task.gold(batch)):
        if left and bench.only_right:
            right = first(bench, prompts.take(left), mode)
            left = [row for row, good in zip(left, right.tolist(), strict=True) if good]
    return left


def first(bench: Bench, prompts: Prompts, mode: str) -> torch.Tensor:
    """Whether the right option ranks first among the options, BoolTensor [prompt]; a tie is wrong."""
    asked = sheet(bench.model, prompts, [()] * len(prompts), mode)
    found = []
    for at in range(0, len(asked), max(1, ROWS // asked.each)):
        part = asked.take(range(at, min(at + max(1, ROWS // asked.each), len(asked))))
        with bench.session() as s:
            scores = part.scores(s.run(part.texts)).save("scores")
        found.append(chosen(scores.value, part.options) == part.index(part.prompts.answers))
    return torch.cat(found)


def chosen(scores: torch.Tensor, options: torch.Tensor) -> torch.Tensor:
    """The option that scores highest, -1 if two do: [..., row, word] -> LongTensor [..., row]."""
    among = scores.masked_fill(~options, -torch.inf)
    top = among.max(-1).values
    single = (among == top[..., None]).sum(-1) == 1
    return torch.where(single, among.argmax(-1), -1)


def _distinct(bench: Bench, task: Any, batch: Batch, rows: range) -> list[int]:
    """Rows in which no two words begin with the same token, in any of the prompts."""
    found = []
    for row in rows:
        ours = dict.fromkeys((*batch.options[row], *batch.counterfactual.answers[row : row + 1]))
        theirs = batch.counterfactual.options[row]
        if distinct(bench.model, batch.prompts[row], list(ours)) and distinct(
            bench.model, batch.counterfactual.prompts[row], theirs
        ):
            found.append(row)
    return found
