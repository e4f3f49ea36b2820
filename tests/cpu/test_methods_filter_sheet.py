"""Words of any number of tokens are scored as `weft.score` scores them, and patched at their prompt's last token."""

from __future__ import annotations

from functools import cache

import pytest
import torch

import weft
from weft import tasks
from weft.errors import TokenError
from weft.methods.filtering.bench import Bench
from weft.methods.filtering.effects import effects, every_head
from weft.methods.filtering.mask import Training, learn_mask
from weft.methods.filtering.pairs import Pairs, chosen, paired
from weft.methods.filtering.patch import patched, queries
from weft.methods.filtering.sheet import Sheet, sheet
from weft.planted.predicates import CATEGORIES

PROMPTS = ("Options: tea, saw.\nWhich is a tool?\nAnswer:", "Options: gold, owl, bus.\nWhich is a bird?\nAnswer:")
WORDS = ((" saw", " tea, milk", " saw, gold"), (" owl", " gold owl bus.", " bus, owl"))


@cache
def model() -> weft.Model:
    return weft.load("planted/predicates")


def asked(mode: str) -> Sheet:
    prompts = tasks.Prompts(PROMPTS, (" saw", " owl"), WORDS, {}, ({}, {}))
    return sheet(model(), prompts, [[" lead"], []], mode)


def scored(mode: str) -> torch.Tensor:
    part = asked(mode)
    with model().session() as s:
        part.scores(s.run(part.texts)).save("scores")
    return s.results["scores"]


def test_whole_answers_have_the_log_probability_of_all_their_tokens() -> None:
    found = scored("answer")
    for row, (prompt, words) in enumerate(zip(PROMPTS, WORDS, strict=True)):
        for column, word in enumerate(words):
            with model().trace([prompt + word]) as run:
                expected = weft.score(run, [word]).save("expected")
            assert float(found[row, column]) == pytest.approx(float(expected.value[0]), rel=1e-4)


def test_a_first_token_is_scored_by_its_logit() -> None:
    with model().trace(list(PROMPTS)) as run:
        logits = run.logits[:, -1].save("logits")
    ids = [[model().tokens.single(" " + word.split()[0].strip(",.")) for word in words] for words in WORDS]
    expected = logits.value.gather(-1, torch.tensor(ids))
    torch.testing.assert_close(scored("first_token")[:, :3], expected, atol=1e-4, rtol=1e-4)


def test_only_the_prompts_own_options_are_chosen_from_and_a_tie_is_none() -> None:
    part = asked("first_token")
    assert part.options.tolist() == [[True, True, True, False]] * 2
    assert part.valid.tolist() == [[True] * 4, [True] * 3 + [False]]
    scores = torch.tensor([[1.0, 0, 0, 5], [2, 2, 1, 0]])
    assert chosen(scores, part.options).tolist() == [0, -1]


def test_places_are_counted_from_the_prompts_end_whatever_follows_it() -> None:
    part = asked("answer")
    with model().session(run=False) as s:
        run = s.run(part.texts)
        (last,) = part.places(run, [-1])
        ids = run.tokens[run.rows, last]
    colon = model().tokens.encode(["Answer:"]).ids[0, -1]
    assert (ids == colon).all()


def test_a_prompt_whose_end_joins_the_answer_is_refused() -> None:
    prompts = tasks.Prompts(("Options: tea",), ("milk",), (("milk", "tea"),), {}, ({},))
    with pytest.raises(TokenError, match="joins the end"):
        sheet(model(), prompts, [()], "answer")


def test_query_averaging_takes_the_mean_over_copies_of_each_source() -> None:
    task = tasks.SelectOne(categories=CATEGORIES, question="Which among these objects mentioned above is a {}?")
    source = task.sample(2, 0).counterfactual
    many = [task.copies(source)[copy].inputs[row] for row in range(2) for copy in range(5)]
    with model().session() as s:
        mean = queries(s, task.prompts(many), [(1, 2)], [-1], 5)[1, 2].save("mean")
        each = s.run(list(task.prompts(many).prompts)).q[1][:, -1, 2].save("each")
    torch.testing.assert_close(mean.value[:, 0], each.value.reshape(2, 5, -1).mean(1))


def test_a_set_of_no_heads_leaves_every_answer() -> None:
    task = tasks.SelectOne(categories=CATEGORIES, question="Which among these objects mentioned above is a {}?")
    batch = task.sample(3, 0)
    dst = sheet(model(), batch, [[word] for word in batch.counterfactual.answers], "first_token")
    pairs = Pairs(task, batch, dst, dst.index(batch.expected), dst.index(batch.answers), 3)
    found = effects(Bench(model()), pairs, {"none": []}, [-1])["none"]
    assert not found.right.any() and found.delta == 0


@pytest.mark.parametrize("mode", ["first_token", "answer"])
@pytest.mark.parametrize("at", [(-1,), (-2, "question_mark")])
def test_the_masks_first_loss_is_that_of_patching_every_head(mode: str, at: tuple[int | str, ...]) -> None:
    words = {name: (own[0], f"{own[1]} {own[2]}", f"{own[3]} {own[4]} {own[5]}") for name, own in CATEGORIES.items()}
    task = tasks.SelectOne(categories=words, question="Which among these objects mentioned above is a {}?")
    pairs = paired(model(), task, task.sample(3, 0), mode, 3)
    learned = learn_mask(Bench(model()), pairs, at, Training(1, 3, 0.02))
    heads = every_head(model())
    with model().session() as s:
        base = s.run(pairs.dst.texts)
        taken = queries(s, pairs.src, heads, at)
        pairs.dst.scores(patched(base, pairs.dst, at, taken)).save("scores")
    scores, rows = s.results["scores"], []
    for row, own in enumerate(pairs.dst.words):
        others = [float(scores[row, n]) for n in range(len(own)) if n != pairs.target[row]]
        rows.append(-float(scores[row, pairs.target[row]]) + sum(others) / len(others))
    weight = 0.02 * 5120 / len(heads)
    assert float(learned.loss[0]) == pytest.approx(sum(rows) / 3 + weight * len(heads), abs=1e-3)
    assert learned.mask.max() <= 1 and learned.mask.max() == pytest.approx(1 - 0.01 + 1e-4, abs=2e-4)
