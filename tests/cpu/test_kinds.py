"""Encoders, encoder-decoders, vision and both: every module read and one written, as plain hooks do it."""

from typing import Any

import pytest
import torch
from tests.cpu.kinds import KINDS, tiny

import weft
from weft.record.format import write_record


@pytest.fixture(params=KINDS, scope="module")
def kind(request):
    found = KINDS[request.param]
    module = tiny(found.build)
    return found, module, weft.load(module)


def first(value):
    """The first tensor that a module gives."""
    if isinstance(value, torch.Tensor):
        return value
    items = list(value.values()) if isinstance(value, dict) else list(value)
    return next(each for each in items if isinstance(each, torch.Tensor))


def alone(card):
    """The modules that are called once and give one tensor."""
    outputs = [spec.site for spec in card.sites if spec.site.name == "module.output"]
    calls = {site.path for site in outputs if site.call}
    return [site.path for site in outputs if site.item == "" and site.path not in calls]


def by_hand(module, inputs, change=None):
    """What the whole gives, and every module's first output, with the output of one module changed."""
    found, handles = {}, []
    for path, each in module.named_modules():
        if path:
            keep = lambda _, __, out, path=path: found.update({path: out})  # noqa: E731
            handles.append(each.register_forward_hook(keep))
    if change is not None:
        path, done = change
        handles.append(module.get_submodule(path).register_forward_hook(lambda _, __, out: done(out)))
    try:
        with torch.no_grad():
            return first(module(**inputs)), found
    finally:
        for handle in handles:
            handle.remove()


def test_every_module_is_read_as_a_plain_hook_reads_it(kind):
    found, module, model = kind
    with model.session() as s:
        run = s.run(**found.inputs)
        paths = alone(run.card)
        for path in paths:
            run.module(path).output.save(path)
        run.output.save("the whole")
    whole, expected = by_hand(module, found.inputs)
    assert len(paths) > 15
    assert torch.allclose(s.results["the whole"], whole, atol=1e-5)
    for path in paths:
        assert torch.allclose(s.results[path], first(expected[path]), atol=1e-5), path


def halved(value):
    value = value.clone()
    value[..., :5] *= 0.5
    return value


def test_a_write_moves_the_whole_as_a_plain_hook_does(kind):
    found, module, model = kind
    with model.session() as s:
        run = s.run(**found.inputs)
        run.module(found.write).output[..., :5] *= 0.5
        run.output.save("out")
    plain, _ = by_hand(module, found.inputs)
    expected, _ = by_hand(module, found.inputs, (found.write, halved))
    assert torch.allclose(s.results["out"], expected, atol=1e-5)
    assert (expected - plain).abs().max() > 1e-4


def test_gradients_reach_a_module(kind):
    found, module, model = kind
    with model.trace(**found.inputs) as run:
        given = weft.grad(run.output.square().sum(), run.module(found.write).output).save()
    kept = []

    def keep(_, __, out):
        kept.append(out.detach().requires_grad_())
        return kept[-1]

    handle = module.get_submodule(found.write).register_forward_hook(keep)
    expected = torch.autograd.grad(first(module(**found.inputs)).square().sum(), kept)[0]
    handle.remove()
    assert torch.allclose(given.value, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_nothing_of_a_pass_is_left_out_and_it_says_why(kind):
    found, _, model = kind
    with model.session() as s:
        base, edited = s.run(**found.inputs), s.run(**found.inputs)
        edited.module(found.write).output[..., :5] *= 0.5
        (base.output - edited.output).abs().max().save("moved")
    assert "it is no decoder of tokens" in str(s.explain())
    assert s.results["moved"] > 0


@pytest.mark.parametrize("name", ["bert", "llava"])
def test_it_is_recorded_and_replayed(name, tmp_path):
    found = KINDS[name]
    module = tiny(found.build)
    model: Any = weft.load(module)
    with model.session() as s:
        run = s.run(**found.inputs)
        run.module(found.write).output[..., :5] *= 0.5
        run.output.save("out")
    write_record(s.record, tmp_path / "it.safetensors")
    comparison = weft.replay(tmp_path / "it.safetensors", weft.load(tiny(found.build)))
    assert comparison.same_model and comparison.agrees(1e-6), str(comparison)


def test_an_encoders_position_sees_those_after_it():
    """Why no suffix is computed alone: an edit at the last position moves the first."""
    found = KINDS["bert"]
    model: Any = weft.load(tiny(found.build))
    with model.session() as s:
        base, edited = s.run(**found.inputs), s.run(**found.inputs)
        edited.module(found.write).output[:, -1] = 0.0
        (base.output - edited.output)[:, 0].abs().max().save("moved")
    assert s.results["moved"] > 1e-3


def test_inputs_that_it_does_not_take_are_refused_with_its_own_words():
    found = KINDS["llava"]
    with pytest.raises(weft.errors.ModelError, match="cannot be run on"), weft.load(tiny(found.build)).session() as s:
        s.run(**{**found.inputs, "input_ids": found.inputs["input_ids"] * 0 + 3})


def test_where_an_image_stands_is_looked_at_anew():
    """The same shapes of inputs with the image's tokens elsewhere."""
    found = KINDS["llava"]
    module = tiny(found.build)
    model: Any = weft.load(module)
    for ids in (found.inputs["input_ids"], found.inputs["input_ids"].flip(1)):
        inputs = {**found.inputs, "input_ids": ids}
        with model.trace(**inputs) as run:
            out = run.output.save()
        assert torch.allclose(out.value, by_hand(module, inputs)[0], atol=1e-5)
