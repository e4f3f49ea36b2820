"""Random words, and the same ones again as far as the one to be said: `RepeatedTokens(length=8)`.

RepeatedTokens.for_model(model)        # of words that are one token each in that model's vocabulary

No word says anything about the next, so only the earlier occurrence does. The counterfactual has the words in another order
and stops at another one: with its last word, the answer is what follows that word in the prompt.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import weft
from weft.tasks.batch import Text, write
from weft.tasks.causal import CausalModel, Inputs, Variable
from weft.tasks.task import Pair, Swap, Task
from weft.tasks.words.english import CONCEPTS, SHORT


@dataclass(frozen=True)
class RepeatedTokens(Task):
    """`length` different words of `words`, then the first of them again; at least two, so that none opens the text."""

    name: ClassVar[str] = "repeated"
    measure: ClassVar[str] = "exact"
    length: int = 8
    words: tuple[str, ...] = SHORT

    @classmethod
    def for_model(cls, model: Any, length: int = 8) -> RepeatedTokens:
        """The task with those of weft's words that are a token of their own in this model's vocabulary."""
        single = tuple(each for each in dict.fromkeys((*SHORT, *CONCEPTS)) if _is_token(model, each))
        if len(single) < length:
            raise weft.errors.ProgramError(
                f"{len(single)} of weft's words are one token each in this model, and {length} different ones are needed: "
                "RepeatedTokens(words=(…), length=…) takes words of your own"
            )
        return cls(length=length, words=single)

    def draw(self, rng: random.Random) -> Pair | None:
        ours = rng.sample(self.words, self.length)
        theirs = rng.sample(ours, self.length)
        again = [rng.randint(2, self.length - 1) for _ in range(2)]
        if theirs[again[1] - 1] == ours[-1]:
            return None  # what follows it in the prompt is the repetition, not a word of the list
        return Pair({"words": tuple(ours), "again": again[0]}, {"words": tuple(theirs), "again": again[1]})

    def render(self, inputs: Inputs) -> Text:
        words, again = inputs["words"], inputs["again"]
        pieces: list[str | tuple[str, str]] = []
        for number, each in enumerate(words):
            pieces += [" "] * (number > 0) + [(f"word_{number}", each)]
        for each in words[: again - 1]:
            pieces += [" ", each]
        text = write(*pieces, " ", ("end", words[again - 1]))
        earlier = {"earlier": text.roles[f"word_{again - 1}"], "answer": text.roles[f"word_{again}"]}
        return Text(text.prompt, text.roles | earlier)

    @property
    def causal_model(self) -> CausalModel:
        return CausalModel(
            ("words", "again"),
            (
                Variable("last_word", ("words", "again"), lambda words, again: words[again - 1]),
                Variable("match", ("words", "last_word"), lambda words, last: words.index(last)),
                Variable("answer", ("words", "match"), lambda words, match: words[match + 1]),
            ),
        )

    @property
    def swap(self) -> Swap:
        return Swap(("last_word",))

    def options(self, inputs: Inputs) -> Sequence[str]:
        return inputs["words"]


def _is_token(model: Any, word: str) -> bool:
    try:
        token = model.tokens.single(f" {word}")
    except weft.errors.TokenError:
        return False
    return model.tokens.decode([token]).strip() == word  # not the token for all that is unknown
