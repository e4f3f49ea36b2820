"""Who can know what another did: `Visibility()`.

"Bob fills a cup with tea. Ann fills a jug with milk. Bob cannot see what Ann does. Ann can see what Bob does.\nQuestion: What
does Ann believe is in the cup?" → " tea"; had she not seen it, " unknown". The prompt asks a character about the other's
object, which they cannot see filled; the counterfactual tells of other people of whom the one asked about can see it. By
`kind` (Prakash et al., arXiv 2505.14685), what is interchanged, and where one would patch it:

source            the fact of seeing: the sentence about the one asked about (role `observer`)
address_pointer   the copies of its id at that sentence and at the question: both together
payload           the observed character's id, fetched to the question's tokens

The expected answer is always the prompt's own state.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import weft
from weft.tasks.batch import Text, write
from weft.tasks.causal import CausalModel, Inputs, Variable
from weft.tasks.story import STORY, UNKNOWN, Address, Clauses, Ids, asked, fetched, fresh, pointed_at, told
from weft.tasks.task import Pair, Swap, Task

SWAPS = {
    "source": Swap(("visibility",)),
    "address_pointer": Swap(("visibility_address", "visibility_pointer")),
    "payload": Swap(("observed",)),
}


@dataclass(frozen=True)
class Visibility(Task):
    """Two characters with an object each, and whether each sees what the other does; see the module for `kind`."""

    name: ClassVar[str] = "visibility"
    kind: str = "source"
    preamble: str = ""

    def __post_init__(self) -> None:
        if self.kind not in SWAPS:
            raise weft.errors.ProgramError(f"kind must be one of {', '.join(SWAPS)}, not {self.kind!r}")

    def draw(self, rng: random.Random) -> Pair | None:
        observer = rng.randrange(2)
        ours, theirs = rng.random() < 0.5, rng.random() < 0.5  # what the other one sees, which is not asked about
        base = fresh(rng, [(0, 0), (1, 1)])
        other = fresh(rng, [(0, 0), (1, 1)], base)
        return Pair(_inputs(base, observer, False, ours), _inputs(other, observer, True, theirs))

    def render(self, inputs: Inputs) -> Text:
        people = [clause[0] for clause in inputs["clauses"]]
        pieces: list[str | tuple[str, str]] = []
        for number, sees in enumerate(inputs["sees"]):
            can = "can" if sees else "cannot"
            pieces += [" ", (f"sees_{number}", f"{people[number]} {can} see what {people[1 - number]} does.")]
        text = write(self.preamble, *told(inputs["clauses"]), *pieces, *asked(inputs["character"], inputs["object"]))
        observer = text.roles[f"sees_{people.index(inputs['character'])}"]
        return Text(text.prompt, {**text.roles, "observer": observer})

    @property
    def causal_model(self) -> CausalModel:
        own = ("address", "state_id", "query_character_id", "query_object_id")
        return CausalModel(
            ("clauses", "sees", "character", "object"),
            (
                *STORY,
                Variable("visibility", ("sees",), _visibility),
                Variable("visibility_address", ("visibility",), lambda seen: seen),
                Variable("visibility_pointer", ("visibility", "query_character_id"), _pointer),
                Variable("observed", ("visibility_pointer", "visibility_address"), _observed),
                Variable("answer_pointer", (*own, "observed"), _known),
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


def _inputs(clauses: Clauses, observer: int, sees: bool, other_sees: bool) -> dict[str, object]:
    seeing = (other_sees, sees) if observer else (sees, other_sees)
    return {"clauses": clauses, "sees": seeing, "character": clauses[observer][0], "object": clauses[1 - observer][1]}


Seen = tuple[tuple[int, int], ...]
"""Visibility ids: (observer, observed), as ids of characters."""


def _visibility(sees: Sequence[bool]) -> Seen:
    return tuple((number, 1 - number) for number, each in enumerate(sees) if each)


def _pointer(seen: Seen, character: int) -> tuple[int, int] | None:
    """The id that the question's tokens hold: that of what the one asked about sees."""
    return next((each for each in seen if each[0] == character), None)


def _observed(pointer: tuple[int, int] | None, address: Seen) -> int | None:
    """Visibility lookback: the observed character, if the pointer finds its address."""
    return pointer[1] if pointer is not None and pointer in address else None


def _known(
    address: Mapping[str, Address], state_id: Ids, character: int, thing: int, observed: int | None
) -> int | None:
    """What the character did, or saw done."""
    own = pointed_at(address, state_id, character, thing)
    return own if own is not None or observed is None else pointed_at(address, state_id, observed, thing)
