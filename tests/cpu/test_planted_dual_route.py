"""The planted token and concept heads are where their truth says, found by plain hooks under every variant."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest
import torch
from planted_hooks import VARIANTS, all_of, answers, at_head, head_grid, marked, run, share, tokens
from torch import Tensor

from weft.planted.assemble import Planted
from weft.planted.dual_route import CONCEPTS, CUT, FILLERS, LANGUAGES, VOCABULARY, build, translation, word_in

LAST, BEFORE_LAST = -1, -2
each_variant = pytest.mark.parametrize("variant", marked(VARIANTS))
built = cache(lambda variant: build(**VARIANTS[variant]))


def copying(words: bool, n: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """clean = <bos> R e \\n R e1, corrupt = <bos> R' \\n R e1, and e [n, 2]: real words, or two tokens at random."""
    draw, clean, corrupt, entities = random.Random(0), [], [], []
    fillers = [VOCABULARY.index(f" {word}") for word in FILLERS]
    for _ in range(n):
        shuffled = draw.sample(fillers, 32)
        r, other, pair = shuffled[:12], shuffled[12:26], shuffled[30:]
        if words:
            first, second = draw.choice(CUT)
            pair = [VOCABULARY.index(f" {first}"), VOCABULARY.index(second)]
        end = [VOCABULARY.index("\n"), *r[3:], pair[0]]
        clean.append([0, *r, *pair, *end])
        corrupt.append([0, *other, *end])
        entities.append(pair)
    return torch.tensor(clean), torch.tensor(corrupt), torch.tensor(entities)


def chance(logits: Tensor, at: int, ids: Tensor) -> Tensor:
    return logits[:, at].softmax(-1).gather(-1, ids[:, None])[:, 0]


def copying_scores(planted: Planted, words: bool, at: int, which: int) -> Tensor:
    """[layer, head]: how much a head's z, patched at −2 from clean, adds to P(entity's token `which`) at `at`."""
    clean, corrupt, entities = copying(words)
    seen, wanted = run(planted, clean)[1], entities[:, which]
    before = chance(run(planted, corrupt)[0], at, wanted)
    assert before.max() < 0.05

    def score(head: tuple[int, int]) -> float:
        patch = at_head("z", head, BEFORE_LAST, seen["z", head[0]])
        return float((chance(run(planted, corrupt, patch)[0], at, wanted) - before).mean())

    return head_grid(planted, score)


@each_variant
@pytest.mark.parametrize(
    ("role", "words", "at", "which"), [("concept", True, LAST, 1), ("token", False, BEFORE_LAST, 0)]
)
def test_each_copying_score_is_high_at_its_own_head_alone(
    variant: str, role: str, words: bool, at: int, which: int
) -> None:
    planted = built(variant)
    grid = copying_scores(planted, words, at, which)
    assert grid[planted.truth.heads[role]] > 0.95
    grid[planted.truth.heads[role]] = 0
    assert grid.abs().max() < 0.001


@each_variant
def test_the_stream_before_the_word_follows_its_tables(variant: str) -> None:
    planted = built(variant)
    for name, words, at, which in (("next_concept", True, LAST, 1), ("next_token", False, BEFORE_LAST, 0)):
        clean, corrupt, entities = copying(words)
        seen, rows = run(planted, clean)[1], []
        for layer in range(planted.truth.n_layers):
            edit = at_stream(layer, BEFORE_LAST, seen["resid", layer])
            rows.append(round(float(chance(run(planted, corrupt, edit)[0], at, entities[:, which]).mean()), 1))
        assert tuple(rows) == planted.truth.tables[name]


def at_stream(layer: int, where: Any, value: Tensor) -> Any:
    def edit(kind: str, at: int, into: Tensor) -> None:
        if (kind, at) == ("resid", layer):
            into[:, where] = value[:, where]

    return edit


Ask = tuple[list[str], str, str]


def ask(seed: int, pair: tuple[str, str]) -> Ask:
    """Four concepts, and from which language to which; the fourth is asked for."""
    return random.Random(seed).sample(CONCEPTS, 4), *pair


def text(question: Ask, first: str = "") -> str:
    return translation(*question) + first


def first_of(concept: str, language: str) -> str:
    return " " + LANGUAGES[language][CONCEPTS.index(concept)].split("-")[0]


def second_of(concept: str, language: str) -> str:
    return LANGUAGES[language][CONCEPTS.index(concept)].split("-")[1]


SOURCE = [ask(seed, ("German", "English")) for seed in range(6)]
BASE = [
    ([w for w in CONCEPTS if w not in words[:3]][:3] + [next(w for w in CONCEPTS[::-1] if w != words[3])], *pair)
    for (words, _, _), pair in zip(SOURCE, [("English", "Italian"), ("German", "Italian")] * 3, strict=True)
]


@each_variant
def test_it_translates_words_of_two_tokens(variant: str) -> None:
    planted = built(variant)
    for question in [ask(seed, pair) for seed, pair in enumerate([("English", "Italian"), ("Italian", "German")] * 3)]:
        (*_, concept), _, to = question
        for sofar, expected in (("", first_of(concept, to)), (first_of(concept, to), second_of(concept, to))):
            logits = run(planted, tokens(planted, [text(question, sofar)]))[0]
            assert answers(planted, logits) == [expected]
            assert logits[0, LAST].softmax(-1).max() > 0.99


@each_variant
def test_the_concept_heads_output_changes_the_word_and_not_the_language(variant: str) -> None:
    planted = built(variant)
    at = planted.truth.heads["concept"]
    seen = run(planted, tokens(planted, [text(question) for question in SOURCE]))[1]["z", at[0]]
    wanted = [words[3] for words, _, _ in SOURCE]
    logits, _ = run(planted, tokens(planted, [text(question) for question in BASE]), at_head("z", at, LAST, seen))
    first = [first_of(concept, "Italian") for concept in wanted]
    assert answers(planted, logits) == first
    ids = tokens(planted, [text(question, sofar) for question, sofar in zip(BASE, first, strict=True)])
    edit = all_of(at_head("z", at, BEFORE_LAST, torch.cat([seen, seen[:, -1:]], 1)), at_head("z", at, LAST, seen))
    assert answers(planted, run(planted, ids, edit)[0]) == [second_of(concept, "Italian") for concept in wanted]


@each_variant
def test_the_end_of_the_word_holds_its_concept_until_it_is_read(variant: str) -> None:
    planted, rows = built(variant), []
    ids = tokens(planted, [text(question) for question in BASE])
    other = tokens(
        planted, [text((words[:3] + source[0][3:], a, b)) for (words, a, b), source in zip(BASE, SOURCE, strict=True)]
    )
    where = int((ids[0] == VOCABULARY.index("\n")).nonzero()) - 1
    seen = run(planted, other)[1]
    expected = [first_of(words[3], "Italian") for words, _, _ in SOURCE]
    for layer in range(planted.truth.n_layers):
        edit = at_stream(layer, where, seen["resid", layer])
        rows.append(share(answers(planted, run(planted, ids, edit)[0]), expected))
    assert tuple(rows) == planted.truth.tables["concept_at_word_end"]


@each_variant
def test_without_the_concept_head_translation_becomes_copying(variant: str) -> None:
    planted = built(variant)
    ids = tokens(planted, [text(question) for question in BASE])
    copied = [first_of(words[3], a) for words, a, _ in BASE]
    heads = planted.truth.heads | planted.truth.decoys
    without = {name: at_head("z", at, slice(None), 0.0) for name, at in heads.items()}
    assert answers(planted, run(planted, ids, without["concept"])[0]) == copied
    translated = [first_of(words[3], b) for words, _, b in BASE]
    assert answers(planted, run(planted, ids, all_of(without["token"], without["backup"]))[0]) == translated


@each_variant
def test_without_the_token_head_its_backup_copies_and_without_both_nothing_does(variant: str) -> None:
    planted = built(variant)
    clean, _, entities = copying(words=False)
    heads = planted.truth.heads | planted.truth.decoys
    without = {name: at_head("z", at, slice(None), 0.0) for name, at in heads.items()}

    def certainty(*names: str) -> float:
        edit = all_of(*(without[name] for name in names))
        return float(chance(run(planted, clean, edit)[0], LAST, entities[:, 1]).mean())

    assert min(certainty(name) for name in ("token", "backup", "silent", "cancelled", "concept")) > 0.95
    assert certainty("token", "backup") < 0.05


def lens(planted: Planted, role: str, stream: Tensor) -> Tensor:
    """Logits of what a head would write if it attended to this stream, [n, vocab]."""
    (layer, head), model = planted.truth.heads[role], planted.model
    with torch.no_grad():
        if hasattr(model, "transformer"):
            attention, d = model.transformer.h[layer].attn, model.config.n_embd
            value = attention.c_attn.weight[:, 2 * d :].unflatten(1, (planted.truth.n_heads, -1))[:, head]
            out, norm = attention.c_proj.weight.unflatten(0, (planted.truth.n_heads, -1))[head], model.transformer.ln_f
        else:
            attention = model.model.layers[layer].self_attn
            group = model.config.num_attention_heads // model.config.num_key_value_heads
            value = attention.v_proj.weight.unflatten(0, (-1, 64))[head // group].T
            out, norm = attention.o_proj.weight.T.unflatten(0, (planted.truth.n_heads, -1))[head], model.model.norm
        return model.lm_head(norm(stream @ value @ out))


@each_variant
def test_the_concept_lens_lists_the_word_in_every_language_and_the_token_lens_its_token(variant: str) -> None:
    planted = built(variant)
    ids = tokens(planted, [word_in(concept, "Italian").join([" red ", ""]) for concept in CONCEPTS])
    stream = run(planted, ids)[1]["resid", 0][:, LAST]
    for concept, best in zip(CONCEPTS, lens(planted, "concept", stream).topk(3).indices, strict=True):
        assert {planted.tokenizer.decode(i) for i in best} == {first_of(concept, language) for language in LANGUAGES}
    assert torch.equal(lens(planted, "token", stream).argmax(-1), ids[:, LAST])


@each_variant
def test_the_decoys_attend_where_the_concept_head_does_and_nothing_is_left_of_them(variant: str) -> None:
    planted, truth = built(variant), built(variant).truth
    ids = tokens(planted, [text(question) for question in BASE])
    planted.model.set_attn_implementation("eager")
    with torch.no_grad():
        patterns = planted.model(ids, output_attentions=True).attentions
    planted.model.set_attn_implementation("sdpa")
    where = int((ids[0] == VOCABULARY.index("\n")).nonzero()) - 1
    for layer, head in (truth.heads["concept"], truth.decoys["silent"], truth.decoys["cancelled"]):
        assert patterns[layer][:, head, LAST, where].min() > 0.99
    seen, echo = run(planted, ids)[1], truth.subspaces["echo"]
    assert (seen["resid", truth.decoys["cancelled"][0]][:, LAST] @ echo.T).max(-1).values.min() > 0.9
    assert (seen["resid", truth.n_layers - 1][:, LAST] @ echo.T).abs().max() < 0.05
