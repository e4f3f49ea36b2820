"""In-context functions: pairs that show a relation, and one more input. `InContextFunctions(shots=5)`

"Q: cat\nA: cats\n\nQ: dog\nA:" → " dogs". Every word takes part in several relations, so only the examples say which one is
meant (Todd et al., arXiv 2310.15213). Counterfactuals, by `kind`:

"function"   the same inputs under another relation; with its function the query has another answer
"shuffled"   the prompt itself has its examples' outputs shuffled, so it shows no function; the counterfactual is in order
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from weft.tasks.batch import Prompts, Text, gather, write
from weft.tasks.causal import CausalModel, Inputs, Variable
from weft.tasks.split import held_out
from weft.tasks.task import Pair, Swap, Task
from weft.tasks.words.relations import DOMAINS, RELATIONS, of_domain

UNKNOWN = "unknown"


@dataclass(frozen=True)
class InContextFunctions(Task):
    """`shots` examples of one of `relations` (all of them by default), then a query; `form` writes one example."""

    name: ClassVar[str] = "functions"
    measure: ClassVar[str] = "exact"
    shots: int = 5
    relations: tuple[str, ...] = tuple(RELATIONS)
    kind: str = "function"
    form: tuple[str, str, str] = ("Q: ", "\nA:", "\n\n")

    def draw(self, rng: random.Random) -> Pair | None:
        domain = rng.choice([each for each in DOMAINS if len(self._of(each)) > 1])
        ours, theirs = rng.sample(self._of(domain), 2)
        shared = sorted(set(RELATIONS[ours].pairs) & set(RELATIONS[theirs].pairs))
        if self.split != "all":  # the examples are of the training side always; the query is what may be held out
            asked = [word for word in shared if held_out(ours, word) == (self.split == "held_out")]
            shown = [word for word in shared if not held_out(ours, word) and not held_out(theirs, word)]
        else:
            asked = shown = shared
        if not asked or len(shown) <= self.shots:
            return None
        query = rng.choice(asked)
        inputs = rng.sample([word for word in shown if word != query], self.shots)
        pair = Pair(self._inputs(ours, inputs, query), self._inputs(theirs, inputs, query))
        if self.kind == "shuffled":
            pair = Pair(_shuffled(rng, pair.base), pair.base)
        infer = self.causal_model.run
        functions = [infer(each)["function"] for each in pair]
        return pair if functions == ([None, ours] if self.kind == "shuffled" else [ours, theirs]) else None

    def _of(self, domain: str) -> list[str]:
        return [each.name for each in of_domain(domain) if each.name in self.relations]

    def _inputs(self, relation: str, shown: Sequence[str], query: str) -> dict[str, object]:
        pairs = RELATIONS[relation].pairs
        return {"examples": tuple((x, pairs[x]) for x in shown), "query": query, "relation": relation}

    def render(self, inputs: Inputs) -> Text:
        opening, middle, closing = self.form
        pieces: list[str | tuple[str, str]] = []
        for number, (x, y) in enumerate(inputs["examples"]):
            pieces += [
                opening,
                (f"input_{number}", x),
                (f"colon_{number}", middle),
                " ",
                (f"output_{number}", y),
                closing,
            ]
        return write(*pieces, opening, ("query", inputs["query"]), ("end", middle))

    @property
    def causal_model(self) -> CausalModel:
        return CausalModel(
            ("examples", "query"),
            (
                Variable("function", ("examples",), self._function),
                Variable(
                    "answer", ("function", "query"), lambda name, x: RELATIONS[name].pairs[x] if name else UNKNOWN
                ),
            ),
        )

    def _function(self, examples: tuple[tuple[str, str], ...]) -> str | None:
        """The one relation that all examples agree with; None if there is none, or more than one."""
        found = [name for name in self.relations if all(RELATIONS[name].pairs.get(x) == y for x, y in examples)]
        return found[0] if len(found) == 1 else None

    @property
    def swap(self) -> Swap:
        return Swap(("function",))

    def options(self, inputs: Inputs) -> Sequence[str]:
        """What any relation makes of the query, and the outputs shown."""
        query = inputs["query"]
        outputs = [RELATIONS[name].pairs[query] for name in self.relations if query in RELATIONS[name].pairs]
        unknown = [UNKNOWN] * (self.causal_model.run(inputs)["function"] is None)
        return [*outputs, *(y for _, y in inputs["examples"]), *unknown]

    def bare(self, prompts: Prompts) -> Prompts:
        """The same queries without their examples, the answers as they were: how much a word gives away by itself."""
        texts, roles = gather([self.render({**each, "examples": ()}) for each in prompts.inputs])
        return Prompts(texts, prompts.answers, prompts.options, roles, prompts.inputs)

    def combinations(self, inputs: Inputs) -> Sequence[tuple[str, ...]]:
        words = [inputs["query"], *(x for x, _ in inputs["examples"])]
        return [(inputs["relation"], word) for word in words]


def _shuffled(rng: random.Random, inputs: Inputs) -> dict[str, object]:
    outputs = [y for _, y in inputs["examples"]]
    rng.shuffle(outputs)
    return {**inputs, "examples": tuple((x, y) for (x, _), y in zip(inputs["examples"], outputs, strict=True))}
