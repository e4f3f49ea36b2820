"""The field's metrics, of traced logits and of ordinary ones: `weft.logit_diff(run.logits[:, -1], " Paris", " Rome")`.

Answers are strings of one token, token ids, or one of either per row. All take logits [..., vocab]; where answers are
given per row, [batch, vocab]. Natural logarithms, so KL is in nats.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float

from weft.errors import PositionError, ShapeError, TokenError, WeftError
from weft.trace.location import where
from weft.trace.tensor import Traced

Answer = Any
"""str, int, a list of either (one a row), or a LongTensor [batch]."""


def logit_diff(logits: Float[torch.Tensor, "*row vocab"], answer: Answer, other: Answer) -> Float[torch.Tensor, "*row"]:
    """Logit of `answer` minus logit of `other`, one number a row: [batch, vocab] → [batch]."""
    return _pick(logits, answer) - _pick(logits, other)


def prob(logits: Float[torch.Tensor, "*row vocab"], answer: Answer) -> Float[torch.Tensor, "*row"]:
    """Probability of `answer`: [batch, vocab] → [batch]."""
    return log_prob(logits, answer).exp()


def log_prob(logits: Float[torch.Tensor, "*row vocab"], answer: Answer) -> Float[torch.Tensor, "*row"]:
    """Log-probability of `answer` in nats: [batch, vocab] → [batch]."""
    return _pick(logits, answer) - torch.logsumexp(logits, -1)


def kl(
    logits: Float[torch.Tensor, "*#row vocab"], reference: Float[torch.Tensor, "*#row vocab"]
) -> Float[torch.Tensor, " *out"]:
    """KL(reference ‖ logits) in nats: what is lost when `logits` stands for `reference`; [..., vocab] → [...]."""
    p = torch.log_softmax(reference, -1)
    return (p.exp() * (p - torch.log_softmax(logits, -1))).sum(-1)


def cross_entropy(logits: Float[torch.Tensor, "*row vocab"], answer: Answer) -> Float[torch.Tensor, "*row"]:
    """Minus the log-probability of `answer`: [batch, vocab] → [batch]."""
    return -log_prob(logits, answer)


def score(run: Any, answers: str | list[str]) -> Float[torch.Tensor, " batch"]:
    """Teacher-forced log-probability of answers of any length: [batch].

    The run's prompts must end in their answers: `run = s.run([p + a for p, a in zip(prompts, answers)])`. The
    log-probabilities of the tokens that the answer lies in, each given the text before it, are summed. PositionError
    names the row that does not end in its answer.
    """
    texts = [answers] * run.batch if isinstance(answers, str) else list(answers)
    if len(texts) != run.batch:
        raise ShapeError(f"{len(texts)} answers for {run.batch} rows; give one a row, or one for all", where=where())
    tokenizer = run.session.model.tokens
    if tokenizer is None or run.tokens is None:
        raise TokenError("this model has no tokenizer; gather the log-probabilities of your ids", where=where())
    logs = torch.log_softmax(run.logits, -1)
    totals = []
    for row, text in enumerate(texts):
        first, count = _answer(run, tokenizer, row, text)
        places = torch.arange(run.pos - count, run.pos)
        totals.append(logs[row, places - 1, run.tokens[row, first:]].sum())
    return torch.stack(totals)


def _answer(run: Any, tokenizer: Any, row: int, text: str) -> tuple[int, int]:
    """Where a row's answer begins, and how many tokens it has: it must be what the row ends in."""
    start = int(run.start[row])
    own = run.tokens[row, start:].tolist()
    try:
        low, high = tokenizer.find(own, text, -1, row)
    except PositionError:
        low, high = 0, -1
    if high != len(own) - 1 or low < 1:
        raise PositionError(
            f"row {row} does not end in {text!r} after a prompt; run the prompt with its answer appended: "
            "s.run([p + a for p, a in zip(prompts, answers)])",
            where=where(),
        )
    return start + low, len(own) - low


def _pick(logits: torch.Tensor, answer: Answer) -> torch.Tensor:
    """The logits of the answers: [batch, vocab] → [batch] (one answer for all: [..., vocab] → [...])."""
    ids = _ids(logits, answer)
    if isinstance(ids, int):
        return logits[..., ids]
    if logits.dim() != 2 or logits.shape[0] != len(ids):
        raise ShapeError(
            f"{len(ids)} answers need logits [{len(ids)}, vocab], one row each, not {tuple(logits.shape)}; "
            "take one position a row first, e.g. run.logits[:, -1] or run.logits[run.rows, run.at(…)]",
            where=where(),
        )
    return logits[torch.arange(len(ids)), torch.as_tensor(ids)]


def _ids(logits: torch.Tensor, answer: Answer) -> int | list[int]:
    if isinstance(answer, Traced):
        found = answer.numbers
        answer = found if found is not None else answer.value
    if isinstance(answer, torch.Tensor):
        answer = answer.tolist()
    if isinstance(answer, list | tuple):
        return [_id(logits, item) for item in answer]
    return _id(logits, answer)


def _id(logits: torch.Tensor, answer: Any) -> int:
    vocabulary = logits.shape[-1]
    if isinstance(answer, str):
        answer = _token(logits, answer)
    if not isinstance(answer, int) or isinstance(answer, bool):
        raise TokenError(f"an answer is a string of one token or a token id, not {answer!r}", where=where())
    if not 0 <= answer < vocabulary:
        raise TokenError(f"token id {answer} is outside the vocabulary of {vocabulary}", where=where())
    return answer


def _token(logits: torch.Tensor, answer: str) -> int:
    tokenizer = logits._st.owner.model.tokens if isinstance(logits, Traced) else None
    if tokenizer is None:
        raise TokenError(
            f"these logits do not say which tokenizer {answer!r} is meant for; give token ids "
            "(model.tokens.single(text)), or take the metric inside the session",
            where=where(),
        )
    try:
        return tokenizer.single(answer)
    except WeftError as error:
        raise error.at(where()) from None
