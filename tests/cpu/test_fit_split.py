"""What is kept from step to step changes no number: bodies of many kinds, planned and as the reference runs them."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import tiny_gpt2, tiny_llama, tiny_mistral

import weft
from weft.planted.words import VOCABULARY, word_tokenizer

MODELS = {"gpt2": tiny_gpt2, "llama": tiny_llama, "windows": tiny_mistral}
TOKENS = torch.randint(0, 17, (12, 6), generator=torch.Generator().manual_seed(5))
PUSH = torch.randn(20, generator=torch.Generator().manual_seed(6))


def steered_below(run, other, x):
    """Something fixed is written below, and at the very site, that training changes."""
    d = x.shape[0]
    run.resid_post[0][:, 2] += PUSH[:d]
    run.resid_post[1][:, -1] += PUSH[:d]
    run.resid_post[1][:, -1] += x
    run.resid_post[1][:, 0] *= 1.5
    return run.logits[:, -1, :4].logsumexp(-1).mean()


def read_between(run, other, x):
    """Reads of the changed run below, at and above the change, and of another run at every place."""
    d = x.shape[0]
    below, at = run.resid_post[0][:, -1], run.resid_post[1][:, -1]
    run.attn_out[1][:, -1] = run.attn_out[1][:, -1] + x * below.norm() / d
    above = run.mlp_out[1][:, -1]
    return (
        ((above - other.mlp_out[1][:, -1]) ** 2).sum() + (at * below.detach() * x).sum() + other.embed.sum() * x.sum()
    )


def two_layers(run, other, x):
    """Learned edits in two layers, the second made of the other run."""
    run.z[0][:, 1:, 0] = run.z[0][:, 1:, 0] * x[0]
    run.resid_post[1][:, -1] = other.resid_post[1][:, -1] * x[1] + run.resid_post[1][:, -1] * x[2:].mean()
    return run.logits[:, -1].log_softmax(-1)[:, 3].mean()


def from_one_run_into_another(run, other, x):
    """Both runs are changed, and one reads what the other has become."""
    other.resid_post[0][:, -1] += x
    run.mlp_out[1][:, -1] += other.mlp_out[1][:, -1]
    return run.logits[:, -1, 2].mean() - other.logits[:, -1, 2].mean()


def at_the_embedding(run, other, x):
    """Nothing lies below."""
    run.embed[:, 1] += x
    return run.logits[:, -1, 5].mean() + other.logits[:, -1, 5].mean()


def inside_attention(run, other, x):
    """Keys and scores, which have places of their own within a layer."""
    run.k[1][:, 2, 0] = run.k[1][:, 2, 0] * x[: run.k[1].shape[-1]]
    run.scores[1][:, :, -1, 1] += x[0]
    return run.pattern[1][:, 0, -1, 2].mean() + run.logits[:, -1, 1].mean()


def through_a_module(run, other, x):
    """A module's own output of the layer below, and a part of the model applied to a value."""
    return ((run.resid_post[0][:, -1] * x) @ other.resid_post[1][:, -1].T).tanh().sum()


def a_gradient_inside(run, other, x):
    """A gradient of another run, taken inside the loss, is something to learn with."""
    slope = weft.grad(other.logits[:, -1, 3].sum(), other.resid_post[0])
    run.resid_post[0][:, -1] += slope[:, -1] * x
    return run.logits[:, -1, 3].mean()


BODIES = [
    steered_below, read_between, two_layers, from_one_run_into_another, at_the_embedding, inside_attention,
    through_a_module, a_gradient_inside,
]  # fmt: skip


def losses(model, body, plan: str, data, steps: int = 7):
    d = model.d_model
    x = torch.randn(d, generator=torch.Generator().manual_seed(7)) * 0.3
    y = x.clone()
    swap = torch.arange(11, -1, -1)

    def loss(s, batch):
        other = s.run(batch["other"])
        return body(s.run(batch["run"]), other, y)

    other = [data[i] for i in swap.tolist()] if isinstance(data, list) else data[swap]
    fit = model.fit(loss, y, {"run": data, "other": other}, steps=steps, lr=0.02, batch_size=4, plan=plan)
    return fit.loss, y, fit


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_a_step_from_the_first_changed_layer_is_the_whole_step(kind: str, body) -> None:
    model = weft.load(MODELS[kind](3))
    expected, learned, _ = losses(model, body, "reference", TOKENS)
    found, value, fit = losses(model, body, "auto", TOKENS)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert torch.allclose(value, learned, rtol=0, atol=2e-4)
    assert not fit.outcome.notes


@pytest.mark.parametrize("body", [*BODIES[1:4], through_a_module], ids=lambda body: body.__name__)
def test_prompts_of_different_lengths_too(body) -> None:
    words = [" ".join(VOCABULARY[4 + (5 * row + n) % 30] for n in range(4 + row % 3)) for row in range(12)]
    model = weft.load(tiny_llama(3, vocab_size=len(VOCABULARY)), tokenizer=word_tokenizer())
    expected, learned, _ = losses(model, body, "reference", words)
    found, value, fit = losses(model, body, "auto", words)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert torch.allclose(value, learned, rtol=0, atol=2e-4)
    assert not fit.outcome.notes


def test_a_layer_that_cannot_be_left_out_is_found_out() -> None:
    """A model whose second layer does something else if the first was not really run in the same pass."""
    module, seen = tiny_gpt2(3), []
    first, second = module.transformer.h
    module.register_forward_pre_hook(lambda *_: seen.clear())
    first.mlp.register_forward_hook(lambda *_: seen.append(1))
    second.register_forward_pre_hook(lambda _, args: ((args[0] if seen else args[0] * 2), *args[1:]))
    model = weft.load(module)
    expected, _, _ = losses(model, in_the_second_layer, "reference", TOKENS)
    found, _, fit = losses(model, in_the_second_layer, "auto", TOKENS)
    assert "gave other numbers" in fit.outcome.notes[0]
    assert torch.allclose(found, expected, atol=1e-6)


def in_the_second_layer(run, other, x):
    run.attn_out[1][:, -1] += x
    return run.logits[:, -1, 3].mean()
