"""Who filled what with what: `BeliefTracking(kind="answer_pointer", layout="crossed")`.

"Bob fills a cup with tea. Ann fills a jug with milk. … What does Bob believe is in the cup?" → " tea", and " unknown" for
what he did not fill himself. With `layout="pairs"` each character has an object of their own. With "crossed" each character
fills two objects and each object is filled by two characters, so that neither word alone finds the state. With "listed" each
has an object of their own and all is told in one sentence, "Bob and Ann fill a cup and a jug with tea and milk, in that
order.", so that no state stands beside a name: only its place says whose it is. With "numbered" it is a number that says so,
"Bob fills a cup from tap one. … Tap one has tea. …": what is asked about leads to the number, and that to the state.

Counterfactuals of Prakash et al. (arXiv 2505.14685), by `kind`; `batch.expected` follows from the causal model:

answer_pointer    the story reversed with fresh states, the same question → a third word: the prompt's state at that place
answer_payload    an unrelated story that has an answer; the prompt has none → the other story's answer
address_payload   the story reversed; patch the state words' tokens, matched by word → the state at the other place
query_character   the prompt asks about a pair that is not there; the counterfactual, reversed with fresh states, about one
query_object      that is, and shares the character (or the object) asked about → the state at the other's id
source            the story reversed; patch characters and objects, the states' addresses frozen → the state at the other place
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import weft
from weft.tasks.batch import Text, write
from weft.tasks.causal import CausalModel, Inputs, Variable
from weft.tasks.story import STORY, TELLING, UNKNOWN, Clauses, asked, fetched, fresh, pointed_at, reversed_with
from weft.tasks.task import Pair, Swap, Task
from weft.tasks.words.english import DRINKS, NUMBERS

SWAPS = {
    "answer_pointer": Swap(("answer_pointer",)),
    "answer_payload": Swap(("answer",)),
    "address_payload": Swap(("address", "state_id")),
    "query_character": Swap(("query_character_id",)),
    "query_object": Swap(("query_object_id",)),
    "source": Swap(("character_id", "object_id"), keep=("address", "state_id")),
}


@dataclass(frozen=True)
class BeliefTracking(Task):
    """`characters` characters; see the module for `kind` and `layout`. `preamble` is put before every story."""

    name: ClassVar[str] = "belief"
    kind: str = "answer_pointer"
    layout: str = "pairs"
    characters: int = 2
    preamble: str = ""

    def __post_init__(self) -> None:
        if self.kind not in SWAPS or self.layout not in TELLING:
            raise weft.errors.ProgramError(
                f"kind={self.kind!r}, layout={self.layout!r}; kinds are {', '.join(SWAPS)}, layouts {', '.join(TELLING)}"
            )
        if self.characters < (3 if self.layout == "crossed" else 2):
            raise weft.errors.ProgramError(
                f"{self.characters} characters are too few for {self.layout!r}: crossed takes 3 at least, the others 2"
            )

        if self.layout == "numbered" and self.characters >= len(NUMBERS):
            raise weft.errors.ProgramError(
                f"{self.characters} characters are too many for 'numbered': it has names for {len(NUMBERS) - 1} taps"
            )

    def draw(self, rng: random.Random) -> Pair | None:
        clauses = fresh(rng, self._pairs(rng))
        there = rng.choice(clauses)[:2]
        base, other = getattr(self, f"_{self.kind}")(rng, clauses, there)
        return Pair(*({"clauses": each, "character": who, "object": what} for each, (who, what) in (base, other)))

    def _pairs(self, rng: random.Random) -> list[tuple[int, int]]:
        """Which character has which object; crossed ones in any order, so that first appearance tells nothing."""
        n = self.characters
        own = [(each, each) for each in range(n)]
        if self.layout != "crossed":
            return own
        both = own + [(each, (each + 1) % n) for each in range(n)]
        return rng.sample(both, len(both))

    def _answer_pointer(self, rng: random.Random, clauses: Clauses, there: tuple[str, str]) -> tuple:
        return (clauses, there), (reversed_with(clauses, _others(rng, clauses)), there)

    def _answer_payload(self, rng: random.Random, clauses: Clauses, there: tuple[str, str]) -> tuple:
        other = fresh(rng, self._pairs(rng), clauses)
        return (clauses, rng.choice(_mismatched(clauses))), (other, rng.choice(other)[:2])

    def _address_payload(self, rng: random.Random, clauses: Clauses, there: tuple[str, str]) -> tuple:
        return (clauses, there), (clauses[::-1], there)

    _source = _address_payload

    def _query_character(self, rng: random.Random, clauses: Clauses, there: tuple[str, str]) -> tuple:
        absent = [(who, what) for who, what in _mismatched(clauses) if who == there[0]]
        return (clauses, rng.choice(absent)), (reversed_with(clauses, _others(rng, clauses)), there)

    def _query_object(self, rng: random.Random, clauses: Clauses, there: tuple[str, str]) -> tuple:
        absent = [(who, what) for who, what in _mismatched(clauses) if what == there[1]]
        return (clauses, rng.choice(absent)), (reversed_with(clauses, _others(rng, clauses)), there)

    def render(self, inputs: Inputs) -> Text:
        story = TELLING[self.layout](inputs["clauses"])
        return write(self.preamble, *story, *asked(inputs["character"], inputs["object"]))

    @property
    def causal_model(self) -> CausalModel:
        pointer = ("address", "state_id", "query_character_id", "query_object_id")
        return CausalModel(
            ("clauses", "character", "object"),
            (
                *STORY,
                Variable("answer_pointer", pointer, pointed_at),
                Variable("answer", ("answer_pointer", "state_id"), fetched),
            ),
        )

    @property
    def swap(self) -> Swap:
        return SWAPS[self.kind]

    def options(self, inputs: Inputs) -> Sequence[str]:
        return [*(state for _, _, state in inputs["clauses"]), UNKNOWN]

    def combinations(self, inputs: Inputs) -> Sequence[tuple[str, ...]]:
        return [(inputs["character"], inputs["object"]), *(clause[:2] for clause in inputs["clauses"])]


def _others(rng: random.Random, clauses: Clauses) -> list[str]:
    """As many states, none of them told in this story."""
    return rng.sample(sorted(set(DRINKS) - {state for _, _, state in clauses}), len(clauses))


def _mismatched(clauses: Clauses) -> list[tuple[str, str]]:
    """Characters with objects that they did not fill."""
    pairs = [clause[:2] for clause in clauses]
    everyone, everything = dict.fromkeys(a for a, _ in pairs), dict.fromkeys(b for _, b in pairs)
    return [(a, b) for a in everyone for b in everything if (a, b) not in pairs]
