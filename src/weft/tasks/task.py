"""What every task is: examples from a seed, a causal model, roles, and how well a model does.

task = SelectOne(distractors=4)
batch = task.sample(64, seed=0)                        # prompts, answers, counterfactual pairs, roles
task.causal_model.run(batch.inputs[0])["answer"]
task.evaluate(model, n=100).value                      # accuracy, with its interval and chance
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import weft
from weft.tasks.accuracy import Accuracy, accuracy
from weft.tasks.batch import Batch, Prompts, Text, gather
from weft.tasks.causal import CausalModel, Inputs
from weft.tasks.split import held_out

_TRIES = 20_000


class Pair(NamedTuple):
    """Causal inputs of a prompt and of its counterfactual."""

    base: Inputs
    counterfactual: Inputs


class Swap(NamedTuple):
    """An interchange: variables taken from the counterfactual, and variables frozen as they are in the base."""

    variables: tuple[str, ...]
    keep: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task(ABC):
    """A task is drawn, written and answered from `inputs` alone; see the abstract methods.

    `split` is "all", "train" (no held-out combination anywhere in the prompt) or "held_out" (the one asked about is).
    """

    name: ClassVar[str]
    measure: ClassVar[str] = "options"
    split: str = "all"

    @abstractmethod
    def draw(self, rng: random.Random) -> Pair | None:
        """Inputs of a prompt and its counterfactual, or None to have it tried again."""

    @abstractmethod
    def render(self, inputs: Inputs) -> Text:
        """The prompt, with its roles."""

    @property
    @abstractmethod
    def causal_model(self) -> CausalModel:
        """How the answer comes about."""

    @property
    @abstractmethod
    def swap(self) -> Swap:
        """The interchange that the counterfactual is made for."""

    @abstractmethod
    def options(self, inputs: Inputs) -> Sequence[Any]:
        """The answers to choose among, the right one with them."""

    def combinations(self, inputs: Inputs) -> Sequence[tuple[str, ...]]:
        """What is held out together, the combination asked about first; none means that nothing can be."""
        return ()

    @property
    def roles(self) -> tuple[str, ...]:
        """The names of the places in the prompt."""
        return tuple(self.sample(1).roles)

    def answer(self, inputs: Inputs) -> str:
        """The right answer, as it continues the prompt."""
        return self._written(self.causal_model.run(inputs)["answer"])

    def sample(self, n: int, seed: int = 0) -> Batch:
        """`n` pairs; a larger `n` with the same seed begins with the same ones."""
        pairs = [self._pair(random.Random(f"{self.name} {seed} {index}")) for index in range(n)]
        base = self.prompts([pair.base for pair in pairs])
        other = self.prompts([pair.counterfactual for pair in pairs])
        expected = tuple(self._expected(pair) for pair in pairs)
        return Batch(**vars(base), counterfactual=other, expected=expected)

    def prompts(self, inputs: Iterable[Inputs]) -> Prompts:
        """The prompts for causal inputs of one's own."""
        inputs = tuple(inputs)
        texts, roles = gather([self.render(each) for each in inputs])
        options = tuple(tuple(dict.fromkeys(map(self._written, self.options(each)))) for each in inputs)
        return Prompts(texts, tuple(map(self.answer, inputs)), options, roles, inputs)

    def interchange(self, batch: Batch, variables: Iterable[str], keep: Iterable[str] = ()) -> tuple[str, ...]:
        """The answers when these variables are as in the counterfactual: what a patch of them should bring."""
        swap = Swap(tuple(variables), tuple(keep))
        return tuple(
            self._expected(Pair(base, other), swap)
            for base, other in zip(batch.inputs, batch.counterfactual.inputs, strict=True)
        )

    def questions(self, n: int, seed: int = 0) -> Prompts:
        """`n` prompts to answer: of the pairs of that seed, by turns the prompt and the counterfactual.

        Where one of the two has a kind of answer of its own ("unknown"), both kinds are asked for equally often.
        """
        pairs = [self._pair(random.Random(f"{self.name} {seed} {index}")) for index in range(n)]
        return self.prompts(pair[index % 2] for index, pair in enumerate(pairs))

    def evaluate(self, model: Any, n: int = 100, seed: int = 0, *, measure: str | None = None) -> Accuracy:
        """How often the model is right: "options" (the likeliest one) or "exact" (each token of the answer first)."""
        return accuracy(model, self.questions(n, seed), measure or self.measure)

    def _pair(self, rng: random.Random) -> Pair:
        for _ in range(_TRIES):
            pair = self.draw(rng)
            if pair is not None and self._fits(pair) and self._expected(pair) != self.answer(pair.base):
                return pair
        raise weft.errors.ProgramError(
            f"{self.name}: no pair found in {_TRIES} tries with these settings; give more words, or fewer of them a prompt"
        )

    def _fits(self, pair: Pair) -> bool:
        if self.split == "all":
            return True
        if self.split not in ("train", "held_out"):
            raise weft.errors.ProgramError(f'split must be "all", "train" or "held_out", not {self.split!r}')
        both = [self.combinations(inputs) for inputs in pair]
        if not all(both):
            raise weft.errors.ProgramError(f"{self.name} has no combinations that could be held out; leave split out")
        if self.split == "held_out":
            return held_out(*both[0][0])
        return not any(held_out(*each) for combinations in both for each in combinations)

    def _expected(self, pair: Pair, swap: Swap | None = None) -> str:
        swap = swap or self.swap
        return self._written(self.causal_model.interchange(*pair, swap.variables, swap.keep)["answer"])

    def _written(self, answer: Any) -> str:
        """An answer as the text that continues the prompt."""
        return f" {answer}"
