"""Prompts of examples: `Examples(pairs).few_shot("valid", 20)`, `.shuffled(…)`, `.bare("test")`.

Each example is written opening + input + middle + " " + output + closing; the query ends after its middle.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

import weft
from weft.methods.places import answer_ids

Form = tuple[str, str, str]
FORM: Form = ("Q: ", "\nA:", "\n\n")
OTHERS: tuple[Form, ...] = (("Input: ", "\nOutput:", "\n\n"), ("", " ->", "\n"), ("Q: ", "\nA:", "\n"))
"""Forms to try a vector in that was made from another one."""


class Asked(NamedTuple):
    """Prompts, the token in which each answer begins [row], and each prompt's query."""

    texts: list[str]
    ids: torch.Tensor
    queries: list[str]

    def take(self, rows: Sequence[int]) -> Asked:
        return Asked([self.texts[i] for i in rows], self.ids[list(rows)], [self.queries[i] for i in rows])


@dataclass(frozen=True)
class Examples:
    """Pairs cut into those shown, those asked about while searching ("valid"), and those asked about at the end ("test")."""

    model: Any
    pairs: Mapping[str, str]
    parts: Mapping[str, tuple[str, ...]]
    shots: int
    seed: int
    form: Form = FORM

    @classmethod
    def of(
        cls, model: Any, pairs: Mapping[str, str], shots: int, seed: int, held_out: float, form: Form, n_queries: int = 100
    ) -> Examples:  # fmt: skip
        """`held_out` of the pairs are asked about and never shown, half of them at the end; 0 cuts nothing.

        At most `n_queries` are asked about in each part.
        """
        words = sorted(pairs)
        random.Random(f"function vector {seed}").shuffle(words)
        count = round(len(words) * held_out)
        shown, valid, test = words[count:], words[: count // 2], words[count // 2 : count]
        if not held_out:
            valid = test = words
        if len(shown) < shots + (not held_out) or not valid or not test:
            raise weft.errors.ProgramError(
                f"{len(words)} pairs with held_out={held_out} leave {len(shown)} to show and {len(valid)} and {len(test)} to "
                f"ask about, and {shots} are shown at once; give more pairs, fewer shots, or held_out=0 (then the same pairs "
                "are shown and asked about, though never in one prompt)"
            )
        if form[1] != form[1].rstrip():
            raise weft.errors.ProgramError(
                f"form={form!r}: a prompt ends before a space, so the middle may not end in one"
            )
        parts = {"shown": tuple(shown), "valid": tuple(valid[:n_queries]), "test": tuple(test[:n_queries])}
        return cls(model, dict(pairs), parts, shots, seed, form)

    def few_shot(self, part: str, n: int | None = None, *, shuffled: bool = False) -> Asked:
        """`n` prompts (as many as there are queries) with examples; `shuffled`: their outputs change places."""
        queries, draw = self.parts[part], random.Random(f"{part} {shuffled} {self.seed}")
        asked = [queries[i % len(queries)] for i in range(len(queries) if n is None else n)]
        return self._asked([self._prompt(query, draw, shuffled) for query in asked], asked)

    def bare(self, part: str, queries: Sequence[str] | None = None) -> Asked:
        """The queries without examples."""
        asked = list(self.parts[part] if queries is None else queries)
        return self._asked([self.form[0] + query + self.form[1] for query in asked], asked)

    def without(self, part: str, n: int, kind: str) -> Asked:
        """`n` prompts that do not show the function: with "shuffled" outputs, or "zero-shot"."""
        if kind not in ("shuffled", "zero-shot"):
            raise weft.errors.ProgramError(f'effects_on is "shuffled" or "zero-shot", not {kind!r}')
        if kind == "shuffled":
            return self.few_shot(part, n, shuffled=True)
        return self.bare(part, [self.parts[part][i % len(self.parts[part])] for i in range(n)])

    def only(self, part: str, queries: Sequence[str]) -> Examples:
        """With these queries alone in a part."""
        return replace(self, parts={**self.parts, part: tuple(queries)})

    def _asked(self, texts: list[str], asked: list[str]) -> Asked:
        return Asked(texts, answer_ids(self.model, texts, [f" {self.pairs[query]}" for query in asked]), asked)

    def _prompt(self, query: str, draw: random.Random, shuffled: bool) -> str:
        shown = draw.sample([word for word in self.parts["shown"] if word != query], self.shots)
        outputs = [self.pairs[word] for word in shown]
        if shuffled:
            draw.shuffle(outputs)
        opening, middle, closing = self.form
        made = [f"{opening}{x}{middle} {y}{closing}" for x, y in zip(shown, outputs, strict=True)]
        return "".join(made) + opening + query + middle


def other_forms(model: Any, form: Form) -> list[Form]:
    """Those of weft's forms that the tokenizer has words for, but for the one given."""
    unknown = model.tokens.data.get("unk_token")

    def known(each: Form) -> bool:
        pieces = [piece.strip(" ") for piece in each if piece.strip(" ")]
        ids = [token for piece in pieces for token in model.tokens.encode([piece]).ids[0].tolist()]
        return not unknown or all(model.tokens.decode([token]) != unknown for token in ids)

    return [each for each in OTHERS if each != tuple(form) and known(each)]
