"""Later than a year: `GreaterThan()`.

"The war lasted from the year 1732 to the year 17" → a number above 32 rather than below (Hanna et al., arXiv 2305.00586).
Half of the prompts run backwards ("… in the year 1732 and began in the year 17"), so that a large number is not right by
itself. Each prompt has two options, one on either side. The counterfactual runs the other way; with its direction the answer
is the prompt's other option.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from weft.tasks.batch import Text, write
from weft.tasks.causal import CausalModel, Inputs, Variable
from weft.tasks.task import Pair, Swap, Task
from weft.tasks.words.english import EVENTS

FORMS = {
    "later": (" lasted from the year ", " to the year "),
    "earlier": (" ended in the year ", " and began in the year "),
}


@dataclass(frozen=True)
class GreaterThan(Task):
    """Years from 11 to 18 hundred and 02 to 97."""

    name: ClassVar[str] = "greater_than"

    def draw(self, rng: random.Random) -> Pair | None:
        direction, other = rng.sample(sorted(FORMS), 2)
        return Pair(_inputs(rng, direction), _inputs(rng, other))

    def render(self, inputs: Inputs) -> Text:
        century, year = inputs["century"], inputs["year"]
        verb, then = FORMS[inputs["direction"]]
        return write(
            "The ", ("event", inputs["event"]), verb, ("century", century), ("year", f"{year:02d}"), then,
            ("end", century),
        )  # fmt: skip

    @property
    def causal_model(self) -> CausalModel:
        return CausalModel(
            ("year", "direction", "choices"),
            (
                Variable("allowed", ("year", "direction"), _allowed),
                Variable(
                    "answer", ("allowed", "choices"), lambda allowed, two: next(each for each in two if each in allowed)
                ),
            ),
        )

    @property
    def swap(self) -> Swap:
        return Swap(("direction",))

    def options(self, inputs: Inputs) -> Sequence[Any]:
        return inputs["choices"]

    def _written(self, answer: Any) -> str:
        return f"{answer:02d}"


def _inputs(rng: random.Random, direction: str) -> dict[str, object]:
    year = rng.randint(2, 97)
    choices = (rng.randint(0, year - 1), rng.randint(year + 1, 99))
    century = str(rng.randint(11, 18))
    return {"event": rng.choice(EVENTS), "century": century, "year": year, "direction": direction, "choices": choices}


def _allowed(year: int, direction: str) -> range:
    return range(year + 1, 100) if direction == "later" else range(year)
