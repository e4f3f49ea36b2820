"""State spaces and time mixing: the stream and logits by equation, everything else by module path; jamba by path alone."""

from typing import Any

import pytest
import torch
from tests.cpu.kinds import MIXERS, RECURRENT, jamba, rwkv, tiny

import weft
from weft.errors import ModelError, SiteError

STACKS = {"mamba": "backbone.layers", "mamba2": "backbone.layers", "rwkv": "rwkv.blocks"}
IDS = torch.tensor([[3, 1, 4, 1, 5], [6, 5, 3, 5, 8]])


@pytest.fixture(params=RECURRENT, scope="module")
def found(request):
    module = tiny(RECURRENT[request.param])
    return module, weft.load(module), MIXERS[request.param]


def added(module: Any) -> Any:
    """What a mixer adds: RWKV gives its state beside it."""
    return module.output if isinstance(module.output, torch.Tensor) else module.output[0]


def test_the_stream_and_the_logits_are_there_and_nothing_else(found):
    _, model, _ = found
    assert sorted(model.sites()) == ["embed", "final_norm", "logits", "resid_post"]
    assert model.card.sizes == {"n_layers": 3, "d_model": 16, "d_vocab": 23}
    assert "run.module(" in model.support("attn_out") and "run.module(" in model.support("pattern")


def test_the_equations_of_the_stream(found):
    module, model, mixer = found
    stack = STACKS[model.card.config["model_type"]]
    with model.session() as s:
        run = s.run(IDS)
        for layer in range(3):
            run.resid_pre[layer].save(f"pre {layer}")
            run.module(f"{stack}.{layer}").input.save(f"enters {layer}")
        run.final_norm.save("final")
        run.logits.save("logits")
        model.unembed(run.final_norm).save("unembedded")
        (run.resid_pre[1] + added(run.module(mixer))).save("sum")
        run.resid_post[1].save("post")
    for layer in range(3):
        assert torch.equal(s.results[f"pre {layer}"], s.results[f"enters {layer}"])
    assert torch.allclose(s.results["unembedded"], s.results["logits"], atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(s.results["logits"], module(IDS).logits, atol=1e-5)
    whole = torch.allclose(s.results["sum"], s.results["post"], atol=1e-5)
    assert whole == ("mixer" in mixer)  # RWKV adds its channel mixing too


def test_writes_move_the_logits_as_a_plain_hook_does(found):
    module, model, mixer = found
    stack = STACKS[model.card.config["model_type"]]
    with model.session() as s:
        run = s.run(IDS)
        run.resid_post[0][:, 1] *= 0.5
        added(run.module(mixer))[..., :4] = 0.0
        run.logits.save("logits")

    def halve(_, __, out):
        value = (out[0] if isinstance(out, tuple) else out).clone()
        value[:, 1] *= 0.5
        return (value, *out[1:]) if isinstance(out, tuple) else value

    def zero(_, __, out):
        value = (out[0] if isinstance(out, tuple) else out).clone()
        value[..., :4] = 0.0
        return (value, *out[1:]) if isinstance(out, tuple) else value

    handles = [
        module.get_submodule(f"{stack}.0").register_forward_hook(halve),
        module.get_submodule(mixer).register_forward_hook(zero),
    ]
    with torch.no_grad():
        expected = module(IDS).logits
    for handle in handles:
        handle.remove()
    assert torch.allclose(s.results["logits"], expected, atol=1e-5)
    with torch.no_grad():
        assert (module(IDS).logits - expected).abs().max() > 1e-3


def test_prompts_of_several_lengths_are_each_as_alone(found):
    module, model, _ = found
    with model.trace([[3, 1, 4], [1, 5, 9, 2, 6]]) as run:
        logits = run.logits.save()
    with torch.no_grad():
        assert torch.allclose(logits.value[0, -3:], module(torch.tensor([[3, 1, 4]])).logits[0], atol=1e-5)


def test_heads_are_refused_with_the_reason(found):
    _, model, _ = found
    with pytest.raises(SiteError, match=r"run\.module"), model.trace(IDS) as run:
        run.z[0].save()


def test_it_does_not_generate(found):
    with pytest.raises(ModelError, match="does not generate"), found[1].session() as s:
        s.generate(IDS, max_new_tokens=2)


def test_the_reason_for_whole_passes_is_given(found):
    _, model, _ = found
    with model.session() as s:
        base, edited = s.run(IDS), s.run(IDS)
        edited.resid_post[1][:, -1] = 0.0
        (base.logits - edited.logits).abs().max().save("moved")
    assert "no keys and values" in str(s.explain())


def test_an_rwkv_that_halves_its_stream_has_modules_alone():
    """Every six layers, as its configuration has it by default: what leaves a layer is not what enters the next."""
    model: Any = weft.load(tiny(lambda: rwkv(rescale_every=2)))
    assert model.sites() == ["logits"]
    with model.trace(IDS) as run:
        value = added(run.module("rwkv.blocks.1.attention")).save()
    assert value.value.shape == (2, 5, 16)


def test_jamba_by_module_path():
    module = tiny(jamba)
    model: Any = weft.load(module)
    with model.session() as s:
        run: Any = s.run(IDS)
        run.module("model.layers.0.mamba").output[..., :4] = 0.0
        run.module("model.layers.1").output.save("layer")
        run.logits.save("logits")
    kept = {}

    def zero(_, __, out):
        out = out.clone()
        out[..., :4] = 0.0
        return out

    handles = [
        module.get_submodule("model.layers.0.mamba").register_forward_hook(zero),
        module.get_submodule("model.layers.1").register_forward_hook(lambda _, __, out: kept.update(layer=out)),
    ]
    with torch.no_grad():
        expected = module(IDS, use_cache=False).logits
    for handle in handles:
        handle.remove()
    assert torch.allclose(s.results["logits"], expected, atol=1e-5)
    assert torch.allclose(s.results["layer"], kept["layer"], atol=1e-5)
