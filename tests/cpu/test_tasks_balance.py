"""Nothing but the mechanism finds the answer: places and kinds of answers are evenly spread and say nothing of each other."""

from __future__ import annotations

from collections import Counter

import pytest
from scipy.stats import chi2_contingency, chisquare

from weft import tasks
from weft.tasks.words.english import EXCLUDED

N = 600
RARE = 1e-4
"""A test that finds fewer of what it expects than this is unlucky once in ten thousand seeds; the seed is fixed."""


def even(values) -> bool:
    return chisquare(list(Counter(values).values())).pvalue > RARE


def unrelated(one, other) -> bool:
    rows, columns = sorted(set(one)), sorted(set(other))
    both = Counter(zip(one, other, strict=True))
    return chi2_contingency([[both[row, column] for column in columns] for row in rows]).pvalue > RARE


def places(task, batch) -> list[int]:
    return [task.causal_model.run(inputs)["index"] for inputs in batch.inputs]


@pytest.mark.parametrize("distractors", [2, 4, 7])
def test_the_selected_word_stands_anywhere_whatever_its_category(distractors: int) -> None:
    task = tasks.SelectOne(distractors=distractors)
    batch = task.sample(N)
    found = places(task, batch)
    assert set(found) == set(range(distractors + 1))
    assert even(found)
    assert unrelated(found, [inputs["category"] for inputs in batch.inputs])


@pytest.mark.parametrize("kind", [tasks.SelectOne, tasks.SelectFirst, tasks.SelectLast])
def test_neither_answer_nor_target_stands_at_the_sources_place(kind) -> None:
    task = kind()
    batch = task.sample(200)
    for base, other, wanted in zip(batch.inputs, batch.counterfactual.inputs, batch.expected, strict=True):
        there = task.causal_model.run(other)["index"]
        assert there not in (task.causal_model.run(base)["index"], base["items"].index(wanted[1:]))
        assert not set(base["items"]) & set(other["items"])
        assert other["category"] not in EXCLUDED.get(base["category"], ())


def test_no_word_of_a_list_is_of_a_kind_excluded() -> None:
    kinds = {word: name for name, words in tasks.filtering.CATEGORIES.items() for word in words}
    for inputs in tasks.SelectOne(distractors=7).sample(200).inputs:
        assert not {kinds[item] for item in inputs["items"]} & EXCLUDED.get(inputs["category"], frozenset())


def test_counts_and_yes_and_no_are_even() -> None:
    assert even(tasks.Count(distractors=6).sample(N).answers)
    assert even(tasks.Exists().sample(N).answers)
    assert set(tasks.Count(distractors=6).sample(N).answers) == {" zero", " one", " two", " three"}


def test_who_is_asked_about_and_what_is_unknown_are_even() -> None:
    batch = tasks.BeliefTracking(layout="crossed", characters=3).sample(N)
    asked = [
        next(n for n, clause in enumerate(each["clauses"]) if clause[:2] == (each["character"], each["object"]))
        for each in batch.inputs
    ]
    assert even(asked)
    assert even(answer == " unknown" for answer in tasks.Visibility().questions(N).answers)
    assert even(answer == " unknown" for answer in tasks.BeliefTracking(kind="answer_payload").questions(N).answers)


def test_seeing_by_one_says_nothing_of_the_other() -> None:
    prompts = tasks.Visibility().questions(N)
    mine, theirs = [], []
    for each in prompts.inputs:
        observer = [clause[0] for clause in each["clauses"]].index(each["character"])
        mine.append(each["sees"][observer])
        theirs.append(each["sees"][1 - observer])
    assert even(mine)
    assert even(theirs)
    assert unrelated(mine, theirs)


def test_the_giver_is_named_first_as_often_as_second() -> None:
    batch = tasks.IndirectObject().sample(N)
    assert even(inputs["names"].index(inputs["subject"]) for inputs in batch.inputs)


def test_bound_places_and_years_are_even() -> None:
    task = tasks.EntityBinding(entities=3)
    assert even(task.causal_model.run(inputs)["query_id"] for inputs in task.sample(N).inputs)
    years = tasks.GreaterThan().sample(N)
    assert even(inputs["direction"] for inputs in years.inputs)
    assert even(answer == max(own) for answer, own in zip(years.answers, years.options, strict=True))
