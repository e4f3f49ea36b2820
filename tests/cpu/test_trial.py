"""The check that the engine is held to before it is trusted: off, with the reason, where a suffix would be wrong."""

import re
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import transformers
from odd_models import (
    Averaging,
    AveragingForCausalLM,
    NaiveForCausalLM,
    PlainForCausalLM,
    ShuffledForCausalLM,
    TurnedForCausalLM,
    TwiceForCausalLM,
    odd,
)
from tests.generated.compare import small_limits
from tests.tiny import KINDS, randomised, tiny, tiny_gpt2, tiny_llama, tiny_mistral, tiny_qwen2

import weft
from weft.execute import attend, planned, reference, trial
from weft.execute.packed import Arguments
from weft.execute.tinycopy import kinds_of, tiny_copy
from weft.models import load

PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3], [3, 1, 4, 1, 5, 8, 2, 2, 7, 1]]
RAGGED = [PROMPTS[0], PROMPTS[1][:6]]
GOOD = {
    "gpt2": tiny_gpt2,
    "llama": tiny_llama,
    "mistral": tiny_mistral,
    "qwen2": tiny_qwen2,
    **{kind: partial(tiny, kind) for kind in KINDS},
    "gpt_neox, not parallel": partial(tiny, "gpt_neox", use_parallel_residual=False),
    "gemma3, eager": partial(tiny, "gemma3", attention="eager"),
}


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    """What is known of classes from other tests is not known here."""
    monkeypatch.setattr(trial, "_classes", {})


def patched(model, plan, prompts):
    """A sweep over positions of two sites: its results, and what was said of it."""
    with model.session(plan=plan) as s:
        base = s.run(prompts)
        for position in (5, 7, -1):
            for name in ("embed", "attn_out"):
                run = base.fork()
                site = run.embed if name == "embed" else run.attn_out[0]
                site[:, position] = site[:, position] * 1.5
                run.logits.save(f"{name} {position}")
    return s.results, s.explain()


def differs(model, prompts) -> tuple[float, str]:
    """The largest difference between both plans' logits, and what was said of the engine's."""
    (found, told), (expected, _) = patched(model, "auto", prompts), patched(model, "reference", prompts)
    return max(float((found[name] - expected[name]).abs().max()) for name in expected), told


def distrusted(module) -> str:
    return trial.distrust(load(module), planned._trusted, reference.run)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (TwiceForCausalLM, "it calls layer 1 more than once"),
        (ShuffledForCausalLM, "it calls its layers in another order"),
        (TurnedForCausalLM, "the stream at the input of layer 0 is not shaped [batch, pos, d_model]"),
        (AveragingForCausalLM, "it keeps something else between positions"),
        (NaiveForCausalLM, "layer 0 calls attention 0 times where transformers looks it up"),
    ],
)
def test_where_a_suffix_would_be_wrong_the_check_says_why(kind, reason):
    assert reason in distrusted(odd(kind))


def test_the_odd_models_are_wrong_for_no_other_reason_than_theirs():
    assert distrusted(odd(PlainForCausalLM)) == ""


@pytest.mark.parametrize("kind", [AveragingForCausalLM, NaiveForCausalLM])
def test_without_the_check_the_engine_would_be_wrong_or_fail(kind, monkeypatch):
    monkeypatch.setattr(planned, "distrust", lambda *_: "")
    model = weft.load(odd(kind))
    try:
        assert differs(model, PROMPTS)[0] > 1e-2
    except Exception as error:
        assert "attention 0 times" in str(error)


@pytest.mark.parametrize("kind", [ShuffledForCausalLM, AveragingForCausalLM, NaiveForCausalLM])
@pytest.mark.parametrize("prompts", [PROMPTS, RAGGED], ids=["alike", "ragged"])
def test_a_model_that_is_not_trusted_is_run_as_the_reference_and_told_so(kind, prompts):
    model = weft.load(odd(kind))
    apart, told = differs(model, prompts)
    assert apart == 0 and "planned        " not in told
    assert re.search(r"as reference +6 runs: (it calls|on a tiny copy)", told)


@pytest.mark.parametrize("name", GOOD)
def test_on_families_that_it_knows_the_engine_stays_on(name):
    model = weft.load(GOOD[name](seed=3))
    for prompts in (PROMPTS, RAGGED):
        apart, told = differs(model, prompts)
        assert apart < 1e-4, (name, prompts)
        assert "as reference" not in told


@pytest.mark.parametrize("name", ["gemma3", "gpt_oss", "bloom", "mistral"])
def test_rows_that_share_a_beginning_go_on_from_it_at_their_own_positions(name):
    """Windows and biases count positions of the whole row, though its first tokens were computed for another."""
    with small_limits():
        apart, told = differs(weft.load(GOOD[name](seed=4)), PROMPTS)
    assert apart < 1e-4 and "as reference" not in told


def lessened(monkeypatch, **less):
    """The engine's attention, with something that a layer asks of it left out."""
    whole = attend._group
    monkeypatch.setattr(
        attend, "_group", lambda group, layer, q, k, v, how: whole(group, layer, q, k, v, how._replace(**less))
    )


@pytest.mark.parametrize(
    ("name", "less"),
    [
        ("gemma3", {"rule": None}),
        ("mistral", {"rule": None}),
        ("gpt_oss", {"sinks": None}),
        ("bloom", {"key_bias": None}),
        ("gemma2", {"softcap": None}),
        ("gemma3", {"scale": 6**-0.5}),
    ],
)
def test_an_engine_that_leaves_something_of_attention_out_is_not_trusted(name, less, monkeypatch):
    lessened(monkeypatch, **less)
    assert "gives other logits" in distrusted(GOOD[name](seed=5))


def test_the_check_notices_arguments_of_the_first_layer_given_to_all(monkeypatch):
    """Gemma 3's layers have rotary angles and masks of their own type."""
    at = Arguments.at
    monkeypatch.setattr(Arguments, "at", lambda self, layer, tokens: at(self, 0, tokens))
    assert "gives other logits" in distrusted(tiny("gemma3", seed=5))


def test_attention_that_sees_later_positions_is_refused():
    assert "mask function of its own" in distrusted(tiny("gemma3", use_bidirectional_attention=True))


def test_a_copy_of_another_class_is_not_taken_for_this_one():
    """One class, two configurations: what was found for one is not believed of the other."""
    assert distrusted(tiny("gemma3")) == ""
    assert distrusted(tiny("gemma3", use_bidirectional_attention=True)) != ""


def test_a_model_changed_by_hand_is_held_to_its_own_base():
    module = tiny_llama()
    module.model.layers[1] = randomised(Averaging(module.config, 1), 5)
    assert "its logits change by" in distrusted(module)


def test_a_difference_that_is_no_number_counts():
    assert trial._apart(torch.tensor([1.0, torch.nan]), torch.tensor([1.0, 2.0])) == float("inf")


@pytest.mark.parametrize(
    ("types", "few"),
    [
        ("ssssfssssf", "sfs"),
        ("sfsf", "sfs"),
        ("ffff", "f"),
        ("sssf", "sff"),
        ("", ""),
        ("slf", "slf"),
    ],
)
def test_every_type_of_layer_and_every_change_is_in_the_copy(types, few):
    assert "".join(kinds_of(SimpleNamespace(layer_types=list(types)))) == few


SIZED = ["Gemma3Text", "GptOss", "Phi3", "Qwen3", "Bloom", "GPTNeoX", "Llama", "Mixtral"]


@pytest.mark.parametrize("name", SIZED)
def test_models_of_the_usual_size_have_a_tiny_copy(name):
    config = getattr(transformers, f"{name}Config")()
    kind = getattr(transformers, f"{name.removesuffix('Text')}ForCausalLM")
    with torch.device("meta"):
        module = kind(config)
    large = SimpleNamespace(module=module, card=SimpleNamespace(sizes={"n_heads": 8, "n_kv_heads": 8}))
    tiny_one = tiny_copy(large)
    assert sum(each.numel() for each in tiny_one.module.parameters()) < 3e6
    assert tiny_one.module.config._attn_implementation == config._attn_implementation


def phi3_long() -> torch.nn.Module:
    """Angles are others for rows of more than 8 positions."""
    rope = {"rope_type": "longrope", "rope_theta": 100.0, "original_max_position_embeddings": 8, "factor": 3.0}
    rope = {**rope, "short_factor": [1.0, 1.5], "long_factor": [2.0, 5.0]}
    return tiny("phi3", 2, rope_parameters=rope, original_max_position_embeddings=8)


def test_rows_beyond_which_rotary_angles_change_do_not_share_a_pass():
    model = weft.load(phi3_long())
    apart, told = differs(model, RAGGED)
    assert apart < 1e-5 and "beyond 8 positions its rotary angles hang on a row's length" in told
    apart, told = differs(model, [row[:8] for row in PROMPTS])
    assert apart < 1e-4 and "as reference" not in told


def test_half_precision_stays_on():
    model = weft.load(tiny("gemma3", seed=3).to(torch.bfloat16))
    apart, told = differs(model, RAGGED)
    assert apart < 0.5 and "as reference" not in told


def test_experts_computed_together_as_transformers_does_by_default():
    apart, told = differs(weft.load(tiny("gpt_oss", seed=3, experts_implementation=None, intermediate_size=24)), RAGGED)
    assert apart < 1e-4 and "as reference" not in told
