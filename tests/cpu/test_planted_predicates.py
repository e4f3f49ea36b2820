"""The planted filter head is where its truth says, found by plain hooks under every variant."""

from __future__ import annotations

import random
from functools import cache
from typing import NamedTuple

import pytest
import torch
from planted_hooks import VARIANTS, all_of, answers, at_head, head_grid, marked, only, run, share, tokens
from torch import Tensor

from weft.errors import ModelError
from weft.planted.assemble import Planted
from weft.planted.predicates import CATEGORIES, build, prompt

LAST = -1
each_variant = pytest.mark.parametrize("variant", marked(VARIANTS))
built = cache(lambda variant, eager=False: build(eager=eager, **VARIANTS[variant]))


class Pairs(NamedTuple):
    """Two lists of the same categories in another order, and two questions: each list answers each question."""

    source: Tensor
    base: Tensor
    source_answer: list[str]
    base_answer: list[str]
    target: list[str]
    swapped: Tensor
    """The base list under the source's question."""
    items: list[int]
    """Where the items of the base prompt are."""


def pairs(planted: Planted, eager: bool = False, n: int = 5) -> Pairs:
    draw, rows = random.Random(0), []
    for _ in range(n):
        kinds = draw.sample(list(CATEGORIES), 4)
        base, source = ([draw.choice(CATEGORIES[kind]) for kind in kinds] for _ in range(2))
        source = [draw.choice([i for i in CATEGORIES[kind] if i != base[at]]) for at, kind in enumerate(kinds)]
        texts = prompt(source[::-1], kinds[0], eager=eager), prompt(base, kinds[1], eager=eager)
        rows.append(
            (*texts, *(f" {item}" for item in (source[0], base[1], base[0])), prompt(base, kinds[0], eager=eager))
        )
    source, base, source_answer, base_answer, target, swapped = (list(column) for column in zip(*rows, strict=True))
    ids = tokens(planted, base)
    first = (ids[0] == planted.tokenizer.convert_tokens_to_ids(",")).nonzero()[0].item() - 1
    where = [first + 2 * i for i in range(4)]
    return Pairs(tokens(planted, source), ids, source_answer, base_answer, target, tokens(planted, swapped), where)


def causality(planted: Planted, data: Pairs, kind: str, at: tuple[int, int], expected: list[str]) -> float:
    """How often one head's `kind`, at the last token and from the source, makes the base answer as `expected`."""
    _, seen = run(planted, data.source)
    logits, _ = run(planted, data.base, at_head(kind, at, LAST, seen[kind, at[0]]))
    return share(answers(planted, logits), expected)


@each_variant
@pytest.mark.parametrize("eager", [False, True])
def test_it_answers_every_question(variant: str, eager: bool) -> None:
    planted = built(variant, eager)
    data = pairs(planted, eager)
    logits, _ = run(planted, data.base)
    assert share(answers(planted, logits), data.base_answer) == 1
    assert logits[:, -1].softmax(-1).max(-1).values.min() > 0.99


@each_variant
def test_the_filters_query_is_the_only_one_that_carries_the_predicate(variant: str) -> None:
    planted = built(variant)
    data = pairs(planted)
    grid = head_grid(planted, lambda at: causality(planted, data, "q", at, data.target))
    assert torch.equal(grid, only(planted, planted.truth.heads["filter"]))


@each_variant
def test_the_movers_output_carries_it_too(variant: str) -> None:
    planted = built(variant)
    data = pairs(planted)
    grid = head_grid(planted, lambda at: causality(planted, data, "z", at, data.target))
    assert torch.equal(grid, only(planted, planted.truth.heads["mover"]))


@each_variant
def test_the_filters_output_carries_the_answer(variant: str) -> None:
    planted = built(variant)
    data = pairs(planted)
    grid = head_grid(planted, lambda at: causality(planted, data, "z", at, data.source_answer))
    assert torch.equal(grid, only(planted, planted.truth.heads["filter"]))


@each_variant
def test_in_the_eager_twin_no_query_matters(variant: str) -> None:
    planted = built(variant, True)
    data = pairs(planted, True)
    assert head_grid(planted, lambda at: causality(planted, data, "q", at, data.target)).max() == 0


@each_variant
@pytest.mark.parametrize("eager", [False, True])
def test_the_residuals_follow_the_tables(variant: str, eager: bool) -> None:
    planted = built(variant, eager)
    data = pairs(planted, eager)
    rows: dict[str, list[float]] = {name: [] for name in planted.truth.tables}
    for layer in range(planted.truth.n_layers):
        for name, source, where, expected in (
            ("asked", data.source, LAST, data.target),
            ("answer", data.source, LAST, data.source_answer),
            ("residual_swap", data.swapped, data.items, data.target),
        ):
            seen = run(planted, source)[1]["resid", layer]

            def edit(kind: str, at: int, into: Tensor, layer=layer, seen=seen, where=where) -> None:
                if (kind, at) == ("resid", layer):
                    into[:, where] = seen[:, where]

            rows[name].append(share(answers(planted, run(planted, data.base, edit)[0]), expected))
    assert {name: tuple(row) for name, row in rows.items()} == dict(planted.truth.tables)


@each_variant
def test_the_backup_answers_only_when_the_filter_is_ablated(variant: str) -> None:
    planted = built(variant)
    data = pairs(planted)
    heads = planted.truth.heads | planted.truth.decoys
    without = {name: at_head("z", at, slice(None), 0.0) for name, at in heads.items()}

    def accuracy(*names: str) -> float:
        return share(
            answers(planted, run(planted, data.base, all_of(*(without[n] for n in names)))[0]), data.base_answer
        )

    assert accuracy("backup") == accuracy("silent") == accuracy("cancelled") == accuracy("filter") == 1
    assert accuracy("filter", "backup") < 0.3  # chance is 1/64


@each_variant
def test_the_decoys_attend_right_and_come_to_nothing(variant: str) -> None:
    planted = built(variant)
    data = pairs(planted)
    truth = planted.truth
    planted.model.set_attn_implementation("eager")
    with torch.no_grad():
        patterns = planted.model(data.base, output_attentions=True).attentions
    planted.model.set_attn_implementation("sdpa")
    for name in ("silent", "cancelled"):
        layer, at = truth.decoys[name]
        assert patterns[layer][:, at, LAST, data.items[1]].min() > 0.99
    _, seen = run(planted, data.base)
    echo = truth.subspaces["echo"]
    layer = truth.decoys["cancelled"][0]
    assert (seen["resid", layer][:, LAST] @ echo.T).max(-1).values.min() > 0.9
    assert (seen["resid", truth.n_layers - 1][:, LAST] @ echo.T).abs().max() < 0.1


def test_the_predicates_span_as_many_dimensions_as_there_are_categories() -> None:
    planted = built("plain")
    texts = [prompt(["apple", "hammer", "robin"], category) for category in CATEGORIES]
    layer, at = planted.truth.heads["filter"]
    queries = run(planted, tokens(planted, texts))[1]["q", layer][:, LAST, at]
    values = torch.linalg.svdvals(queries)
    rank = planted.truth.ranks["predicate"]
    assert rank == len(CATEGORIES) and values[rank - 1] > 10
    spread = torch.linalg.svdvals(queries - queries.mean(0))
    assert spread[rank - 1] < 0.01 * spread[0]


def test_what_cannot_be_is_refused_with_the_way_out() -> None:
    with pytest.raises(ModelError, match="ask for family='llama' as well"):
        build(grouped=True)
    with pytest.raises(ModelError, match="family='neox': planted models are 'gpt2'"):
        build(family="neox")
    with pytest.raises(ModelError, match="noise_heads is an even number"):
        build(noise_heads=1)
