"""Every dense family: recomputing from an edit's place gives what computing everything gives, and the engine is on."""

import pytest
import torch
import transformers
from family_zoo import KINDS, build, ways

import weft
from weft.execute import planned, reference, trial
from weft.execute.tinycopy import small_config
from weft.models import load

PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3], [3, 1, 4, 1, 5, 8, 2, 2, 7, 1]]
RAGGED = [PROMPTS[0], PROMPTS[1][:6]]
OFF = {("falcon, alibi", "eager"): "a suffix computed from keys and values gives other logits"}
"""Where the engine is off, with what it says: there the model adds its bias twice, which packed attention is not told."""
SITES = ("q", "k", "v", "q_rot", "k_rot", "scores", "pattern", "z", "head_out", "attn_out", "resid_mid", "mlp_pre",
         "mlp_post", "mlp_out", "resid_post")  # fmt: skip
KNOWN = ("gpt2", "llama", "gemma3_text", "gpt_neox", "bloom")
"""Of these all is tried in each `make test`, of the others their usual attention on padded prompts."""
WAYS = ways(KINDS, KNOWN)


def patched(model, plan, prompts):
    """The logits after edits of each layer at the second position, a middle one, and one beyond every window; and of each
    kind of site, with what it is in the layer above."""
    with model.session(plan=plan) as s:
        base = s.run(prompts)
        for layer in range(3):
            for position in (1, 5, -1) if prompts is PROMPTS else (-5, -3, -1):
                run = base.fork()
                site = run.resid_pre[layer]
                site[:, position] = site[:, position] * 1.5
                run.logits.save(f"{layer} {position}")
        for name in SITES:
            if name in model.sites():
                run, at = (
                    base.fork(),
                    (slice(None), -3) if name not in ("scores", "pattern") else (slice(None), slice(None), -3),
                )
                site = getattr(run, name)[1]
                site[at] = site[at] * 0.5
                run.logits.save(name)
                getattr(run, name)[2].save(f"{name} above")
    return s.results, s.explain()


@pytest.mark.parametrize(("name", "attention", "padded"), WAYS)
def test_suffix_equals_whole(name, attention, padded):
    model, prompts = weft.load(build(name, seed=3, attention=attention)), RAGGED if padded else PROMPTS
    (found, told), (expected, _) = patched(model, "auto", prompts), patched(model, "reference", prompts)
    assert len(expected) > 20
    for key in expected:
        left, right = (each[key].nan_to_num(neginf=0.0) for each in (found, expected))
        assert torch.allclose(left, right, rtol=1e-4, atol=1e-4), key
    if (name, attention) in OFF:
        assert OFF[name, attention] in told
    else:
        assert "as reference" not in told, told


@pytest.mark.parametrize("name", KINDS)
def test_a_copy_of_a_model_of_the_usual_size_is_small_and_of_the_same_family(name):
    """What the engine is tried on must be made of configurations as they are published."""
    row = KINDS[name]
    config = getattr(transformers, row.config)()
    for switch, value in row.own.items():
        if isinstance(value, bool):
            setattr(config, switch, value)
    heads = config.num_attention_heads
    small = small_config(
        config, {"n_heads": heads, "n_kv_heads": getattr(config, "num_key_value_heads", None) or heads}
    )
    copy = load(getattr(transformers, row.model)(small).eval())
    assert copy.family is not None and copy.sizes["n_layers"] == 3 and copy.sizes["d_model"] == 32
    assert sum(each.numel() for each in copy.module.parameters()) < 100_000


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=() if each in KNOWN else pytest.mark.slow) for each in KINDS]
)
def test_the_engine_is_on_in_half_precision(name, monkeypatch):
    """Its own check of a copy in bfloat16: edits at the first layer and each change of type, padded and not."""
    monkeypatch.setattr(trial, "_classes", {})
    reason = trial.distrust(load(build(name, seed=4).bfloat16()), planned._trusted, reference.run)
    assert reason == ""
