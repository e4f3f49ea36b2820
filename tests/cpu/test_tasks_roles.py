"""Roles are found by characters: the token positions are those of the tokenizer's own offsets, whatever the tokenizer."""

from __future__ import annotations

import pytest
from tasks_every import VARIANTS, named
from tasks_models import random_model
from transformers import AutoTokenizer

import weft
from weft import planted
from weft.tasks import BeliefTracking, RepeatedTokens, SelectOne, Translation

FOLDERS = ["tokenizer-gpt2", "hf-tinystories-656k", "hf-stories260k", "planted"]
TASKS = [task for task in VARIANTS if getattr(task, "distractors", 2) == 2]


@pytest.fixture(scope="module", params=FOLDERS)
def tokenizer(request, assets):
    if request.param == "planted":
        return planted.build("induction").tokenizer
    return AutoTokenizer.from_pretrained(assets / request.param)


@pytest.fixture(scope="module")
def model(tokenizer):
    return random_model(tokenizer)


def by_offsets(tokenizer, text: str, start: int, end: int) -> tuple[int, int, int]:
    """The first and last token that share a character with the span, and the number of tokens."""
    offsets = tokenizer.backend_tokenizer.encode(text).offsets
    for at in range(len(offsets) - 1):  # a space that the tokenizer puts before every text says it is its first letter
        if offsets[at] == (0, 1) and offsets[at + 1][0] == 0:
            offsets[at] = (0, 0)
    inside = [at for at, (a, b) in enumerate(offsets) if a < end and b > start]
    return inside[0], inside[-1], len(offsets)


@pytest.mark.parametrize("task", TASKS, ids=named)
def test_positions_are_those_of_the_tokenizers_offsets(task, tokenizer, model) -> None:
    batch = task.sample(3, seed=8)
    with model.session() as session:
        run = session.run(list(batch.prompts))
        other = session.run(list(batch.counterfactual_prompts))
    for side, of in ((batch, run), (batch.counterfactual, other)):
        for role, spans in side.roles.items():
            first, last = side.positions(of, role, end="first"), side.positions(of, role)
            for row, (start, end) in enumerate(spans):
                a, b, count = by_offsets(tokenizer, side.prompts[row], start, end)
                shift = of.pos - count
                assert (int(first[row]), int(last[row])) == (shift + a, shift + b), (role, side.words(role)[row])


@pytest.mark.parametrize("name", FOLDERS[1:3])
def test_the_tokens_of_a_role_read_as_its_words(assets, name: str) -> None:
    """Read back from the tokens, not from offsets: exactly the words, or with what a token has around them."""
    model = weft.load(str(assets / name))
    batch = BeliefTracking(layout="crossed", characters=3).sample(8)
    with model.session() as session:
        run = session.run(list(batch.prompts))
    for role in batch.roles:
        first, last = batch.positions(run, role, "first").tolist(), batch.positions(run, role).tolist()
        for row, words in enumerate(batch.words(role)):
            pieces = model.tokens.pieces(run.tokens[row])
            assert words in "".join(pieces[first[row] : last[row] + 1])
            for inner in (pieces[first[row] + 1 : last[row] + 1], pieces[first[row] : last[row]]):
                assert words not in "".join(inner)


def test_a_word_said_twice_is_found_where_it_is_meant() -> None:
    model = weft.load("induction")
    batch = RepeatedTokens(length=4).sample(6)
    with model.session() as session:
        run = session.run(list(batch.prompts))
    gap = batch.positions(run, "end") - batch.positions(run, "earlier")
    assert gap.tolist() == [4] * 6


def test_answers_may_follow_the_prompts() -> None:
    model = weft.load("induction")
    batch = RepeatedTokens(length=4).sample(3)
    with model.session() as session:
        longer = session.run([a + b for a, b in zip(batch.prompts, batch.answers, strict=True)])
    assert batch.positions(longer, "end").tolist() == [longer.pos - 2] * 3


def test_a_run_of_other_prompts_is_refused() -> None:
    model = weft.load("induction")
    batch = SelectOne().sample(2)
    with model.session() as session:
        other = session.run(["one two three", "four five six"])
        short = session.run("one two three")
    with pytest.raises(weft.WeftError, match="row 0 of the run does not begin with prompt 0"):
        batch.positions(other, "end")
    with pytest.raises(weft.WeftError, match="1 rows and the batch 2 prompts"):
        batch.positions(short, "end")
    with pytest.raises(weft.WeftError, match='"first" or "last"'):
        batch.positions(other, "end", end="middle")


def test_words_of_the_invented_languages_are_several_tokens(assets) -> None:
    tokenizer = AutoTokenizer.from_pretrained(assets / "tokenizer-gpt2")
    model = random_model(tokenizer)
    batch = Translation(languages=("tavi", "moru")).sample(20)
    with model.session() as session:
        run = session.run(list(batch.prompts))
    assert (batch.positions(run, "asked") > batch.positions(run, "asked", "first")).all()
