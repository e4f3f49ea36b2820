"""What is looked at before an edit is the base's: the planner knows to the position how far the base has to be computed."""

from __future__ import annotations

import pytest
import torch
from tests.generated.zoo import Which, model_of

GPT2 = Which("gpt2", 3, "float64")
ROWS = [[3, 4, 5, 6, 7, 8], [9, 8, 7, 6, 5, 4]]
BEFORE = {
    "box": lambda run, site, at: [site[:, at - 1]],
    "pairs": lambda run, site, at: [site[run.rows, run.at(at - 1)]],
    "slice": lambda run, site, at: [site[:, at - 1 : at + 1]],
    "two, the first before": lambda run, site, at: [site[:, at - 1], site[:, at]],
    "two, the second before": lambda run, site, at: [site[:, at], site[:, at - 1]],
}


@pytest.mark.parametrize(("name", "layer"), [("resid_post", 2), ("z", 2), ("mlp_out", 2), ("mlp_out", 0)])
@pytest.mark.parametrize("how", BEFORE)
def test_looking_just_before_the_edit(how: str, name: str, layer: int) -> None:
    found = {}
    for plan in ("reference", "auto"):
        with model_of(GPT2).session(plan=plan) as s:
            clean = s.run(ROWS)
            for at in range(1, len(ROWS[0])):
                run = clean.fork()
                run.attn_out[0][:, at] *= 2.0
                for number, value in enumerate(BEFORE[how](run, getattr(run, name)[layer], at)):
                    (value * 1.0).save(f"{at} {number}")
        assert s.outcome.plan == ("planned" if plan == "auto" else "reference")
        found[plan] = s.values
    for key, expected in found["reference"].items():
        torch.testing.assert_close(found["auto"][key], expected, rtol=0, atol=1e-9)


def test_a_base_that_nobody_reads_goes_as_far_as_what_enters_its_forks() -> None:
    found = {}
    for plan in ("reference", "auto"):
        with model_of(GPT2).session(plan=plan) as s:
            clean = s.run(ROWS)
            for scale in (0.5, 2.0):
                run = clean.fork()
                run.resid_post[1] = run.resid_post[1] * scale
                run.logits[:, -1].save(f"{scale}")
        assert s.outcome.plan == ("planned" if plan == "auto" else "reference")
        found[plan] = s.values
    for key, expected in found["reference"].items():
        torch.testing.assert_close(found["auto"][key], expected, rtol=0, atol=1e-9)
