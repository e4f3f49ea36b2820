"""Prompts with their answers and the places in them that matter.

batch.prompts[0], batch.answers[0]                     # text; the answer continues it and begins with its own space
batch.roles["query"][0]                                # Span(start, end) in characters of prompt 0
batch.positions(run, "query")                          # the role's last token in each row of that run, LongTensor [batch]
batch.counterfactual.positions(other, "query")         # the same in a run of the counterfactual prompts
batch.expected                                         # answers after the interchange of the task's variables
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import weft

if TYPE_CHECKING:
    import torch

    from weft.tasks.causal import Inputs


class Span(NamedTuple):
    """A place in a prompt: characters `start` to `end`, `end` not included, without the space before it."""

    start: int
    end: int


class Text(NamedTuple):
    """A prompt and where each role stands in it."""

    prompt: str
    roles: dict[str, Span]


def write(*pieces: str | tuple[str, str]) -> Text:
    """A text from plain pieces and (role, words) ones: `write("Where is ", ("query", "Bob"), "?")`."""
    prompt, roles = "", {}
    for piece in pieces:
        if isinstance(piece, str):
            prompt += piece
            continue
        role, words = piece
        roles[role] = Span(len(prompt), len(prompt) + len(words))
        prompt += words
    return Text(prompt, roles)


@dataclass(frozen=True)
class Prompts:
    """Prompts of one task: each with its answer, the answers it is chosen among, its roles and its causal inputs."""

    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    options: tuple[tuple[str, ...], ...]
    roles: Mapping[str, tuple[Span, ...]]
    inputs: tuple[Inputs, ...]

    def __len__(self) -> int:
        return len(self.prompts)

    def words(self, role: str) -> tuple[str, ...]:
        """What stands in a role, prompt by prompt."""
        spans = self._spans(role)
        return tuple(prompt[start:end] for prompt, (start, end) in zip(self.prompts, spans, strict=True))

    def positions(self, run: Any, role: str, end: str = "last") -> torch.Tensor:
        """The `end` ("last" or "first") token of a role in each row of a run of these prompts: LongTensor [batch].

        Found by characters, so it holds for any tokenizer. Where a token holds more than the role's own characters (a
        space, a neighbouring letter) it is still the token meant. The run may have answers appended to the prompts.
        """
        import torch

        if end not in ("first", "last"):
            raise weft.errors.PositionError(f'end must be "first" or "last", not {end!r}')
        if run.batch != len(self):
            raise weft.errors.PositionError(f"the run has {run.batch} rows and the batch {len(self)} prompts")
        spans = self._spans(role)
        return torch.tensor([_token(run, row, self.prompts[row], spans[row], end) for row in range(len(self))])

    def take(self, rows: Iterable[int]) -> Any:
        """Some of the rows, in that order."""
        rows = list(rows)
        pick = lambda values: tuple(values[row] for row in rows)  # noqa: E731
        return replace(
            self, prompts=pick(self.prompts), answers=pick(self.answers), options=pick(self.options),
            roles={name: pick(spans) for name, spans in self.roles.items()}, inputs=pick(self.inputs),
        )  # fmt: skip

    def _spans(self, role: str) -> tuple[Span, ...]:
        if role not in self.roles:
            raise weft.errors.PositionError(f"no role {role!r} here; there are {', '.join(self.roles)}")
        return self.roles[role]


@dataclass(frozen=True)
class Batch(Prompts):
    """Prompts with a counterfactual each, and the answers expected when the task's variables are interchanged."""

    counterfactual: Prompts
    expected: tuple[str, ...]

    @property
    def counterfactual_prompts(self) -> tuple[str, ...]:
        return self.counterfactual.prompts

    @property
    def counterfactual_answers(self) -> tuple[str, ...]:
        return self.counterfactual.answers

    @property
    def candidates(self) -> tuple[tuple[str, ...], ...]:
        """Per pair all that a patched run could answer: the options of both prompts and what is expected."""
        rows = zip(self.options, self.counterfactual.options, self.expected, strict=True)
        return tuple(tuple(dict.fromkeys((*ours, *theirs, wanted))) for ours, theirs, wanted in rows)

    def take(self, rows: Iterable[int]) -> Batch:
        """Some of the pairs, in that order."""
        rows = list(rows)
        expected = tuple(self.expected[row] for row in rows)
        return replace(super().take(rows), counterfactual=self.counterfactual.take(rows), expected=expected)


def gather(texts: Sequence[Text]) -> tuple[tuple[str, ...], dict[str, tuple[Span, ...]]]:
    """The prompts of several texts, and each role's spans in them."""
    names = texts[0].roles if texts else {}
    return tuple(text.prompt for text in texts), {name: tuple(text.roles[name] for text in texts) for name in names}


def _token(run: Any, row: int, prompt: str, span: Span, end: str) -> int:
    """The last or first token of a span.

    The text up to there is looked for, not the span's own words, which may stand in the prompt more than once.
    """
    tokens = run.session.model.tokens
    start = int(run.start[row])
    own = run.tokens[row, start:]
    ids = tokens.encode([prompt]).ids[0]  # anew: places are then found in this text, not in what its tokens decode to
    upto = lambda characters: tokens.find(ids, prompt[:characters], 0, row)  # noqa: E731
    if end == "last":
        at = upto(span.end).last
    elif span.start == 0:
        at = upto(1).last if prompt[0].isascii() else upto(1).first  # a space put before the text is none of its words
    else:  # the token after those of the text before, unless one token holds the end of that too
        at = min(upto(span.start).last + 1, upto(span.start + 1).last)
    if at >= len(own) or ids[: at + 1].tolist() != own[: at + 1].tolist():
        raise weft.errors.PositionError(
            f"row {row} of the run does not begin with prompt {row} of the batch: {prompt!r}"
        )
    return start + at
