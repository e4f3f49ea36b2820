"""More questions about one text, so that a story or a list is read once and asked about several times.

several(task, inputs, rng, 3)                          # causal inputs: these, and up to two others with the same text

Nothing held out is asked about in the training split; see `weft.tasks.held_out`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from typing import Any

from weft import tasks
from weft.tasks.words.english import EXCLUDED, NUMBERS

Inputs = Mapping[str, Any]


def several(task: tasks.Task, inputs: Inputs, rng: random.Random, count: int, untold: float = 0.5) -> list[Inputs]:
    """`inputs` and up to `count - 1` others that differ in the question alone, in random order.

    For each told pair of a story, up to `untold` others that it says nothing about.
    """
    others = [each for each in _questions(task, inputs, rng, untold) if each != inputs and not _held_out(task, each)]
    return [inputs, *rng.sample(others, min(count - 1, len(others)))]


def joined(prompts: tasks.Prompts) -> tuple[str, tuple[tuple[int, int], ...]]:
    """One text of prompts that begin alike up to their first line's end, each answered; and where the answers stand."""
    text, answers = "", []
    for prompt, answer in zip(prompts.prompts, prompts.answers, strict=True):
        text += prompt[prompt.index("\n") :] if text else prompt
        answers.append((len(text), len(text) + len(answer)))
        text += answer
    return text, tuple(answers)


def shortened(prompts: tasks.Prompts) -> tuple[str, tuple[tuple[int, int], ...]]:
    """A list or a story, and after it what is asked about alone: "Options: oak, bus.\\nvehicle: bus\\ntree: oak"."""
    first = prompts.inputs[0]
    text = f"Options: {', '.join(first['items'])}." if "items" in first else prompts.prompts[0].partition("\n")[0]
    answers = []
    for inputs, answer in zip(prompts.inputs, prompts.answers, strict=True):
        text += f"\n{inputs['category'] if 'items' in inputs else inputs['character'] + ' ' + inputs['object']}:"
        answers.append((len(text), len(text) + len(answer)))
        text += answer
    return text, tuple(answers)


def led(prompts: tasks.Prompts, rng: random.Random) -> tuple[str, tuple[tuple[int, int], ...]]:
    """A numbered story, and after it who leads to which number and which number to what: "Bob tap: two\ntwo: milk"."""
    text, answers = prompts.prompts[0].partition("\n")[0], []
    steps = []
    for number, (who, what, state) in zip(NUMBERS[1:], prompts.inputs[0]["clauses"], strict=False):
        steps += [(f"{who} tap", number), (number, state), (f"{who} {what}", state)]
    for asked, answer in rng.sample(steps, rng.randint(3, len(steps))):
        text += f"\n{asked}:"
        answers.append((len(text), len(text) + len(answer) + 1))
        text += f" {answer}"
    return text, tuple(answers)


def retold(prompt: str, rng: random.Random) -> tuple[str, tuple[tuple[int, int], ...]]:
    """A story without its question, and its sentences again in other orders; and what of those the story decides.

    A clause decides its state; in a story whose characters have an object each, the name decides the object too.
    """
    sentences = re.findall(r"[^.]+\.", prompt[: prompt.index("\n")])
    known = _LOOKUP if len(set(re.findall(r"(\w+) fills", prompt))) == len(sentences) else _LAST
    text, counted = "".join(sentences), []
    for _ in range(rng.randint(1, 2 if len(sentences) < 4 else 1)):
        for sentence in rng.sample(sentences, min(len(sentences), 4)):  # else few of the long ones fit a row
            start = len(text) + (sentence[0] != " ")
            text += sentence if sentence[0] == " " else " " + sentence
            for found in known.finditer(sentence):
                counted.append((start + found.start(), start + found.end()))
    return text, tuple(counted)


_LAST = re.compile(r" \w+(?=\.)")
_LOOKUP = re.compile(r"(?<=fills a) \w+| \w+(?=\.)")


def _held_out(task: tasks.Task, inputs: Inputs) -> bool:
    return task.split == "train" and any(tasks.held_out(*each) for each in task.combinations(inputs))


def _questions(task: tasks.Task, inputs: Inputs, rng: random.Random, share: float) -> Iterator[Inputs]:
    if "clauses" in inputs:
        told = [clause[:2] for clause in inputs["clauses"]]
        people, things = (dict.fromkeys(pair[at] for pair in told) for at in (0, 1))
        untold = [(who, what) for who in people for what in things if (who, what) not in told]
        pairs = told + rng.sample(untold, min(len(untold), int(len(told) * share)))  # else most answers were "unknown"
        yield from ({**inputs, "character": who, "object": what} for who, what in pairs)
    elif "bound" in inputs:
        yield from ({**inputs, "query": who} for who, _ in inputs["bound"])
    elif "items" in inputs:
        yield from _categories(task, inputs)


def _categories(task: Any, inputs: Inputs) -> Iterator[Inputs]:
    """Other categories to ask about, where it is clear which words are of them."""
    kinds = {word: name for name, words in task.categories.items() for word in words}
    there = [kinds[item] for item in inputs["items"]]
    for category in sorted(task.categories):
        if EXCLUDED.get(category, frozenset()) & set(there):
            continue
        number = there.count(category)
        one = isinstance(task, tasks.SelectOne)
        several = isinstance(task, tasks.SelectFirst)
        if (one and number != 1) or (several and number < 2) or number > 3:
            continue
        yield {**inputs, "category": category}
