"""A list of words and its translation, the last one left to say: `Translation(length=5)`.

Three invented languages and English name the same concepts, with words of several tokens. Counterfactuals, by `kind`:

"concept"    another list, of other languages; with its concept the answer is its word in the prompt's own language
"language"   the same list, to be put into another language; with its language the answer is that language's word

The first is the claim of Feucht et al. (arXiv 2504.03022): concept heads carry what is meant and not the language.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from weft.tasks.batch import Text, write
from weft.tasks.causal import CausalModel, Inputs, Variable
from weft.tasks.task import Pair, Swap, Task
from weft.tasks.words.english import CONCEPTS
from weft.tasks.words.languages import ENGLISH, LANGUAGES, word

ALL = (*LANGUAGES, ENGLISH)


@dataclass(frozen=True)
class Translation(Task):
    """`length` words in one of `languages`, listed, and then all but the last of them in another."""

    name: ClassVar[str] = "translation"
    measure: ClassVar[str] = "exact"
    length: int = 5
    languages: tuple[str, ...] = ALL
    kind: str = "concept"

    def draw(self, rng: random.Random) -> Pair | None:
        source, target = rng.sample(self.languages, 2)
        concepts = rng.sample(CONCEPTS, 2 * self.length)
        base = {"concepts": tuple(concepts[: self.length]), "source": source, "target": target}
        if self.kind == "language":
            other = [each for each in self.languages if each not in (source, target)]
            return Pair(base, {**base, "target": rng.choice(other)}) if other else None
        theirs = rng.sample(self.languages, 2)
        if theirs[1] == target:
            return None
        return Pair(base, {"concepts": tuple(concepts[self.length :]), "source": theirs[0], "target": theirs[1]})

    def render(self, inputs: Inputs) -> Text:
        return _listed(
            [word(inputs["source"], each) for each in inputs["concepts"]],
            [word(inputs["target"], each) for each in inputs["concepts"]],
            ("source_language", inputs["source"].capitalize()),
            ("target_language", inputs["target"].capitalize()),
        )

    @property
    def causal_model(self) -> CausalModel:
        return CausalModel(
            ("concepts", "source", "target"),
            (
                Variable("word", ("concepts", "source"), lambda concepts, source: word(source, concepts[-1])),
                Variable("concept", ("word", "source"), _meaning),
                Variable("answer", ("concept", "target"), lambda concept, target: word(target, concept)),
            ),
        )

    @property
    def swap(self) -> Swap:
        return Swap(("target",) if self.kind == "language" else ("concept",))

    def options(self, inputs: Inputs) -> Sequence[str]:
        """The asked concept in every language, and the list in the language asked for."""
        asked = [word(language, inputs["concepts"][-1]) for language in self.languages]
        return [*asked, *(word(inputs["target"], each) for each in inputs["concepts"])]

    def combinations(self, inputs: Inputs) -> Sequence[tuple[str, ...]]:
        """Concepts that stand one after the other, the last two first."""
        return list(pairwise(inputs["concepts"]))[::-1]


def _meaning(spoken: str, language: str) -> str:
    return next(each for each in CONCEPTS if word(language, each) == spoken)


def _listed(words: Sequence[str], again: Sequence[str], first: tuple[str, str], second: tuple[str, str]) -> Text:
    """Two numbered lists with a heading each; the second stops before its last word."""
    pieces: list[str | tuple[str, str]] = [first, " words:\n"]
    for number, each in enumerate(words):
        pieces += [f"{number + 1}. ", (f"word_{number}", each), "\n"]
    pieces += [second, " words:\n"]
    for number, each in enumerate(again[:-1]):
        pieces += [f"{number + 1}. ", (f"translation_{number}", each), "\n"]
    text = write(*pieces, ("end", f"{len(words)}."))
    return Text(text.prompt, {**text.roles, "asked": text.roles[f"word_{len(words) - 1}"]})
