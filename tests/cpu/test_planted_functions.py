"""The planted function vector is where its truth says, found by plain hooks under every variant."""

from __future__ import annotations

import random
from functools import cache

import pytest
import torch
from planted_hooks import VARIANTS, all_of, answers, at_head, head_grid, marked, run, share, tokens
from torch import Tensor

from weft.planted.assemble import Planted
from weft.planted.functions import FUNCTIONS, WORDS, build, prompt

LAST = -1
N_EXAMPLES = 6
each_variant = pytest.mark.parametrize("variant", marked(VARIANTS))
built = cache(lambda variant: build(**VARIANTS[variant]))


def prompts(name: str, n: int = 8, shuffled: bool = False, examples: int = N_EXAMPLES) -> tuple[list[str], list[str]]:
    """Texts and answers; shuffled, the answers of the examples change places."""
    draw, pairs = random.Random(name), FUNCTIONS[name]
    texts, right = [], []
    for i in range(n):
        query = WORDS[i % len(WORDS)]
        shown = draw.sample([word for word in WORDS if word != query], examples)
        made = [pairs[word] for word in shown]
        if shuffled:
            draw.shuffle(made)
        texts.append(prompt(list(zip(shown, made, strict=True)), query))
        right.append(f" {pairs[query]}")
    return texts, right


def chance(planted: Planted, logits: Tensor, right: list[str]) -> Tensor:
    ids = torch.tensor(planted.tokenizer.convert_tokens_to_ids(right))
    return logits[:, LAST].softmax(-1).gather(-1, ids[:, None])[:, 0]


def mean_z(planted: Planted, name: str) -> list[Tensor]:
    """By layer, the mean over prompts at the last token: [1, 1, head, d]."""
    seen = run(planted, tokens(planted, prompts(name)[0]))[1]
    return [seen["z", layer][:, LAST:].mean(0, keepdim=True) for layer in range(planted.truth.n_layers)]


def vector(planted: Planted, name: str) -> Tensor:
    """The function head's mean output in the stream; a GPT-2 keeps this weight turned the other way round."""
    layer, head = planted.truth.heads["function"]
    z, model = mean_z(planted, name)[layer][0, 0, head], planted.model
    gpt2 = hasattr(model, "transformer")
    weight = (
        model.transformer.h[layer].attn.c_proj.weight if gpt2 else model.model.layers[layer].self_attn.o_proj.weight.T
    )
    return (z @ weight.unflatten(0, (planted.truth.n_heads, -1))[head]).detach()


@each_variant
def test_it_applies_the_function_of_the_examples(variant: str) -> None:
    planted = built(variant)
    for name in FUNCTIONS:
        texts, right = prompts(name)
        assert chance(planted, run(planted, tokens(planted, texts))[0], right).min() > 0.99


@each_variant
def test_without_examples_it_guesses_among_the_words(variant: str) -> None:
    planted = built(variant)
    texts, right = prompts("next", examples=0)
    logits = run(planted, tokens(planted, texts))[0]
    assert chance(planted, logits, right) == pytest.approx([0.124] * 8, abs=0.03)


@each_variant
def test_one_head_has_the_average_indirect_effect(variant: str) -> None:
    planted = built(variant)
    (texts, right), means = prompts("third", shuffled=True), mean_z(planted, "third")
    ids = tokens(planted, texts)
    before = chance(planted, run(planted, ids)[0], right)

    def effect(at: tuple[int, int]) -> float:
        patch = at_head("z", at, slice(LAST, None), means[at[0]].expand(len(texts), -1, -1, -1))
        return float((chance(planted, run(planted, ids, patch)[0], right) - before).mean())

    grid = head_grid(planted, effect)
    where = planted.truth.heads["function"]
    assert grid[where] > 0.6  # what is missing to 1 the shuffled prompts had right
    grid[where] = 0
    assert grid.max() < 0.001


@each_variant
def test_its_mean_output_triggers_the_function_if_added_early_enough(variant: str) -> None:
    planted = built(variant)
    rows = []
    for layer in range(planted.truth.n_layers):
        scores = []
        for name in FUNCTIONS:
            (texts, right), v = prompts(name, examples=0), vector(planted, name)

            def add(kind: str, at: int, into: Tensor, layer=layer, v=v) -> None:
                if (kind, at) == ("resid", layer):
                    into[:, LAST] += v

            scores.append(float(chance(planted, run(planted, tokens(planted, texts), add)[0], right).mean()))
        rows.append(sum(scores) / len(scores))
    table = planted.truth.tables["zero_shot_with_vector"]
    assert rows == pytest.approx([1.0 if entry else 0.125 for entry in table], abs=0.02)


@each_variant
def test_a_random_vector_of_that_length_does_not(variant: str) -> None:
    planted = built(variant)
    (texts, right), v = prompts("next", examples=0), vector(planted, "next")
    random_v = torch.randn(v.shape, generator=torch.Generator().manual_seed(0))
    random_v *= v.norm() / random_v.norm()

    def add(kind: str, at: int, into: Tensor) -> None:
        if (kind, at) == ("resid", 0):
            into[:, LAST] += random_v

    logits = run(planted, tokens(planted, texts), add)[0]
    assert chance(planted, logits, right).max() < 0.3


@each_variant
def test_the_vectors_lie_in_the_directions_told(variant: str) -> None:
    planted = built(variant)
    vectors = torch.stack([vector(planted, name) for name in FUNCTIONS])
    inside = vectors @ planted.truth.subspaces["task"].T
    assert inside == pytest.approx(torch.eye(planted.truth.ranks["function"]), abs=0.02)
    assert vectors.norm(dim=1) == pytest.approx([1.0] * len(FUNCTIONS), abs=0.02)


@each_variant
def test_the_answer_follows_its_table(variant: str) -> None:
    """The last token's stream from a prompt of another function and another question."""
    planted = built(variant)
    (source, other), (base, _) = prompts("second"), prompts("opposite")
    source, other = source[1:] + source[:1], other[1:] + other[:1]
    ids, rows = tokens(planted, base), []
    seen = run(planted, tokens(planted, source))[1]
    for layer in range(planted.truth.n_layers):

        def patch(kind: str, at: int, into: Tensor, layer=layer) -> None:
            if (kind, at) == ("resid", layer):
                into[:, LAST] = seen["resid", layer][:, LAST]

        rows.append(share(answers(planted, run(planted, ids, patch)[0]), other))
    assert tuple(rows) == planted.truth.tables["answer"]


@each_variant
def test_decoys_do_nothing_alone_and_the_backup_stands_in(variant: str) -> None:
    planted = built(variant)
    texts, right = prompts("second")
    ids = tokens(planted, texts)
    without = {
        name: at_head("z", at, slice(None), 0.0) for name, at in (planted.truth.heads | planted.truth.decoys).items()
    }

    def certainty(*names: str) -> float:
        return float(chance(planted, run(planted, ids, all_of(*(without[name] for name in names)))[0], right).min())

    assert min(certainty(name) for name in ("silent", "cancelled", "backup", "function")) > 0.99
    assert certainty("function", "backup") == pytest.approx(0.124, abs=0.03)
    assert certainty("asked") < 0.2
    seen, echo = run(planted, ids)[1], planted.truth.subspaces["echo"]
    layer = planted.truth.decoys["cancelled"][0]
    assert (seen["resid", layer][:, LAST] @ echo.T).max(-1).values.min() > 0.1  # an average of six words
    assert (seen["resid", planted.truth.n_layers - 1][:, LAST] @ echo.T).abs().max() < 0.05
