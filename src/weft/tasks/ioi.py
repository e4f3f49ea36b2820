"""Indirect object identification: `IndirectObject()`.

"When Mary and John went to the store, John gave a drink to" → " Mary": the name that is not said twice (Wang et al., arXiv
2211.00593). The name said twice is as often the first as the second. Counterfactuals, by `kind`:

place        other people, and the other place doubled; with the answer's place → the prompt's name at that place
duplicate    the same sentence with the other one giving; with the name said twice → the prompt's other name
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import weft
from weft.tasks.batch import Text, write
from weft.tasks.causal import CausalModel, Inputs, Variable
from weft.tasks.task import Pair, Swap, Task
from weft.tasks.words.english import NAMES, OBJECTS, PLACES

SWAPS = {"place": Swap(("place",)), "duplicate": Swap(("duplicate",))}


@dataclass(frozen=True)
class IndirectObject(Task):
    """Two names, one of which comes twice; see the module for `kind`."""

    name: ClassVar[str] = "ioi"
    kind: str = "place"

    def __post_init__(self) -> None:
        if self.kind not in SWAPS:
            raise weft.errors.ProgramError(f"kind must be one of {', '.join(SWAPS)}, not {self.kind!r}")

    def draw(self, rng: random.Random) -> Pair | None:
        names, others = rng.sample(NAMES, 2), rng.sample(NAMES, 2)
        doubled = rng.randrange(2)
        base = {
            "names": tuple(names),
            "subject": names[doubled],
            "thing": rng.choice(OBJECTS),
            "scene": rng.choice(PLACES),
        }
        if self.kind == "duplicate":
            return Pair(base, {**base, "subject": names[1 - doubled]})
        other = {"names": tuple(others), "subject": others[1 - doubled]}
        return Pair(base, {**base, **other}) if not set(names) & set(others) else None

    def render(self, inputs: Inputs) -> Text:
        first, second = inputs["names"]
        text = write(
            "When ", ("name_0", first), " and ", ("name_1", second), " went to the ", ("scene", inputs["scene"]),
            ", ", ("subject", inputs["subject"]), " gave a ", ("thing", inputs["thing"]), " ", ("end", "to"),
        )  # fmt: skip
        place = inputs["names"].index(inputs["subject"])
        named = {"first_subject": text.roles[f"name_{place}"], "indirect_object": text.roles[f"name_{1 - place}"]}
        return Text(text.prompt, text.roles | named)

    @property
    def causal_model(self) -> CausalModel:
        return CausalModel(
            ("names", "subject"),
            (
                Variable("duplicate", ("names", "subject"), lambda names, subject: subject),
                Variable("place", ("names", "duplicate"), lambda names, twice: 1 - names.index(twice)),
                Variable("answer", ("names", "place"), lambda names, place: names[place]),
            ),
        )

    @property
    def swap(self) -> Swap:
        return SWAPS[self.kind]

    def options(self, inputs: Inputs) -> Sequence[str]:
        return inputs["names"]

    def combinations(self, inputs: Inputs) -> Sequence[tuple[str, ...]]:
        return [tuple(sorted(inputs["names"]))]
