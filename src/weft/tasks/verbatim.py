"""A list of words to be repeated as it stands, the last one left to say: `VerbatimLists(language="tavi")`.

The twin of translation in which meaning is of no use: copying tokens is enough, and with `language="nonsense"` there is no
meaning at all. The counterfactual is the same list with another last word.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from weft.tasks.batch import Text, write
from weft.tasks.causal import CausalModel, Inputs, Variable
from weft.tasks.task import Pair, Swap, Task
from weft.tasks.words.english import CONCEPTS
from weft.tasks.words.languages import ENGLISH, LANGUAGES, nonsense, word

KINDS = (*LANGUAGES, ENGLISH, "nonsense")


@dataclass(frozen=True)
class VerbatimLists(Task):
    """`length` words of a language (each time another one if `language` is "any"), and the list again but for its last."""

    name: ClassVar[str] = "verbatim"
    measure: ClassVar[str] = "exact"
    length: int = 5
    language: str = "any"

    def draw(self, rng: random.Random) -> Pair | None:
        language = rng.choice(KINDS) if self.language == "any" else self.language
        known = [nonsense(each) for each in range(256)] if language == "nonsense" else _vocabulary(language)
        *words, other = rng.sample(known, self.length + 1)
        return Pair({"words": tuple(words)}, {"words": (*words[:-1], other)})

    def render(self, inputs: Inputs) -> Text:
        words = inputs["words"]
        pieces: list[str | tuple[str, str]] = ["Words:\n"]
        for number, each in enumerate(words):
            pieces += [f"{number + 1}. ", (f"word_{number}", each), "\n"]
        pieces += ["The same words:\n"]
        for number, each in enumerate(words[:-1]):
            pieces += [f"{number + 1}. ", (f"copy_{number}", each), "\n"]
        text = write(*pieces, ("end", f"{len(words)}."))
        return Text(text.prompt, {**text.roles, "asked": text.roles[f"word_{len(words) - 1}"]})

    @property
    def causal_model(self) -> CausalModel:
        place = Variable("place", ("words",), lambda words: len(words) - 1)
        return CausalModel(("words",), (place, Variable("answer", ("words", "place"), lambda words, at: words[at])))

    @property
    def swap(self) -> Swap:
        return Swap(("answer",))

    def options(self, inputs: Inputs) -> Sequence[str]:
        return inputs["words"]

    def combinations(self, inputs: Inputs) -> Sequence[tuple[str, ...]]:
        return [(inputs["words"][-2], inputs["words"][-1])]


def _vocabulary(language: str) -> list[str]:
    return [word(language, each) for each in CONCEPTS]
