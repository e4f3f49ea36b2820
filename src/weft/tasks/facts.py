"""Facts from a table of relations: `Facts()`, `Facts(tables=read_tables("assets/data/relations"))`.

"The capital of France is" → " Paris". The options are objects of the same relation. Counterfactuals, by `kind`:

subject      another subject of the relation; with it → its object
relation     another relation of the same subject; with it → what that relation makes of the subject
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import weft
from weft.tasks.batch import Text, write
from weft.tasks.causal import CausalModel, Inputs, Variable
from weft.tasks.tables import Table, own_tables
from weft.tasks.task import Pair, Swap, Task

SWAPS = {"subject": Swap(("subject",)), "relation": Swap(("relation",))}


@dataclass(frozen=True)
class Facts(Task):
    """Facts of `tables`, each told in one of its sentences, to be chosen among `choices` objects."""

    name: ClassVar[str] = "facts"
    tables: Mapping[str, Table] = field(default_factory=own_tables)
    kind: str = "subject"
    choices: int = 5

    def __post_init__(self) -> None:
        if self.kind not in SWAPS:
            raise weft.errors.ProgramError(f"kind must be one of {', '.join(SWAPS)}, not {self.kind!r}")

    def draw(self, rng: random.Random) -> Pair | None:
        relation = rng.choice(sorted(each.name for each in self.tables.values() if each.templates))
        subjects = sorted(self.tables[relation].facts)
        subject, other = rng.choice(subjects), rng.choice(subjects)
        base = self._inputs(rng, relation, subject)
        if self.kind == "subject":
            return Pair(base, {**base, "subject": other, "choices": self._choices(rng, relation, other)})
        sharing = [each.name for each in self.tables.values() if subject in each.facts and each.name != relation]
        return Pair(base, self._inputs(rng, rng.choice(sorted(sharing)), subject)) if sharing else None

    def _inputs(self, rng: random.Random, relation: str, subject: str) -> dict[str, object]:
        template = rng.choice(self.tables[relation].templates)
        choices = self._choices(rng, relation, subject)
        return {"relation": relation, "subject": subject, "template": template, "choices": choices}

    def _choices(self, rng: random.Random, relation: str, subject: str) -> tuple[str, ...]:
        right = self.tables[relation].facts[subject]
        others = sorted(set(self.tables[relation].facts.values()) - {right})
        return tuple(sorted([right, *rng.sample(others, min(self.choices - 1, len(others)))]))

    def render(self, inputs: Inputs) -> Text:
        before, after = inputs["template"].split("{}")
        head, space, last = after.rpartition(" ")
        text = write(before, ("subject", inputs["subject"]), head + space, ("end", last))
        return text if last else Text(text.prompt, {**text.roles, "end": text.roles["subject"]})

    @property
    def causal_model(self) -> CausalModel:
        tables = self.tables
        answer = Variable("answer", ("relation", "subject"), lambda relation, subject: tables[relation].facts[subject])
        return CausalModel(("relation", "subject"), (answer,))

    @property
    def swap(self) -> Swap:
        return SWAPS[self.kind]

    def options(self, inputs: Inputs) -> Sequence[str]:
        return inputs["choices"]

    def combinations(self, inputs: Inputs) -> Sequence[tuple[str, ...]]:
        return [(inputs["relation"], inputs["subject"])]
