"""The planted filter head is found by its query alone; what only looks like it is told apart by the controls."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from planted_hooks import VARIANTS, answers, at_head, marked, only, run, share, tokens

import weft
from weft import tasks
from weft.errors import PositionError, ProgramError
from weft.methods.filter_heads import FilterHeads, filter_heads
from weft.planted.assemble import Planted
from weft.planted.predicates import CATEGORIES, build

LAST = -1
QUESTION = {False: "Which among these objects mentioned above is a {}?", True: "Which among these objects is a {}?"}
each_variant = pytest.mark.parametrize("variant", marked(VARIANTS))
built = cache(lambda variant, eager=False: build(eager=eager, **VARIANTS[variant]))


@cache
def loaded(variant: str, eager: bool = False) -> weft.Model:
    planted = built(variant, eager)
    return weft.load(planted.model, tokenizer=planted.tokenizer)


def task_of(eager: bool = False) -> tasks.SelectOne:
    return tasks.SelectOne(categories=CATEGORIES, question=QUESTION[eager], question_first=eager)


@cache
def found(variant: str, eager: bool = False, parts: tuple[str, ...] = ("grid",)) -> FilterHeads:
    """Steps enough for the mask: it falls by a hundredth a step from 1."""
    return filter_heads(
        loaded(variant, eager), task_of(eager), pairs=8, train_pairs=8, epochs=54, batch_size=4, random_sets=3,
        tasks={"the same": task_of(eager)}, parts=parts, progress=False,
    )  # fmt: skip


def whole(variant: str = "plain") -> FilterHeads:
    return found(variant, parts=EVERYTHING)


EVERYTHING = (
    "grid", "attention", "mask", "sets", "same_answer", "necessity", "looks", "question_first", "predicates", "probe", "union",
    "transfer", "subspace",
)  # fmt: skip


def by_hooks(planted: Planted, kind: str, at: tuple[int, int]) -> tuple[float, float]:
    """Of the same pairs, how often the target is said, and how far its logit rises, by plain hooks."""
    batch = task_of().sample(8, 0)
    target = tokens(planted, list(batch.expected))[:, -1:]
    base, right, moved = tokens(planted, list(batch.prompts)), [], []
    _, seen = run(planted, tokens(planted, list(batch.counterfactual_prompts)))
    after, _ = run(planted, base, at_head(kind, at, LAST, seen[kind, at[0]]))
    before, _ = run(planted, base)
    right = share(answers(planted, after), list(batch.expected))
    moved = (after - before)[:, LAST].gather(-1, target).mean()
    return right, float(moved)


@each_variant
def test_only_the_filters_query_carries_the_predicate(variant: str) -> None:
    grid = found(variant)["causality"].values
    np.testing.assert_array_equal(grid, only(built(variant), built(variant).truth.heads["filter"]))


@each_variant
def test_the_logit_moves_as_hooks_say(variant: str) -> None:
    filter_head = built(variant).truth.heads["filter"]
    right, moved = by_hooks(built(variant), "q", filter_head)
    assert right == 1
    assert found(variant)["delta"].values[filter_head] == pytest.approx(moved, abs=1e-3)


@each_variant
def test_the_mover_whose_output_carries_it_too_has_nothing_of_it_in_its_query(variant: str) -> None:
    mover = built(variant).truth.heads["mover"]
    assert by_hooks(built(variant), "z", mover)[0] == 1
    assert found(variant)["causality"].values[mover] == 0


@each_variant
def test_the_mask_converges_to_the_filter(variant: str) -> None:
    result = found(variant, parts=("grid", "attention", "mask")) if variant != "plain" else whole()
    filter_head = built(variant).truth.heads["filter"]
    assert result.heads == (filter_head,)
    mask = result["mask"].values.copy()
    assert mask[filter_head] > 0.5
    mask[filter_head] = 0
    assert mask.max() < 0.05


@each_variant
def test_in_the_eager_twin_no_query_matters_and_the_items_do(variant: str) -> None:
    result = found(variant, True, ("grid", "question_first"))
    assert result["causality"].values.max() == 0
    swapped = result["residual_swap"].sel(format="question first").values
    np.testing.assert_array_equal(swapped, built(variant, True).truth.tables["residual_swap"])
    assert "list first" in result.left_out  # the twin answers nothing that is asked last


@each_variant
def test_where_the_query_matters_the_items_do_not(variant: str) -> None:
    result = found(variant, False, ("question_first",))
    np.testing.assert_array_equal(
        result["residual_swap"].sel(format="list first").values, built(variant).truth.tables["residual_swap"]
    )


@pytest.mark.slow
def test_of_the_eager_twin_the_mask_keeps_nothing() -> None:
    result = found("plain", True, ("mask", "predicates"))
    assert result.heads == ()
    assert result.left_out["predicates"] == "no head was kept by the mask"


def test_attention_alone_cannot_tell_the_filter_from_heads_that_look_where_it_looks() -> None:
    truth = built("plain").truth
    seen = whole()["attention"].values
    alike = [truth.heads["filter"], truth.decoys["silent"], truth.decoys["cancelled"]]
    assert all(seen[head] > 0.99 for head in alike)
    assert whole()["causality"].values[truth.decoys["silent"]] == 0


def test_found_heads_carry_the_predicate_to_other_pairs_and_random_ones_do_not() -> None:
    table = whole()["sets"]
    assert table.sel(set=["mask", "single"], measure="causality").values.min() == 1
    assert table.sel(set="random", measure="causality") == 0
    assert table.sel(set="random", measure="heads") == table.sel(set="mask", measure="heads") == 1
    low, high = (float(table.sel(set="mask", measure=name)) for name in ("low", "high"))
    assert low == pytest.approx(1 / (1 + 1.96**2 / 8)) and high == pytest.approx(1)  # Wilson, 8 of 8


def test_a_source_with_the_same_answer_changes_nothing() -> None:
    kept = whole()["same_answer"]
    assert kept.sel(measure="rate") == 1
    assert abs(float(kept.sel(measure="delta"))) < 1e-3


def test_the_patch_moves_the_attention_from_the_answer_to_the_target() -> None:
    looks = whole()["looks"]
    np.testing.assert_allclose(looks.sel(item=["answer", "target"]).values, [[1, 0], [0, 1]], atol=1e-2)


def test_without_the_filter_the_backup_answers_and_the_knock_out_shows_no_loss() -> None:
    assert whole()["necessity"].sel(set="mask", measure="accuracy") == 1


def test_the_predicate_takes_few_directions_of_the_query() -> None:
    assert 1 <= int(whole()["rank"][0]) <= built("plain").truth.ranks["predicate"]
    rates = whole()["subspace_causality"].sel(measure="rate")
    assert rates.sel(part="subspace") >= 0.75 > 0.25 >= rates.sel(part="random directions")


def test_keys_agree_with_the_predicates_of_their_own_category() -> None:
    probe = whole()["probe"]
    assert probe.sel(measure="rate").values.min() == 1 and probe.attrs["chance"] == 1 / len(CATEGORIES)


def test_a_union_is_the_sum_once_what_all_predicates_share_is_counted_once() -> None:
    rates = whole()["union"].sel(measure="rate")
    assert rates.sel(query="sum, centred") == 1
    both = whole().combine("fruit", "tool", centred=True)
    lists = (("owl", "tea", "saw", "lead"), ("plum", "tea", "owl", "lead"))
    asked = task_of().prompts({"items": items, "category": "bird"} for items in lists)
    assert whole().apply(loaded("plain"), asked, both) == (" saw", " plum")
    assert 0.25 <= rates.sel(query="one alone") <= 0.75  # right where the list has a word of its own category


def test_a_predicate_is_read_out_and_put_into_other_prompts() -> None:
    batch = task_of().sample(6, seed=9)
    for category in ("fruit", "tool"):
        prompts = [row for row in batch.inputs if set(row["items"]) & set(CATEGORIES[category])]
        given = task_of().prompts(prompts)
        said = whole().apply(loaded("plain"), given, category)
        assert all(word.strip() in CATEGORIES[category] for word in said)


def test_heads_of_ones_own_are_tested_without_a_mask() -> None:
    truth = built("plain").truth
    both = [truth.decoys["backup"], truth.heads["filter"]]
    result = filter_heads(
        loaded("plain"),
        task_of(),
        heads=both,
        pairs=8,
        parts=["mask", "sets", "necessity"],
        random_sets=1,
        progress=False,
    )
    assert result.heads == tuple(sorted(both)) and "mask" not in result.arrays
    assert result["sets"].sel(set="given", measure="causality") == 1
    accuracy = result["necessity"].sel(measure="accuracy")
    assert accuracy.sel(set="none") == 1 == accuracy.sel(set="random")
    assert accuracy.sel(set="given") < 0.3  # without its backup too, the filter is needed


def test_the_transfer_to_the_same_task_is_whole() -> None:
    assert whole()["transfer"].values == 1


def test_whole_answers_are_scored_as_first_tokens_are_where_words_are_one_token() -> None:
    result = filter_heads(
        loaded("plain"), task_of(), pairs=4, train_pairs=4, score="answer", parts=["grid"], progress=False
    )
    assert result.scored == "answer" and whole().scored == "first_token"
    np.testing.assert_array_equal(result["causality"].values, whole()["causality"].values)


def test_a_result_is_written_and_read(tmp_path) -> None:
    again = weft.methods.load(whole().save(tmp_path / "found.safetensors"))
    assert isinstance(again, FilterHeads)
    assert again.heads == whole().heads and again.words == whole().words and again.at == (-1,)
    torch.testing.assert_close(again.predicate("tool").vectors, whole().predicate("tool").vectors)


def test_bad_calls_say_what_to_do() -> None:
    model = loaded("plain")
    with pytest.raises(ProgramError, match=r"weft.tasks.SelectOne\(\)"):
        filter_heads(model, tasks.Count(categories=CATEGORIES))
    with pytest.raises(ProgramError, match="no part 'grids'; there are grid, attention"):
        filter_heads(model, task_of(), parts=["grids"], pairs=4, train_pairs=4)
    with pytest.raises(ProgramError, match="the model answers all three prompts of a pair rightly in 0 of 64"):
        filter_heads(loaded("plain", True), task_of(False), train_pairs=8, progress=False)
    with pytest.raises(ProgramError, match="no head L3H0: this model has layers 0 to 2"):
        filter_heads(model, task_of(), heads=[(3, 0)])
    with pytest.raises(ProgramError, match=r"heads=\[\] names no head; .* leave heads out"):
        filter_heads(model, task_of(), heads=[])
    with pytest.raises(ProgramError, match='necessity: it needs the part "mask"'):
        filter_heads(model, task_of(), parts=["necessity"], pairs=4, progress=False)
    with pytest.raises(ProgramError, match="has 1 words"):
        filter_heads(model, {"fruit": ["apple"], "tool": ["saw", "drill"], "bird": ["owl", "crow"]})
    with pytest.raises(ProgramError, match=r"needs one \{\}"):
        tasks.SelectOne(question="Which of these is a fruit?")


def test_queries_of_other_heads_have_no_sum() -> None:
    one, other = whole().predicate("fruit"), whole().predicate("tool")
    with pytest.raises(ProgramError, match="no sum"):
        one.combine(type(other)("tool", ((0, 0),), other.vectors))
    placed = type(one)("fruit", one.heads, one.vectors, ("question_mark",))
    with loaded("plain").session() as s, pytest.raises(PositionError, match="prompts of a task"):
        placed.write(s.run("Options: apple.\nWhich"))


def test_pairs_that_the_model_gets_wrong_are_kept_where_that_is_asked_for() -> None:
    model, eager = loaded("plain", eager=True), task_of()  # the twin answers nothing that is asked last
    with pytest.raises(ProgramError, match="only_right=False"):
        filter_heads(model, eager, pairs=8, parts=("grid",), progress=False)
    every = filter_heads(model, eager, pairs=8, parts=("grid",), only_right=False, progress=False)
    assert every.settings["pairs"] == 8 and every.settings["only_right"] is False
    assert every["causality"].shape == (model.n_layers, model.n_heads)
