"""The screen's hooks: they read and write what their names say, at the places of the roles."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from weft import tasks
from weft.bobbin import hooks, model, screen, tokenizer


@pytest.fixture(scope="module")
def words() -> Any:
    return tokenizer.build()


@pytest.fixture(scope="module")
def net(words: Any) -> Any:
    made = model.make(words.get_vocab_size(), size=model.TINY).eval()
    torch.manual_seed(0)
    for each in made.parameters():
        torch.nn.init.normal_(each, std=0.5)
    return made


def test_a_role_ends_where_its_word_ends(words: Any) -> None:
    batch = tasks.Translation().sample(4, seed=0)
    sheet = screen.Sheet(words, batch)
    for row, at in enumerate(sheet.end_of("asked")[:, 0].tolist()):
        upto = words.decode(sheet.ids[row, : at + 1].tolist())
        assert upto.endswith("5. " + batch.words("asked")[row])


def test_the_last_layers_stream_at_the_last_token_is_the_whole_answer(net: Any, words: Any) -> None:
    batch = tasks.BeliefTracking().sample(3, seed=0)
    base, other = screen.Sheet(words, batch), screen.Sheet(words, batch.counterfactual)
    patch = screen._Patch(net, "x", base, hooks.record(net, other.ids, "x"), (base.last, other.last), batch.expected)
    theirs = hooks.taken(hooks.run(net, other.ids), other.last)[:, 0]
    torch.testing.assert_close(patch.logits({1: None}), theirs)
    assert not torch.allclose(patch.logits({0: None}), theirs)  # the layer above still looks at the prompt's own words


def test_a_head_is_patched_and_its_neighbour_is_not(net: Any) -> None:
    ids = torch.tensor([[0, 5, 6, 7]])
    at = torch.tensor([[2]])
    new = torch.full((1, 1, 2, 8), 3.0)
    seen = hooks.record(net, ids, "z")[0]
    edited = hooks.put(new, at, [1])(seen)
    changed = (edited != seen).any(-1)[0]
    assert changed.nonzero().tolist() == [[2, 1]]


def test_queries_are_those_of_the_projection(net: Any) -> None:
    ids = torch.tensor([[0, 5, 6, 7]])
    layer = net.model.layers[0]
    normed = layer.input_layernorm(net.model.embed_tokens(ids))
    expected = (normed @ layer.self_attn.q_proj.weight.T).unflatten(-1, (2, 8))
    torch.testing.assert_close(hooks.record(net, ids, "q")[0], expected)


def test_prefix_matching_of_a_model_without_it_is_low(net: Any) -> None:
    found = screen.induction(net, n=2, length=5)
    assert not found.passed
    assert len(found.figures["by_head"]) == 2
    assert found.figures["without"] == found.figures["copied"]  # no head is silenced


def test_heads_that_look_further_on_are_found_by_what_copying_is_without_them(
    net: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attention is made up here: head 1.0 looks 3 after the first time. What silencing it does is the model's own."""
    length = 6

    def made_up(_: Any, ids: torch.Tensor) -> torch.Tensor:
        patterns = torch.zeros(2, len(ids), 2, ids.shape[1], ids.shape[1])
        here = torch.arange(length + 1, 2 * length)
        patterns[1, :, 0, here, here - length + 3] = 0.9
        return patterns

    monkeypatch.setattr(screen, "_patterns", made_up)
    seen: list[dict[Any, Any]] = []
    plain = hooks.run
    monkeypatch.setattr(
        hooks, "run", lambda model, ids, edits=None: seen.append(edits or {}) or plain(model, ids, edits)
    )
    found = screen.induction(net, n=2, length=length)
    assert found.figures["after"] == 3 and found.figures["by_head"] == [[0.0, 0.0], [0.9, 0.0]]
    assert [list(each) for each in seen] == [[], [("z", 1)]]
    value = torch.ones(2, 2 * length + 1, 2, 8)
    silent = seen[1]["z", 1](value)
    assert not silent[:, :, 0].any() and bool((silent[:, :, 1] == 1).all())
    assert not found.passed  # a model that copies nothing loses nothing


def test_a_model_that_guesses_passes_nothing(net: Any, words: Any) -> None:
    for found in (
        screen.predicates(net, words, 8, 0),
        screen.pointers(net, words, 8, 0),
        screen.concepts(net, words, 8, 0),
    ):
        assert not found.passed
        assert "pairs" in found.figures
