"""Accuracies: near 1 where the mechanism is planted, at chance where the weights are random, and counted as they say."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tasks_models import random_model, word_tokenizer
from tests.tiny import tiny_gpt2
from transformers import AutoTokenizer

import weft
from weft import tasks
from weft.tasks import Accuracy, RepeatedTokens, accuracy, correct_pairs, option_scores

GUESSED = [
    tasks.SelectOne(distractors=3),
    tasks.Exists(),
    tasks.BeliefTracking(characters=3),
    tasks.Visibility(),
    tasks.EntityBinding(),
    tasks.IndirectObject(),
    tasks.GreaterThan(),
    tasks.Facts(),
]


@pytest.fixture(scope="module")
def induction() -> weft.Model:
    return weft.load("induction")


@pytest.mark.parametrize("measure", ["exact", "options"])
def test_the_planted_induction_heads_repeat(induction, measure: str) -> None:
    found = RepeatedTokens.for_model(induction).evaluate(induction, n=50, measure=measure)
    assert found.value >= 0.98
    assert found.chance == (0 if measure == "exact" else 1 / 8)


def test_words_for_a_model_are_in_its_vocabulary(induction) -> None:
    words = RepeatedTokens.for_model(induction).words
    assert "wolf" in words
    assert "archery" not in words  # its token would be that of all unknown words
    assert len(words) > 40


@pytest.mark.parametrize("task", GUESSED, ids=lambda task: task.name)
def test_random_weights_are_at_chance(task) -> None:
    prompts = task.questions(60)
    texts = [prompt + option for prompt, own in zip(prompts.prompts, prompts.options, strict=True) for option in own]
    model = random_model(word_tokenizer(texts))
    found = task.evaluate(model, n=60)
    slack = 0.1  # a random model has favourite words, so its errors are not independent
    assert found.interval.low - slack <= found.chance <= found.interval.high + slack


def test_a_random_model_repeats_nothing() -> None:
    task = RepeatedTokens()
    model = random_model(word_tokenizer([*task.sample(60).prompts, " ".join(task.words)]))
    assert task.evaluate(model, n=60).value < 0.15


def by_hand(model, prompt: str, option: str, tokens: int) -> float:
    """The summed log-probability of the last tokens of prompt + option."""
    with model.session() as session:
        run = session.run(prompt + option)
        logs = torch.log_softmax(run.logits[0], -1).save()
    ids, pos = run.tokens[0], run.pos
    return sum(float(logs.value[at - 1, ids[at]]) for at in range(pos - tokens, pos))


def test_options_of_several_tokens_are_scored_whole(assets) -> None:
    model = random_model(AutoTokenizer.from_pretrained(assets / "tokenizer-gpt2"))
    prompts = tasks.VerbatimLists(language="tavi").sample(3)
    for prompt, scores in zip(prompts.prompts, option_scores(model, prompts), strict=True):
        for option, score in scores.items():
            assert score == pytest.approx(by_hand(model, prompt, option, len(model.tokens.ids(option))), abs=1e-4)


@pytest.mark.parametrize("name", ["hf-stories260k", "hf-tinystories-656k"])
def test_tokens_that_straddle_the_prompts_end_are_compared_from_one_place(assets, name: str) -> None:
    """Differences between options are those of the whole texts' log-probabilities."""
    model = weft.load(str(assets / name))
    prompts = tasks.GreaterThan().sample(4)
    for prompt, scores in zip(prompts.prompts, option_scores(model, prompts), strict=True):
        one, other = scores
        lengths = {text: int(model.tokens.encode([prompt + text]).ids.shape[1]) for text in scores}
        whole = {text: by_hand(model, prompt, text, lengths[text] - 1) for text in scores}
        assert scores[one] - scores[other] == pytest.approx(whole[one] - whole[other], abs=1e-3)


def test_only_pairs_that_are_right_on_both_sides_are_kept(induction) -> None:
    batch = RepeatedTokens(words=RepeatedTokens.for_model(induction).words).sample(10)
    other = batch.counterfactual
    wrong = tuple(
        own[1] if own[0] == answer else own[0] for own, answer in zip(other.options, other.answers, strict=True)
    )
    spoiled = dataclasses.replace(other, answers=(*wrong[:4], *other.answers[4:]))
    kept = correct_pairs(induction, dataclasses.replace(batch, counterfactual=spoiled))
    assert kept == batch.take(range(4, 10))


def test_a_tie_is_wrong() -> None:
    prompts = tasks.SelectOne().sample(5)
    words = word_tokenizer(prompts.prompts)
    net = tiny_gpt2(vocab_size=len(words), n_positions=512)
    for each in net.parameters():
        each.data.zero_()  # all words are as likely
    assert accuracy(weft.load(net, tokenizer=words), prompts).value == 0


def test_a_word_that_the_model_cannot_say_is_refused(induction) -> None:
    """All options would be <unk>, and an answer foretold as <unk> would count as right."""
    with pytest.raises(weft.errors.TokenError, match=r"no token for part of .* \(it gives <unk>\)"):
        accuracy(induction, tasks.SelectOne().sample(5))


@pytest.mark.parametrize(
    ("right", "n", "low", "high"), [(0, 10, 0.0, 0.278), (5, 10, 0.237, 0.763), (10, 10, 0.722, 1.0)]
)
def test_wilsons_interval(right: int, n: int, low: float, high: float) -> None:
    found = Accuracy((True,) * right + (False,) * (n - right), "exact", 0.0)
    assert found.interval == pytest.approx((low, high), abs=1e-3)
    assert found.value == right / n


def test_an_interval_leaves_no_rate_that_cannot_be() -> None:
    for n in range(1, 200):
        none, every = (Accuracy((right,) * n, "exact", 0.0).interval for right in (False, True))
        assert none.low >= 0 and every.high <= 1


def test_what_cannot_be_measured_is_said(induction) -> None:
    with pytest.raises(weft.WeftError, match='"options" or "exact"'):
        accuracy(induction, RepeatedTokens().sample(1), "greedy")
    with pytest.raises(weft.WeftError, match="at least one prompt"):
        accuracy(induction, RepeatedTokens().sample(1).take([]))
