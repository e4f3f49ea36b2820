"""Induction heads: the planted one, the numbers of the model's own attention, and a model whose attention cannot be read."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import tiny_llama

import weft
from weft.execute.constants import to_tensor
from weft.methods import induction_heads
from weft.planted.induction import truth


def test_the_planted_head_and_the_one_it_needs() -> None:
    found = induction_heads(weft.load("induction"), n=4, length=8)
    assert found.above() == [truth().induction] and found.strongest() == 1
    assert found.above(after=2) == []
    previous = found["previous"].values
    assert previous.max() > 0.9 and previous.argmax() // previous.shape[1] < truth().induction[0]
    assert float(found["copied"]) > 0.9


def test_scores_are_those_of_the_models_own_attention() -> None:
    net = tiny_llama(seed=2)
    found = induction_heads(weft.load(net), n=3, length=5, seed=4)
    generator = torch.Generator().manual_seed(4)
    once = torch.stack([torch.randperm(net.config.vocab_size, generator=generator)[:5] for _ in range(3)])
    net.set_attn_implementation("eager")
    patterns = net(input_ids=torch.cat([once, once], 1), output_attentions=True).attentions
    for layer, each in enumerate(patterns):
        expected = torch.stack([each[:, :, t, t - 4] for t in range(5, 9)]).mean((0, 1))
        assert found["attention"].values[layer] == pytest.approx(expected.detach().numpy(), abs=1e-5)
        for after in range(1, 5):
            expected = torch.stack([each[:, :, t, t - 5 + after] for t in range(5, 9)]).mean((0, 1)).detach().numpy()
            assert found["later"].sel(after=after).values[layer] == pytest.approx(expected, abs=1e-5)


def test_the_token_that_opens_every_text_comes_first() -> None:
    model = weft.load("bobbin")
    assert model.tokens.adds_bos
    (record,) = induction_heads(model, n=2, length=4).records
    first = to_tensor(record.experiment.nodes[0].data, torch.device("cpu"))
    assert first.shape == (2, 9)
    assert (first[:, 0] == model.tokens.bos_id).all()


@pytest.mark.parametrize("wrong", [{"n": 0}, {"length": 2}])
def test_too_little_is_refused_with_the_call(wrong: dict[str, int]) -> None:
    with pytest.raises(weft.errors.ProgramError, match="n=16, length=20"):
        induction_heads(weft.load("induction"), **wrong)


def test_places_that_were_not_measured_are_refused() -> None:
    found = induction_heads(weft.load("induction"), n=2, length=4)
    with pytest.raises(weft.errors.ProgramError, match=r"after is one of 1, 2, .* places, not 0"):
        found.above(after=0)
