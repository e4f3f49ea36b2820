"""Both planted pointers stand at each layer where the tables say, found by interchange with plain hooks."""

from __future__ import annotations

import random
from functools import cache
from typing import NamedTuple

import pytest
import torch
from planted_hooks import OFTEN, VARIANTS, all_of, answers, at_head, head_grid, marked, only, run, share, tokens
from planted_interchange import by_layer, streams

from weft.errors import ModelError
from weft.planted.assemble import Planted
from weft.planted.double_pointers import build
from weft.planted.story import CHARACTERS, STATES, WATCHERS, watching

LAST = -1
ROTARY = {name: options | {"family": "llama"} for name, options in VARIANTS.items() if name != "llama"}
each_variant = pytest.mark.parametrize("variant", marked(ROTARY))
built = cache(lambda variant: build(**ROTARY[variant]))


class Case(NamedTuple):
    """Two facts, who watches whom, who is asked about; and all of it with other words."""

    facts: list[tuple[str, str]]
    fresh: list[tuple[str, str]]
    watched: list[tuple[str, str]]
    asked: str
    stranger: str
    unrelated: tuple[str, str]

    @property
    def right(self) -> str:
        return " " + dict(self.facts)[dict(self.watched)[self.asked]]

    @property
    def other(self) -> str:
        return next(f" {state}" for _, state in self.facts if f" {state}" != self.right)


def case(seed: int) -> Case:
    draw = random.Random(seed)
    chars, watchers, states = draw.sample(CHARACTERS, 4), draw.sample(WATCHERS, 4), draw.sample(STATES, 6)
    facts = list(zip(chars[:2], states[:2], strict=True))
    crossed = chars[:2][:: -1 if seed % 2 else 1]
    elsewhere = list(zip(chars[2:], states[4:], strict=True)), list(zip(watchers[2:], chars[2:], strict=True))
    return Case(
        facts,
        fresh=list(zip(chars[:2], states[2:4], strict=True)),
        watched=list(zip(watchers[:2], crossed, strict=True)),
        asked=watchers[seed // 2 % 2],
        stranger=watchers[2],
        unrelated=(watching(*elsewhere, watchers[2]), f" {states[4]}"),
    )


CASES = [case(seed) for seed in range(8)]


def test_it_follows_both_pointers_and_knows_what_is_unknown() -> None:
    for variant in OFTEN:
        planted = built(variant)
        texts = [watching(c.facts, c.watched, asked) for c in CASES for asked in (c.asked, c.stranger)]
        right = [answer for c in CASES for answer in (c.right, " unknown")]
        logits, _ = run(planted, tokens(planted, texts))
        assert answers(planted, logits) == right
        assert logits[:, LAST].softmax(-1).max(-1).values.min() > 0.99


def swapped(planted: Planted, word: int, fact: bool) -> list[tuple[int, int]]:
    """Where word `word` of both facts, or of both sentences on watching, stands: from the one to the other and back."""
    ids = tokens(planted, [watching(CASES[0].facts, CASES[0].watched, CASES[0].asked)])[0].tolist()
    verb = planted.tokenizer.convert_tokens_to_ids(" fills" if fact else " watches")
    first, second = (at - 1 + word for at, each in enumerate(ids) if each == verb)
    return [(first, second), (second, first)]


def table_of(planted: Planted) -> dict[str, tuple[float, ...]]:
    org, other = [watching(c.facts, c.watched, c.asked) for c in CASES], [c.other for c in CASES]
    watch = [watching(c.fresh, c.watched[::-1], c.asked) for c in CASES]
    fact = [watching(c.fresh[::-1], c.watched, c.asked) for c in CASES]
    both = [watching(c.fresh[::-1], c.watched[::-1], c.asked) for c in CASES]
    moved_words = [watching(c.facts[::-1], c.watched, c.asked) for c in CASES]
    unknown = [watching(c.facts, c.watched, c.stranger) for c in CASES]
    last = [(LAST, LAST)]
    asked = tokens(planted, org[:1]).shape[1] - 6
    watchers, seen, states = (swapped(planted, *at) for at in ((0, False), (2, False), (5, True)))
    # With the facts reversed each watched character stays where it is, and only what it points to changes.
    stay = [(at, at) for at, _ in seen]
    return {
        "watcher_pointer": by_layer(planted, org, watch, last, other),
        "character_pointer": by_layer(planted, org, fact, last, other),
        "both_pointers": by_layer(planted, org, both, last, other),
        "answer_payload": by_layer(
            planted, unknown, [c.unrelated[0] for c in CASES], last, [c.unrelated[1] for c in CASES]
        ),
        "watched_address": by_layer(planted, org, watch, seen, other),
        "watched_payload": by_layer(planted, org, fact, stay, other),
        "state_address_and_payload": by_layer(planted, org, moved_words, states, other),
        "query_pointer": by_layer(planted, org, watch, [(asked, asked)], other),
        "source_frozen": by_layer(planted, org, watch, watchers, other, frozen=[at for at, _ in seen]),
        "source_unfrozen": by_layer(planted, org, watch, watchers, other),
    }


@each_variant
def test_interchange_gives_the_tables(variant: str) -> None:
    planted = built(variant)
    assert table_of(planted) == dict(planted.truth.tables)


@each_variant
def test_each_lookback_is_one_head(variant: str) -> None:
    """From a text with the facts reversed: who is meant, where it stands, and which word it is."""
    planted = built(variant)
    org = tokens(planted, [watching(c.facts, c.watched, c.asked) for c in CASES[:4]])
    seen = run(planted, tokens(planted, [watching(c.fresh[::-1], c.watched, c.asked) for c in CASES[:4]]))[1]
    other = [c.other for c in CASES[:4]]

    def moves(at: tuple[int, int]) -> float:
        return share(answers(planted, run(planted, org, at_head("z", at, LAST, seen["z", at[0]]))[0]), other)

    heads = planted.truth.heads
    assert torch.equal(head_grid(planted, moves), only(planted, heads["first_lookback"], heads["second_lookback"]))


@each_variant
def test_the_decoys_do_nothing_alone_and_the_backup_stands_in(variant: str) -> None:
    planted = built(variant)
    texts, right = [watching(c.facts, c.watched, c.asked) for c in CASES], [c.right for c in CASES]
    ids = tokens(planted, texts)
    heads = planted.truth.heads | planted.truth.decoys
    without = {name: at_head("z", at, slice(None), 0.0) for name, at in heads.items()}

    def accuracy(*names: str) -> float:
        return share(answers(planted, run(planted, ids, all_of(*(without[name] for name in names)))[0]), right)

    assert accuracy("silent") == accuracy("cancelled") == accuracy("backup") == accuracy("second_lookback") == 1
    assert accuracy("second_lookback", "backup") == accuracy("first_lookback") == accuracy("answer") == 0
    echo, seen = planted.truth.subspaces["echo"], streams(planted, texts)
    assert (seen[planted.truth.decoys["cancelled"][0]][:, LAST] @ echo.T).max(-1).values.min() > 0.9
    assert (seen[-1][:, LAST] @ echo.T).abs().max() < 0.05


def test_learned_positions_are_refused() -> None:
    with pytest.raises(ModelError, match="learned positions lie in the stream"):
        build(family="gpt2")
