"""Which word of a list is of a kind: SelectOne, SelectFirst, SelectLast, Count, Exists.

SelectOne(distractors=5)                               # Options: …\nWhich of these is a kind of fruit?\nAnswer:
SelectOne(question_first=True)                         # the eager twin: the question comes before the list
SelectOne(categories=RHYMES, question="Which of these rhymes with {}?")       # a predicate of sound, as a control
SelectOne(categories=categories("tavi"))               # words whose kind is known only at their last syllable

The pairing of Sen Sharma et al. (arXiv 2510.26784): the counterfactual asks for another category of another list; the
prompt's own list holds words of both; and neither the answer nor the word that the other question would pick stands where
the counterfactual's answer does, so a copied position cannot pass for a copied predicate.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

import weft
from weft.tasks.batch import Batch, Prompts, Text, write
from weft.tasks.causal import CausalModel, Inputs, Variable
from weft.tasks.task import Pair, Swap, Task
from weft.tasks.words.english import CATEGORIES, EXCLUDED, NUMBERS


@dataclass(frozen=True)
class Filtering(Task):
    """A list of `distractors + 1` words and a question about a category."""

    ask: ClassVar[str]
    decided: ClassVar[
        tuple[Variable, ...]
    ]  # how the answer follows from `flags`: of each word, whether it is of the kind
    least: ClassVar[int] = 6  # words of a category that a pair may take
    distractors: int = 4
    question_first: bool = False
    categories: Mapping[str, Sequence[str]] = field(default_factory=lambda: CATEGORIES)
    question: str | None = None

    def __post_init__(self) -> None:
        if self.question is not None and self.question.count("{}") != 1:
            raise weft.errors.ProgramError(
                f"the question {self.question!r} needs one {{}} where the category goes: {self.ask!r}"
            )
        short = [f"{name!r} has {len(own)} words" for name, own in self.categories.items() if len(own) < self.least]
        if short or len(self.categories) < self.distractors + 1:
            raise weft.errors.ProgramError(
                f"{self.name} with {self.distractors} distractors needs {self.distractors + 1} categories of {self.least} "
                f"words or more; {short[0] if short else f'there are {len(self.categories)}'}: give more, or fewer distractors"
            )

    @abstractmethod
    def counts(self, rng: random.Random) -> tuple[int, int]:
        """How many words of the list are of the category asked about, and how many of the pair's other one."""

    def draw(self, rng: random.Random) -> Pair | None:
        theirs, ours = rng.sample(sorted(self.categories), 2)
        if theirs in EXCLUDED.get(ours, ()) or ours in EXCLUDED.get(theirs, ()):
            return None
        words = {name: rng.sample(list(members), len(members)) for name, members in self.categories.items()}
        base = self._list(rng, words, ours, theirs)
        other = self._list(rng, words, theirs, ours)
        pair = Pair({"items": base, "category": ours}, {"items": other, "category": theirs})
        return pair if self._apart(pair) else None

    def _list(self, rng: random.Random, words: dict[str, list[str]], asked: str, other: str) -> tuple[str, ...]:
        """A shuffled list; its words are taken out of `words`, so that two lists share none."""
        wanted, unwanted = self.counts(rng)
        excluded = {asked, other, *EXCLUDED.get(asked, ()), *EXCLUDED.get(other, ())}
        rest = rng.sample(sorted(set(words) - excluded), self.distractors + 1 - wanted - unwanted)
        chosen = [words[name].pop() for name in [asked] * wanted + [other] * unwanted + rest]
        return tuple(rng.sample(chosen, len(chosen)))

    def _apart(self, pair: Pair) -> bool:
        """Whether the answer and the target stand elsewhere than the counterfactual's answer (where answers do stand)."""
        if "index" not in self.causal_model.variables:
            return True
        there = self.causal_model.run(pair.counterfactual)["index"]
        swapped = self.causal_model.interchange(*pair, ["category"])["index"]
        return there not in (self.causal_model.run(pair.base)["index"], swapped)

    def render(self, inputs: Inputs) -> Text:
        before, after = (self.question or self.ask).split("{}")
        question = [before, ("category", inputs["category"]), after[:-1], ("question_mark", after[-1]), "\n"]
        listed: list[str | tuple[str, str]] = ["Options: "]
        for number, item in enumerate(inputs["items"]):
            listed += [", "] * (number > 0) + [(f"option_{number}", item)]
        listed += [".\n"]
        text = write(*(question + listed if self.question_first else listed + question), ("end", "Answer:"))
        found = self.causal_model.run(inputs).get("index")
        return text if found is None else Text(text.prompt, {**text.roles, "answer": text.roles[f"option_{found}"]})

    def options(self, inputs: Inputs) -> Sequence[str]:
        return inputs["items"]

    def combinations(self, inputs: Inputs) -> Sequence[tuple[str, ...]]:
        """Words that stand one after the other; first those with a word of the category."""
        members = set(self.categories[inputs["category"]])
        return sorted(pairwise(inputs["items"]), key=lambda two: members.isdisjoint(two))

    @property
    def swap(self) -> Swap:
        return Swap(("category",))

    @property
    def causal_model(self) -> CausalModel:
        flags = Variable("flags", ("items", "category"), self._flags)
        return CausalModel(("items", "category"), (flags, *self.decided))

    def _flags(self, items: tuple[str, ...], category: str) -> tuple[bool, ...]:
        return tuple(item in self.categories[category] for item in items)

    def gold(self, batch: Batch) -> Prompts:
        """The counterfactual's question about the prompt's own list: what a patched model should behave like."""
        pairs = zip(batch.inputs, batch.counterfactual.inputs, strict=True)
        return self.prompts({**base, "category": other["category"]} for base, other in pairs)

    def copies(self, prompts: Prompts) -> tuple[Prompts, ...]:
        """The same questions with the answer swapped into each place of the list, to average its position away."""
        return tuple(
            self.prompts(self._moved(each, to) for each in prompts.inputs) for to in range(self.distractors + 1)
        )

    def _moved(self, inputs: Inputs, to: int) -> Inputs:
        items = list(inputs["items"])
        at = self.causal_model.run(inputs)["index"]
        items[at], items[to] = items[to], items[at]
        return {**inputs, "items": tuple(items)}


def _picked(index: Variable) -> tuple[Variable, ...]:
    return (index, Variable("answer", ("items", "index"), lambda items, index: items[index]))


@dataclass(frozen=True)
class SelectOne(Filtering):
    """The one word of the category."""

    least: ClassVar[int] = 2
    name: ClassVar[str] = "select_one"
    ask: ClassVar[str] = "Which of these is a kind of {}?"
    decided: ClassVar[tuple[Variable, ...]] = _picked(Variable("index", ("flags",), lambda flags: flags.index(True)))

    def counts(self, rng: random.Random) -> tuple[int, int]:
        return 1, 1


@dataclass(frozen=True)
class SelectFirst(Filtering):
    """The first of two or three words of the category."""

    name: ClassVar[str] = "select_first"
    ask: ClassVar[str] = "Which is the first of these that is a kind of {}?"
    decided: ClassVar[tuple[Variable, ...]] = _picked(Variable("index", ("flags",), lambda flags: flags.index(True)))

    def counts(self, rng: random.Random) -> tuple[int, int]:
        fitting = [(a, b) for a in (2, 3) for b in (1, 2, 3) if a + b <= self.distractors + 1]
        return rng.choice(fitting)


@dataclass(frozen=True)
class SelectLast(SelectFirst):
    """The last of two or three words of the category."""

    name: ClassVar[str] = "select_last"
    ask: ClassVar[str] = "Which is the last of these that is a kind of {}?"
    decided: ClassVar[tuple[Variable, ...]] = _picked(
        Variable("index", ("flags",), lambda flags: len(flags) - 1 - flags[::-1].index(True))
    )


@dataclass(frozen=True)
class Count(Filtering):
    """How many words are of the category, from none to three, each number as often as the others."""

    name: ClassVar[str] = "count"
    ask: ClassVar[str] = "How many of these are a kind of {}?"
    decided: ClassVar[tuple[Variable, ...]] = (Variable("answer", ("flags",), lambda flags: NUMBERS[sum(flags)]),)

    def counts(self, rng: random.Random) -> tuple[int, int]:
        most = min(3, self.distractors)
        wanted = rng.randint(0, most)
        return wanted, rng.choice([b for b in range(most + 1) if b != wanted and wanted + b <= self.distractors + 1])

    def options(self, inputs: Inputs) -> Sequence[str]:
        return NUMBERS[: min(3, self.distractors) + 1]


@dataclass(frozen=True)
class Exists(Filtering):
    """Whether any word is of the category; half the answers are yes."""

    least: ClassVar[int] = 2
    name: ClassVar[str] = "exists"
    ask: ClassVar[str] = "Is any of these a kind of {}?"
    decided: ClassVar[tuple[Variable, ...]] = (
        Variable("answer", ("flags",), lambda flags: "yes" if any(flags) else "no"),
    )

    def counts(self, rng: random.Random) -> tuple[int, int]:
        return rng.choice([(1, 0), (0, 1)])

    def options(self, inputs: Inputs) -> Sequence[str]:
        return "yes", "no"
