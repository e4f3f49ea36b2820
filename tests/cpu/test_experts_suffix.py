"""Families with experts in the engine: computing from an edit's place gives what computing everything gives, or it is off."""

import pytest
import torch
import transformers
from experts_zoo import EXPERTS, OTHERS
from family_zoo import ROWS, build, ways

import weft
from weft.execute import planned, reference, trial
from weft.execute.tinycopy import small_config
from weft.ir.nodes import Site
from weft.models import load

PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3], [3, 1, 4, 1, 5, 8, 2, 2, 7, 1]]
RAGGED = [PROMPTS[0], PROMPTS[1][:6]]
OFF = {
    "llama4_text": "it keeps something else between positions",
    **dict.fromkeys(("qwen3_next", "qwen3_5_moe_text"), "layers of type 'linear_attention'"),
    "lfm2_moe": "layers of type 'conv'",
}
"""Kinds on which the engine is off, with what it says of them."""
SITES = ("q", "k", "v", "q_rot", "k_rot", "scores", "pattern", "z", "head_out", "attn_out", "resid_mid", "router_logits",
         "expert_weights", "expert_out", "mlp_out", "resid_post")  # fmt: skip
WAYS = ways((*EXPERTS, *OTHERS), ("mixtral", "gpt_oss"))


def patched(model, plan, prompts):
    """The logits after edits of each layer at the second position, a middle one, and one beyond every window; and of each
    kind of site of layer 1, with what it then is where it was edited."""
    with model.session(plan=plan) as s:
        base = s.run(prompts)
        for layer in range(3):
            for position in (1, 5, -1) if prompts is PROMPTS else (-5, -3, -1):
                run = base.fork()
                site = run.resid_pre[layer]
                site[:, position] = site[:, position] * 1.5
                run.logits.save(f"{layer} {position}")
        for name in SITES:
            if Site(name, 1) in model.card.by_site:
                run = base.fork()
                keys = name in ("scores", "pattern")
                site, at = getattr(run, name)[1], (slice(None), slice(None), -3) if keys else (slice(None), -3)
                site[at] = site[at] * 0.5
                run.logits.save(name)
                (getattr(run, name)[1] * 1.0).save(f"{name} itself")
    return s.results, s.explain()


@pytest.mark.parametrize(("name", "attention", "padded"), WAYS)
def test_suffix_equals_whole(name, attention, padded):
    model, prompts = weft.load(build(name, seed=3, attention=attention)), RAGGED if padded else PROMPTS
    (found, told), (expected, _) = patched(model, "auto", prompts), patched(model, "reference", prompts)
    assert len(expected) > 20
    for key in expected:
        left, right = (each[key].nan_to_num(neginf=0.0) for each in (found, expected))
        assert torch.allclose(left, right, rtol=1e-4, atol=1e-4), key
    if name in OFF:
        assert OFF[name] in told
    else:
        assert "as reference" not in told, told


@pytest.mark.parametrize("name", [*EXPERTS, *OTHERS])
def test_a_copy_of_a_model_of_the_usual_size_is_small_and_has_experts_and_what_else_there_is(name):
    """What the engine is tried on must be made of configurations as they are published."""
    row = ROWS[name]
    usual = {"num_experts": 64, "moe_topk": 4} if "hunyuan" in name else {}
    usual = {"n_routed_experts": 64, "num_experts_per_tok": 6, "n_shared_experts": 2} if name == "dots1" else usual
    usual = {"num_experts_per_tok": 6} if name == "deepseek_v2" else usual
    usual = {"layer_types": ["conv", "full_attention"] * 16} if name == "lfm2_moe" else usual
    config = getattr(transformers, row.config)(**usual)
    heads = config.num_attention_heads
    sizes = {"n_heads": heads, "n_kv_heads": getattr(config, "num_key_value_heads", None) or heads}
    copy = load(getattr(transformers, row.model)(small_config(config, sizes)).eval())
    assert copy.family is not None and copy.sizes["d_model"] == 32
    assert Site("router_logits", copy.sizes["n_layers"] - 1) in copy.card.by_site
    assert sum(each.numel() for each in copy.module.parameters()) < 6_000_000


@pytest.mark.parametrize("name", OTHERS)
def test_the_engine_is_trusted_or_says_why_not(name, monkeypatch):
    monkeypatch.setattr(trial, "_classes", {})
    reason = trial.distrust(load(build(name, seed=4)), planned._trusted, reference.run)
    assert OFF[name] in reason if name in OFF else reason == "", reason
