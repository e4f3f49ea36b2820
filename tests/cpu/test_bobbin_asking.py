"""Several questions about one text: the answers are right by reading the text, and nothing held out is asked."""

from __future__ import annotations

import random
import re
from itertools import pairwise

from weft import tasks
from weft.bobbin.asking import joined, led, retold, several, shortened
from weft.tasks.words.english import CATEGORIES


def test_answers_about_a_story_are_what_it_tells() -> None:
    task = tasks.BeliefTracking(layout="crossed", characters=3)
    batch = task.sample(20, seed=0)
    unknown = 0
    for inputs in batch.inputs:
        text, answers = joined(task.prompts(several(task, inputs, random.Random(0), 3)))
        story = {(who, what): state for who, what, state in re.findall(r"(\w+) fills a (\w+) with (\w+)\.", text)}
        asked = re.findall(r"What does (\w+) believe is in the (\w+)\?\nAnswer: (\w+)", text)
        assert len(asked) == 3 == len(set(asked))
        for (who, what, said), (start, stop) in zip(asked, answers, strict=True):
            assert said == story.get((who, what), "unknown")
            assert text[start:stop] == f" {said}"
            unknown += said == "unknown"
    assert 0 < unknown < 30


def test_each_question_about_a_list_has_one_answer_of_the_training_side() -> None:
    task = tasks.SelectOne(split="train", distractors=5)
    more = 0
    for inputs in task.sample(30, seed=1).inputs:
        questions = several(task, inputs, random.Random(1), 4)
        assert len({each["category"] for each in questions}) == len(questions)
        for each in questions:
            fitting = [item for item in each["items"] if item in CATEGORIES[each["category"]]]
            assert len(fitting) == 1
        assert not any(tasks.held_out(*two) for two in pairwise(inputs["items"]))
        more += len(questions) - 1
    assert more > 30


def test_a_question_asked_first_is_asked_once() -> None:
    task = tasks.Count(distractors=4)
    (inputs,) = task.sample(1, seed=0).inputs
    assert several(task, inputs, random.Random(0), 1) == [inputs]
    assert inputs not in several(task, inputs, random.Random(0), 9)[1:]


def test_a_story_told_again_says_the_same() -> None:
    for layout, characters, per_clause in (("pairs", 2, 2), ("crossed", 3, 1)):
        (prompt,) = tasks.BeliefTracking(layout=layout, characters=characters).sample(1, seed=2).prompts
        text, counted = retold(prompt, random.Random(0))
        clauses = re.findall(r"\w+ fills a \w+ with \w+\.", text)
        story = clauses[: prompt.count(" fills ")]
        again = clauses[len(story) :]
        assert " ".join(clauses) == text
        assert set(again) <= set(story)
        assert len(counted) == per_clause * len(again)
        words = [text[start:stop] for start, stop in counted]
        assert [each for each in words if f" with{each}." in text] == [f" {each.split()[-1][:-1]}" for each in again]
        assert min(start for start, _ in counted) > len(" ".join(story))


def test_a_story_asked_in_short_has_the_answers_that_it_tells() -> None:
    task = tasks.BeliefTracking(split="train", characters=3)
    said = []
    for inputs in task.sample(10, seed=3).inputs:
        text, answers = shortened(task.prompts(several(task, inputs, random.Random(2), 8, untold=1.0)))
        story = {(who, what): state for who, what, state in re.findall(r"(\w+) fills a (\w+) with (\w+)\.", text)}
        asked = re.findall(r"\n(\w+) (\w+): (\w+)", text)
        assert [text[start:stop] for start, stop in answers] == [f" {answer}" for _, _, answer in asked]
        assert all(answer == story.get((who, what), "unknown") for who, what, answer in asked)
        said += [answer for _, _, answer in asked]
    assert 0.2 < said.count("unknown") / len(said) < 0.6


def test_the_steps_of_a_numbered_story_are_those_that_it_tells() -> None:
    task = tasks.BeliefTracking(split="train", layout="numbered", characters=3)
    kinds = set()
    for inputs in task.sample(10, seed=3).inputs:
        text, answers = led(task.prompts([inputs]), random.Random(2))
        taps = {(who, what): tap for who, what, tap in re.findall(r"(\w+) fills a (\w+) from tap (\w+)\.", text)}
        told = dict(re.findall(r"Tap (\w+) has (\w+)\.", text))
        true = told | {f"{who} tap": tap for (who, _), tap in taps.items()}
        true |= {f"{who} {what}": told[tap] for (who, what), tap in taps.items()}
        asked = re.findall(r"\n([\w ]+): (\w+)", text)
        assert 3 <= len(asked) == len(set(asked))
        assert all(true[question] == said for question, said in asked)
        assert [text[start:stop] for start, stop in answers] == [f" {said}" for _, said in asked]
        kinds |= {question.split()[-1] if question.split()[-1] in ("tap", *told) else "pair" for question, _ in asked}
    assert kinds == {"tap", "one", "two", "three", "pair"}
