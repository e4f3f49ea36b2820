"""Which attribute belongs to whom: `EntityBinding(entities=3)`.

"Alice lives in the capital city of France. Bob lives in the capital city of Peru. …\nTherefore, Bob lives in the capital city
of" → " Peru" (Feng & Steinhardt, arXiv 2310.17191). Counterfactuals, by `kind`:

query        other people and countries, another one asked about; with its binding id → the prompt's attribute of that id
entities     the sentences reversed; people have the ids that they have there → the attribute bound to that id here
attributes   the same for attributes; with both interchanged the answer is the prompt's own again
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import weft
from weft.tasks.batch import Text, write
from weft.tasks.causal import CausalModel, Inputs, Variable
from weft.tasks.story import ordering_ids
from weft.tasks.task import Pair, Swap, Task
from weft.tasks.words.english import NAMES
from weft.tasks.words.relations import RELATIONS

SWAPS = {"query": Swap(("query_id",)), "entities": Swap(("entity_id",)), "attributes": Swap(("attribute_id",))}
COUNTRIES = tuple(RELATIONS["capital"].pairs)


@dataclass(frozen=True)
class EntityBinding(Task):
    """`entities` people with a country each; see the module for `kind`."""

    name: ClassVar[str] = "binding"
    kind: str = "query"
    entities: int = 3
    says: str = " lives in the capital city of"

    def __post_init__(self) -> None:
        if self.kind not in SWAPS or self.entities < 2:
            raise weft.errors.ProgramError(
                f"kind={self.kind!r}, entities={self.entities}; kinds are {', '.join(SWAPS)}, and there are 2 entities or more"
            )

    def draw(self, rng: random.Random) -> Pair | None:
        ours, theirs = self._bound(rng), self._bound(rng)
        base = {"bound": ours, "query": rng.choice(ours)[0]}
        if self.kind == "query":
            if set(sum(ours, ())) & set(sum(theirs, ())):
                return None  # else the other prompt's answer could pass for one of this prompt's
            return Pair(base, {"bound": theirs, "query": rng.choice(theirs)[0]})
        return Pair(base, {"bound": ours[::-1], "query": base["query"]})

    def _bound(self, rng: random.Random) -> tuple[tuple[str, str], ...]:
        return tuple(zip(rng.sample(NAMES, self.entities), rng.sample(COUNTRIES, self.entities), strict=True))

    def render(self, inputs: Inputs) -> Text:
        pieces: list[str | tuple[str, str]] = []
        for number, (entity, attribute) in enumerate(inputs["bound"]):
            pieces += [" "] * (number > 0) + [(f"entity_{number}", entity), f"{self.says} "]
            pieces += [(f"attribute_{number}", attribute), "."]
        *rest, last = self.says.split(" ")
        return write(*pieces, "\nTherefore, ", ("query", inputs["query"]), " ".join(rest) + " ", ("end", last))

    @property
    def causal_model(self) -> CausalModel:
        return CausalModel(
            ("bound", "query"),
            (
                Variable("entity_id", ("bound",), lambda bound: ordering_ids([each for each, _ in bound])),
                Variable("attribute_id", ("bound",), lambda bound: ordering_ids([each for _, each in bound])),
                Variable("query_id", ("entity_id", "query"), lambda ids, word: ids[word]),
                Variable("answer", ("attribute_id", "query_id"), lambda ids, query: _with_id(ids, query)),
            ),
        )

    @property
    def swap(self) -> Swap:
        return SWAPS[self.kind]

    def options(self, inputs: Inputs) -> Sequence[str]:
        return [attribute for _, attribute in inputs["bound"]]

    def combinations(self, inputs: Inputs) -> Sequence[tuple[str, ...]]:
        asked = inputs["query"]
        return sorted(inputs["bound"], key=lambda pair: pair[0] != asked)


def _with_id(ids: dict[str, int], wanted: int) -> str:
    return next(word for word, number in ids.items() if number == wanted)
