"""Families with experts in the engine: computing from an edit's place gives what computing everything gives, or it is off."""

import pytest
import torch
from experts_zoo import EXPERTS, OTHERS
from family_zoo import ROWS, build
from test_families_suffix import PROMPTS, RAGGED, patched

import weft
from weft.execute import planned, reference, trial
from weft.models import load

OFF = {
    "llama4_text": "it keeps something else between positions",
    "qwen3_next": "layers of type 'linear_attention'",
    "lfm2_moe": "layers of type 'conv'",
}
"""Kinds on which the engine is off, with what it says of them."""
WAYS = [
    (name, attention)
    for name in (*EXPERTS, *OTHERS)
    for attention in ("eager", "sdpa")
    if not (ROWS[name].eager and attention == "sdpa")
]


@pytest.mark.parametrize(("name", "attention"), WAYS, ids=str)
def test_suffix_equals_whole(name, attention):
    model = weft.load(build(name, seed=3, attention=attention))
    for prompts in (PROMPTS, RAGGED):
        (found, told), (expected, _) = patched(model, "auto", prompts), patched(model, "reference", prompts)
        for key in expected:
            left, right = (each[key].nan_to_num(neginf=0.0) for each in (found, expected))
            assert torch.allclose(left, right, rtol=1e-4, atol=1e-4), key
        if name in OFF:
            assert OFF[name] in told
        else:
            assert "as reference" not in told, told


@pytest.mark.parametrize("name", [*EXPERTS, *OTHERS])
def test_the_engine_is_trusted_or_says_why_not(name, monkeypatch):
    monkeypatch.setattr(trial, "_classes", {})
    reason = trial.distrust(load(build(name, seed=4)), planned._trusted, reference.run)
    assert OFF[name] in reason if name in OFF else reason == "", reason
