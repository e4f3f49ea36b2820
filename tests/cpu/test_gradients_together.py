"""Gradients of runs that go through the model together: one backward pass for all of them, or in time for an edit."""

from __future__ import annotations

import torch
from tests.generated.zoo import Which, model_of

import weft

LLAMA = Which("llama", 3, "float64")
ROWS = [[3, 4, 5, 6], [9, 8, 7, 6]]


def held(write) -> None:
    """The planned values are the reference's."""
    found = {}
    for plan in ("reference", "auto"):
        with model_of(LLAMA).session(plan=plan) as s:
            write(s)
        assert s.outcome.plan == ("planned" if plan == "auto" else "reference")
        found[plan] = s.values
    for key, expected in found["reference"].items():
        assert float(expected.abs().max()) > 1e-6
        torch.testing.assert_close(found["auto"][key], expected, rtol=0, atol=1e-9)


def test_each_run_has_its_own_scalars_gradient() -> None:
    def write(s) -> None:
        runs = [s.run([row]) for row in ROWS]
        for scale, run in enumerate(runs, 1):
            run.mlp_out[0][:, -1] *= 2.0
            loss = scale * weft.logit_diff(run.logits[:, -1], 3, 5).sum()
            weft.grad(loss, run.resid_post[1]).save(f"gradient {scale}")

    held(write)


def test_an_edit_that_hangs_on_a_gradient_of_its_own_pass() -> None:
    def write(s) -> None:
        first, second = s.run(ROWS), s.run([ROWS[1]])
        for number, run in enumerate((first, second)):
            gradient = weft.grad((run.mlp_out[0] ** 2).sum(), run.embed)
            run.resid_post[1][:] += 0.5 * torch.tanh(gradient)
            run.logits[:, -1].save(f"logits {number}")

    held(write)
