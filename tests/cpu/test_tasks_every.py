"""What holds for every task: the same seed gives the same pairs, answers come from the causal model, roles are in place."""

from __future__ import annotations

import dataclasses

import pytest
from tasks_every import VARIANTS, named

import weft
from weft.tasks import TASKS, GreaterThan, RepeatedTokens, SelectOne, held_out

every = pytest.mark.parametrize("task", VARIANTS, ids=named)


@every
def test_a_seed_says_what_is_drawn(task) -> None:
    assert task.sample(6, seed=3) == task.sample(6, seed=3)
    assert task.sample(6, seed=3).prompts != task.sample(6, seed=4).prompts


@every
def test_a_larger_sample_begins_with_the_smaller(task) -> None:
    assert task.sample(6, seed=1).take(range(3)) == task.sample(3, seed=1)


@every
def test_the_interchange_changes_the_answer_to_what_the_model_computes(task) -> None:
    batch = task.sample(20, seed=2)
    assert all(now != before for now, before in zip(batch.expected, batch.answers, strict=True))
    assert batch.expected == task.interchange(batch, task.swap.variables, task.swap.keep)


@every
def test_an_interchange_with_itself_changes_nothing(task) -> None:
    for inputs, answer in zip(*(lambda b: (b.inputs, b.answers))(task.sample(10)), strict=True):
        for variable in task.causal_model.variables:
            values = task.causal_model.interchange(inputs, inputs, [variable])
            assert task._written(values["answer"]) == answer


@every
def test_the_answer_is_among_the_options_once(task) -> None:
    batch = task.sample(20, seed=5)
    for side in (batch, batch.counterfactual):
        assert all(own.count(answer) == 1 for own, answer in zip(side.options, side.answers, strict=True))
        assert all(len(own) >= 2 for own in side.options)
    assert all(wanted in own for wanted, own in zip(batch.expected, batch.candidates, strict=True))


@every
def test_roles_are_whole_words_of_the_prompt(task) -> None:
    batch = task.sample(10, seed=6)
    for side in (batch, batch.counterfactual):
        for role in side.roles:
            for prompt, (start, end), words in zip(side.prompts, side.roles[role], side.words(role), strict=True):
                assert 0 <= start < end <= len(prompt)
                assert words == words.strip(" ")
                if role not in ("year", "question_mark"):  # the year stands behind its century: 17|32
                    assert start == 0 or not (prompt[start - 1].isalnum() and prompt[start].isalnum())


@every
def test_the_prompt_ends_where_the_answer_begins(task) -> None:
    batch = task.sample(10, seed=7)
    assert all(end == len(prompt) for prompt, (_, end) in zip(batch.prompts, batch.roles["end"], strict=True))
    assert all(prompt == prompt.strip() for prompt in batch.prompts)


@pytest.mark.parametrize("name", [name for name in TASKS if name not in (RepeatedTokens.name, GreaterThan.name)])
def test_training_never_sees_what_is_held_out(name: str) -> None:
    train, test = TASKS[name](split="train"), TASKS[name](split="held_out")
    seen = {each for inputs in train.sample(60).inputs for each in train.combinations(inputs)}
    asked = {test.combinations(inputs)[0] for inputs in test.sample(60).inputs}
    assert not seen & asked
    assert not any(held_out(*each) for each in seen)


def test_a_fifth_of_all_combinations_is_held_out() -> None:
    share = sum(held_out("a", str(number)) for number in range(2000)) / 2000
    assert abs(share - 0.2) < 0.03


def test_a_task_without_combinations_says_so() -> None:
    with pytest.raises(weft.WeftError, match="no combinations that could be held out"):
        RepeatedTokens(split="train").sample(1)


def test_a_task_that_cannot_be_drawn_says_so() -> None:
    with pytest.raises(weft.WeftError, match="needs 5 categories of 2 words or more; there are 2"):
        SelectOne(categories={"fruit": ["fig"] * 9, "vegetable": ["pea"] * 9}).sample(1)


def test_batches_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SelectOne().sample(1).prompts = ()


def test_roles_are_the_same_in_every_prompt_of_a_task() -> None:
    assert "query_character" in TASKS["belief"]().roles
    with pytest.raises(weft.WeftError, match="no role 'nobody'"):
        TASKS["belief"]().sample(1).words("nobody")
