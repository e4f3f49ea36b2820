"""Where methods look: places in the prompts, located by text or role, and the tokens in which answers begin.

Place(-1), Place(" Paris"), Place("query", prompts)     # a position, a text, a role of a task's prompts
Place.at(run)                                           # an index a row, or one index where all rows agree
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import weft


@dataclass(frozen=True)
class Place:
    """A place in each row of a run. `label` is what it is called in a result; `of` finds it."""

    label: str
    of: Callable[[Any], Any]
    whole: bool = False
    """Every position at once."""

    def at(self, run: Any) -> Any:
        """slice(None), or an int where all rows agree, or a LongTensor [batch]."""
        if self.whole:
            return slice(None)
        found = torch.as_tensor(self.of(run))
        if found.shape != (run.batch,):
            raise weft.errors.PositionError(
                f"the place {self.label!r} gave {tuple(found.shape)}; give one position a row: LongTensor [{run.batch}]"
            )
        first = int(found[0])
        return first if bool((found == first).all()) else found


def places(given: Any, prompts: Any) -> list[Place]:
    """The places meant by -1, " Paris", "query" (a role, if the prompts have it), a function of the run, or several of
    these; a mapping names them; "all" is every position at once."""
    if isinstance(given, Mapping):
        return [_place(each, prompts, str(label)) for label, each in given.items()]
    if isinstance(given, str | float) or callable(given) or not isinstance(given, Iterable):
        given = [given]
    found = [_place(each, prompts, None) for each in given]
    labels = [each.label for each in found]
    if not found or len(set(labels)) < len(labels):
        raise weft.errors.PositionError(f"places need labels that differ, not {labels}; name them: {{label: place, …}}")
    return found


def _place(given: Any, prompts: Any, label: str | None) -> Place:
    if isinstance(given, bool) or not (isinstance(given, str | int) or callable(given)):
        raise weft.errors.PositionError(
            f'a place is a position (-1), a text (" Paris"), a role ("query"), "all", or a function of a run, not {given!r}'
        )
    if isinstance(given, int):
        return Place(label or str(given), lambda run: run.at(given))
    if callable(given):
        return Place(label or getattr(given, "__name__", "place"), given)
    if given == "all":
        return Place(label or given, lambda run: slice(None), whole=True)
    if given in getattr(prompts, "roles", {}):
        return Place(label or given, lambda run: prompts.positions(run, given))
    return Place(label or given, lambda run: run.at(given))


def texts(prompts: Any) -> Any:
    """What a session runs: a task's prompts as their texts, one text as a list of one, anything else as it is."""
    if hasattr(prompts, "prompts"):
        return list(prompts.prompts)
    return [prompts] if isinstance(prompts, str) else prompts


def answer_ids(model: Any, prompts: Sequence[str], answers: Sequence[str]) -> torch.Tensor:
    """The token in which each answer begins after its prompt, LongTensor [row].

    A tokenizer may join the end of a prompt with the answer; then there is no such token, which is an error.
    """
    if model.tokens is None:
        raise weft.errors.TokenError("answers are texts and this model has no tokenizer; give a metric on the logits")
    unknown = model.tokens.data.get("unk_token")
    ids = []
    for prompt, answer in zip(prompts, answers, strict=True):
        before = model.tokens.encode([prompt]).ids[0].tolist()
        both = model.tokens.encode([prompt + answer]).ids[0].tolist()
        if both[: len(before)] != before or len(both) == len(before):
            raise weft.errors.TokenError(
                f"the tokens of {prompt[-20:]!r} change when {answer!r} follows, so the answer has no first token of its own; "
                "let the prompt end before a space and the answer begin with it"
            )
        token = both[len(before)]
        if unknown and model.tokens.decode([token]) == unknown:
            raise weft.errors.TokenError(
                f"this model's tokenizer has no token for how {answer!r} begins (it gives {unknown}): the model cannot say it"
            )
        ids.append(token)
    return torch.tensor(ids)


def site_index(
    axes: Sequence[str], run: Any, place: Place, head: int | None, order: torch.Tensor | None = None
) -> tuple[Any, ...]:
    """The index of a site with these axes at a place of a run and a head (None: all of them).

    `order`: which rows, one for each; left out, each row itself.
    """
    at = place.at(run)
    rows: Any = run.rows if isinstance(at, torch.Tensor) else slice(None)
    if order is not None:
        rows, at = order, at[order] if isinstance(at, torch.Tensor) else at
    own = {"batch": rows, "pos": at, "query_pos": at}
    own |= dict.fromkeys(HEADS, slice(None) if head is None else head)
    return tuple(own.get(axis, slice(None)) for axis in axes)


def sharp(tensor: torch.Tensor) -> torch.Tensor:
    """Half precision as float32, in which a difference of logits or a mean is not lost; anything else as it is."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def numbers(tensor: torch.Tensor) -> np.ndarray:
    """A result as numpy has it."""
    return sharp(tensor).numpy()


HEADS = ("head", "kv_head")


def heads_given(model: Any, heads: Iterable[Any]) -> list[tuple[int, int]]:
    """The (layer, head) pairs that someone gave, once each and in their order; ProgramError where the model has none such."""
    found: dict[tuple[int, int], None] = {}
    for each in heads:
        pair = tuple(each) if isinstance(each, Sequence | np.ndarray) else ()
        if len(pair) != 2 or not all(isinstance(part, int | np.integer) for part in pair):
            raise weft.errors.ProgramError(
                f"heads are (layer, head) pairs of whole numbers, [(15, 5), …], not {each!r}"
            )
        layer, head = int(pair[0]), int(pair[1])
        if not (0 <= layer < model.n_layers and 0 <= head < model.n_heads):
            raise weft.errors.ProgramError(
                f"no head L{layer}H{head}: this model has layers 0 to {model.n_layers - 1} and heads 0 to {model.n_heads - 1}"
            )
        found[layer, head] = None
    if not found:
        raise weft.errors.ProgramError(
            "heads=[] names no head; give some, [(15, 5), …], or leave heads out to have them found"
        )
    return list(found)
