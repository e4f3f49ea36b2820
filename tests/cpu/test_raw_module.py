"""A module that is no language model: a small convolutional net with keyword inputs, by module path and by record."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import weft
from weft.errors import ModelError, ProgramError, SiteError
from weft.record.format import write_record


class Net(nn.Module):
    """Two convolutions, a condition that shifts the channels, and the same head called twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()) for _ in range(2)])
        self.embed = nn.Linear(3, 4)
        self.head = nn.Linear(4, 5)

    def forward(self, image, condition):
        x = torch.relu(self.first(image)) + self.embed(condition)[:, :, None, None]
        for block in self.blocks:
            x = x + block(x)
        pooled = x.mean((2, 3))
        return self.head(pooled) + self.head(pooled * 2)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def model(net):
    return weft.load(net)


INPUTS = {
    "image": torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(1)),
    "condition": torch.randn(2, 3, generator=torch.Generator().manual_seed(2)),
}


def hooked(net, path, change):
    """The output with a module's output changed by hand."""
    handle = net.get_submodule(path).register_forward_hook(lambda _, __, out: change(out))
    try:
        with torch.no_grad():
            return net(**INPUTS)
    finally:
        handle.remove()


def test_it_is_read_by_module_path(model, net):
    with model.session() as s:
        run = s.run(**INPUTS)
        run.module("blocks.1.0").output.save("conv")
        run.module("blocks.1.0").input.save("before")
        run.output.save("output")
    found: dict[str, torch.Tensor] = {}
    handle = net.blocks[1][0].register_forward_hook(lambda _, args, out: found.update(conv=out, before=args[0]))
    with torch.no_grad():
        found["output"] = net(**INPUTS)
    handle.remove()
    for name, value in s.results.items():
        torch.testing.assert_close(value, found[name])


def test_an_edit_by_module_path_moves_the_output(model, net):
    with model.trace(**INPUTS) as run:
        run.module("first").output[:, 2] = 0
        run.module("blocks.0").output *= 2
        out = run.output.save()
    expected = _edited(net)
    torch.testing.assert_close(out.value, expected)
    with torch.no_grad():
        assert not torch.allclose(out.value, net(**INPUTS))


def _edited(net):
    def zero(out):
        out = out.clone()
        out[:, 2] = 0
        return out

    handles = [
        net.first.register_forward_hook(lambda _, __, out: zero(out)),
        net.blocks[0].register_forward_hook(lambda _, __, out: out * 2),
    ]
    with torch.no_grad():
        result = net(**INPUTS)
    for handle in handles:
        handle.remove()
    return result


def test_one_run_patches_another(model, net):
    changed = {**INPUTS, "image": INPUTS["image"].flip(3)}
    with model.session() as s:
        clean, other = s.run(**INPUTS), s.run(**changed)
        other.module("blocks.0").output[:, :2] = clean.module("blocks.0").output[:, :2]
        other.output.save("output")
    taken: list[torch.Tensor] = []
    hooked(net, "blocks.0", taken.append)

    def patch(_, __, out):
        out = out.clone()
        out[:, :2] = taken[0][:, :2]
        return out

    handle = net.blocks[0].register_forward_hook(patch)
    with torch.no_grad():
        expected = net(**changed)
    handle.remove()
    torch.testing.assert_close(s.results["output"], expected)


def test_a_module_called_twice_must_say_which(model, net):
    with pytest.raises(SiteError, match=r"several times.*call\(0\)") as error, model.trace(**INPUTS) as run:
        run.module("head").output.save()
    assert error.value.where.text == 'run.module("head").output.save()'
    with model.trace(**INPUTS) as run:
        run.module("head").call(1).output[:] = 0
        out = run.output.save()
        first = run.module("head").call(0).output.save()
    torch.testing.assert_close(out.value, first.value)


def test_gradients_at_a_module(model, net):
    with model.trace(**INPUTS) as run:
        found = weft.grad(run.output[:, 1].sum(), run.module("blocks.0").output).save()
    sites: list[torch.Tensor] = []
    handle = net.blocks[0].register_forward_hook(lambda _, __, out: sites.append(out))
    expected = torch.autograd.grad(net(**INPUTS)[:, 1].sum(), sites)[0]
    handle.remove()
    torch.testing.assert_close(found.value, expected, rtol=1e-5, atol=1e-5)


def test_it_is_recorded_and_replayed(model, net, tmp_path):
    with model.session() as s:
        run = s.run(**INPUTS)
        run.module("first").output[:, 0] *= 3
        run.output.save("output")
    write_record(s.record, tmp_path / "net.safetensors")
    comparison = weft.replay(tmp_path / "net.safetensors", weft.load(net))
    assert comparison.same_model and comparison.agrees(1e-6), str(comparison)
    other = Net().eval()
    assert not weft.replay(s.record, weft.load(other)).same_model


# -- what is refused ---


def test_an_unknown_module_is_named_with_its_neighbours(model):
    with pytest.raises(SiteError, match=r"did you mean .*blocks\.1\.0") as error, model.trace(**INPUTS) as run:
        run.module("blocks.1.O").output.save()
    assert error.value.where.text == 'run.module("blocks.1.O").output.save()'


def test_prompts_are_for_language_models(model):
    with pytest.raises(ProgramError, match=r"give its tensors by keyword") as error, model.session() as s:
        s.run("one two")
    assert error.value.where.text == 's.run("one two")'


def test_inputs_that_the_module_does_not_take(model):
    with pytest.raises((ModelError, ProgramError)) as error, model.session() as s:
        s.run(image=INPUTS["image"])
    assert "condition" in str(error.value)
    assert error.value.where.text == 's.run(image=INPUTS["image"])'
