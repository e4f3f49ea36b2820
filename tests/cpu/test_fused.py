"""Activations in one step: the same function, and nothing left behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.activations import FastGELUActivation, GELUActivation, NewGELUActivation

from weft.execute.fused import activations, fused

INPUTS = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([0.0, -0.0, 1e-30, 80.0, -80.0])])


@pytest.mark.parametrize("kind", [NewGELUActivation, FastGELUActivation])
def test_the_short_way_gives_the_same_numbers_and_gradients(kind):
    part = kind()
    plain, short = INPUTS.clone().requires_grad_(), INPUTS.clone().requires_grad_()
    expected = part(plain)
    with fused(activations([nn.Sequential(part)])):
        found = part(short)
        assert found.grad_fn.name() == "GeluBackward0", "the short way was not taken"
    torch.testing.assert_close(found, expected, atol=5e-7, rtol=5e-7)
    expected.sum().backward()
    found.sum().backward()
    torch.testing.assert_close(short.grad, plain.grad, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_take_the_models_own_steps(dtype):
    part, value = NewGELUActivation(), INPUTS.to(dtype)
    expected = part(value)
    with fused(activations([part])):
        assert torch.equal(part(value), expected)


def test_hooks_are_called_and_the_activation_is_as_it_was_even_after_an_error():
    part, seen = NewGELUActivation(), []
    part.register_forward_hook(lambda *_: seen.append(1))
    with pytest.raises(ZeroDivisionError), fused(activations([part])):
        part(INPUTS)
        raise ZeroDivisionError
    assert seen == [1] and "forward" not in vars(part)


def test_what_is_patched_or_another_function_is_left_alone():
    patched = NewGELUActivation()
    patched.forward = own = lambda value: value + 1
    assert activations([GELUActivation(), nn.GELU(), nn.SiLU()]) == []
    with fused(activations([patched])):
        assert torch.equal(patched(INPUTS), INPUTS + 1)
    assert patched.forward is own
