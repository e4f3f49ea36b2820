"""The planted pointers stand at each layer where the tables say, found by interchange with plain hooks."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest
import torch
from planted_hooks import VARIANTS, all_of, answers, at_head, head_grid, marked, only, run, share, tokens
from planted_interchange import by_layer, moved, places, streams
from torch import Tensor

from weft.errors import ModelError
from weft.planted.assemble import Planted
from weft.planted.pointers import build
from weft.planted.story import CHARACTERS, FILLER, OBJECTS, STATES, story

LAST = -1
ROTARY = {name: options | {"family": "llama"} for name, options in VARIANTS.items() if name != "llama"}
LEARNED = {
    name: {k: v for k, v in options.items() if k not in ("family", "grouped")} for name, options in ROTARY.items()
}
MODELS = {("pointers", name): options for name, options in ROTARY.items()}
MODELS |= {("positional", name): options | {"positional": True} for name, options in LEARNED.items() if name != "all"}
each_model = pytest.mark.parametrize("which", marked(MODELS), ids=" ".join)
each_rotary = pytest.mark.parametrize(
    "which", marked(name for name in list(MODELS) if name[0] == "pointers"), ids=" ".join
)
built = cache(lambda which: build(**MODELS[which]))

Facts = list[tuple[str, str, str]]


def facts(seed: int) -> tuple[Facts, Facts]:
    """Two facts, and the same in reversed order with fresh states."""
    draw = random.Random(seed)
    chars, things, states = draw.sample(CHARACTERS, 2), draw.sample(OBJECTS, 2), draw.sample(STATES, 4)
    rows = list(zip(chars, things, states[:2], strict=True))
    return rows, [(*rows[1][:2], states[3]), (*rows[0][:2], states[2])]


def unrelated(rows: Facts) -> Facts:
    """Two facts of words that these facts do not have."""
    used = {word for row in rows for word in row}
    kinds = [[word for word in words if word not in used] for words in (CHARACTERS, OBJECTS, STATES)]
    return list(zip(*kinds, strict=True))[:2]


CASES = [(*facts(seed), seed % 2) for seed in range(6)]
"""Facts, their reversal, and which is asked about."""
SHAPE = story(CASES[0][0], CASES[0][0][0][:2])


def spots(planted: Planted) -> dict[str, tuple[int, int]]:
    """Where the two characters, objects and states stand, and the question's; in all texts alike."""
    rows = CASES[0][0]
    at = {
        kind: tuple(places(planted, SHAPE, *(row[i] for row in rows)))
        for i, kind in enumerate(("char", "object", "state"))
    }
    length = tokens(planted, [SHAPE]).shape[1]
    return at | {"asked": (length - 9, length - 6)}


def crossed(*pairs: tuple[int, int]) -> list[tuple[int, int]]:
    """The first place's stream goes to the second and the other way round: the same word in a reversed story."""
    return [each for first, second in pairs for each in ((first, second), (second, first))]


def table_of(planted: Planted) -> dict[str, tuple[float, ...]]:
    at = spots(planted)
    org = [story(rows, rows[k][:2]) for rows, _, k in CASES]
    other = [f" {rows[1 - k][2]}" for rows, _, k in CASES]
    alt = [story(back, rows[k][:2]) for rows, back, k in CASES]
    shifted = [story(back, rows[k][:2], before=FILLER) for rows, back, k in CASES]
    reversed_ = [story(rows[::-1], rows[k][:2]) for rows, _, k in CASES]
    unknown = [story(rows, (rows[k][0], rows[1 - k][1])) for rows, _, k in CASES]
    own_char = [story(back, rows[k][:2]) for rows, back, k in CASES]
    own_object = [story(back, rows[1 - k][:2]) for rows, back, k in CASES]
    elsewhere = [story(unrelated(rows), unrelated(rows)[k][:2]) for rows, _, k in CASES]
    its_answer = [f" {unrelated(rows)[k][2]}" for rows, _, k in CASES]
    same = [f" {rows[k][2]}" for rows, _, k in CASES]
    last = [(LAST, LAST)]
    source = crossed(at["char"], at["object"])
    char, thing = at["asked"]
    by_char = by_layer(planted, unknown, own_char, [(char, char)], other)
    by_object = by_layer(planted, unknown, own_object, [(thing, thing)], same)
    assert by_char == by_object
    return {
        "answer_pointer": by_layer(planted, org, alt, last, other),
        "answer_pointer_shifted": by_layer(planted, org, shifted, last, other),
        "answer_payload": by_layer(planted, unknown, elsewhere, last, its_answer),
        "address_and_payload": by_layer(planted, org, reversed_, crossed(at["state"]), other),
        "query_pointers": by_char,
        "source_frozen": by_layer(planted, org, alt, source, other, frozen=at["state"]),
        "source_frozen_upto": by_layer(planted, org, alt, source, other, upto=True, frozen=at["state"]),
        "source_unfrozen": by_layer(planted, org, alt, source, other),
    }


@each_model
def test_interchange_gives_the_tables(which: Any) -> None:
    planted = built(which)
    assert table_of(planted) == dict(planted.truth.tables)


def test_the_tables_are_those_of_the_notes() -> None:
    """One character's pointers, by layer: pointer, payload, address and payload, query, source frozen and not."""
    tables, twin = built(("pointers", "plain")).truth.tables, built(("positional", "plain")).truth.tables
    assert tables["answer_pointer"] == (0, 0, 1, 1, 0) and tables["answer_payload"] == (0, 0, 0, 0, 1)
    assert tables["address_and_payload"] == (0, 1, 1, 1, 0) and tables["query_pointers"] == (0, 1, 0, 0, 0)
    assert tables["source_frozen"] == (1, 0, 0, 0, 0) and tables["source_unfrozen"] == (0, 0, 0, 0, 0)
    assert twin["source_unfrozen"] == (1, 0, 0, 0, 0) and twin["answer_pointer_shifted"] == (0, 0, 0, 0, 0)


@each_model
def test_it_answers_what_is_believed_and_what_is_unknown(which: Any) -> None:
    planted = built(which)
    for before in ("", FILLER):
        texts = [
            story(rows, (rows[i][0], rows[j][1]), before=before) for rows, _, _ in CASES for i in (0, 1) for j in (0, 1)
        ]
        right = [f" {rows[i][2]}" if i == j else " unknown" for rows, _, _ in CASES for i in (0, 1) for j in (0, 1)]
        logits, _ = run(planted, tokens(planted, texts))
        assert answers(planted, logits) == right
        assert logits[:, LAST].softmax(-1).max(-1).values.min() > 0.99


@each_model
def test_the_heads_at_the_last_token_carry_pointer_and_payload(which: Any) -> None:
    """The binding head's output carries which state, the answer head's its word."""
    planted = built(which)
    truth = planted.truth
    org = tokens(planted, [story(rows, rows[k][:2]) for rows, _, k in CASES])
    seen = run(planted, tokens(planted, [story(back, rows[k][:2]) for rows, back, k in CASES]))[1]

    def patched(expected: list[str]) -> Tensor:
        return head_grid(
            planted,
            lambda at: share(
                answers(planted, run(planted, org, at_head("z", at, LAST, seen["z", at[0]]))[0]), expected
            ),
        )

    assert torch.equal(patched([f" {rows[1 - k][2]}" for rows, _, k in CASES]), only(planted, truth.heads["binding"]))
    assert torch.equal(patched([f" {back[1 - k][2]}" for _, back, k in CASES]), only(planted, truth.heads["answer"]))


@each_rotary
def test_two_dimensions_carry_the_pointer(which: Any) -> None:
    planted = built(which)
    truth, here = planted.truth, [story(rows, rows[k][:2]) for rows, _, k in CASES]
    other = [f" {rows[1 - k][2]}" for rows, _, k in CASES]
    layer = truth.heads["binding"][0]
    own, ids = streams(planted, here)[layer], tokens(planted, here)
    there = streams(planted, [story(back, rows[k][:2]) for rows, back, k in CASES])[layer]
    basis = truth.subspaces["state_ptr"]
    inside = ((there - own)[:, LAST:] @ basis.T) @ basis

    def iia(change: Tensor) -> float:
        edit = moved({layer: own[:, LAST:] + change}, [layer], [(LAST, LAST)])  # type: ignore[arg-type]
        return share(answers(planted, run(planted, ids, edit)[0]), other)

    assert len(basis) == truth.ranks["pointer"] == 2
    assert iia(inside) == 1 and iia((there - own)[:, LAST:] - inside) == 0


@each_model
def test_the_backup_stands_in_for_the_binding_head_alone(which: Any) -> None:
    planted = built(which)
    ids, right = tokens(planted, [story(r, r[k][:2]) for r, _, k in CASES]), [f" {r[k][2]}" for r, _, k in CASES]
    heads = planted.truth.heads | planted.truth.decoys
    without = {name: at_head("z", at, slice(None), 0.0) for name, at in heads.items()}

    def accuracy(*names: str) -> float:
        return share(answers(planted, run(planted, ids, all_of(*(without[name] for name in names)))[0]), right)

    assert accuracy("silent") == accuracy("cancelled") == accuracy("backup") == accuracy("binding") == 1
    assert accuracy("binding", "backup") == accuracy("answer") == 0


@each_model
def test_the_decoys_attend_to_the_state_and_nothing_is_left_of_them(which: Any) -> None:
    planted = built(which)
    truth, at = planted.truth, spots(planted)["state"]
    ids = tokens(planted, [story(rows, rows[0][:2]) for rows, _, _ in CASES])
    planted.model.set_attn_implementation("eager")
    with torch.no_grad():
        patterns = planted.model(ids, output_attentions=True).attentions
    planted.model.set_attn_implementation("sdpa")
    for layer, head in (truth.heads["binding"], truth.decoys["silent"], truth.decoys["cancelled"]):
        assert patterns[layer][:, head, LAST, at[0]].min() > 0.99
    echo, seen = truth.subspaces["echo"], streams(planted, [story(rows, rows[0][:2]) for rows, _, _ in CASES])
    assert (seen[truth.decoys["cancelled"][0]][:, LAST] @ echo.T).max(-1).values.min() > 0.9
    assert (seen[-1][:, LAST] @ echo.T).abs().max() < 0.05


def test_positions_in_the_stream_or_not_in_it_are_refused_where_they_cannot_be() -> None:
    with pytest.raises(ModelError, match=r"use family='llama', or build\('pointers', positional=True\)"):
        build(family="gpt2")
    with pytest.raises(ModelError, match="the positional twin needs family='gpt2'"):
        build(positional=True, family="llama")
