"""Expert sites where runs are packed: the engine's numbers are the reference's, and no run is left to it."""

from typing import Any

import pytest
import torch
from family_zoo import build
from tests.cpu.test_experts import model

import weft

KINDS = ["mixtral", "gpt_oss", "qwen2_moe", "dots1", "hunyuan_v1_moe"]
ROWS = [[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5]]
LAYER = 1


def results(kind: str, use: Any, plan: str) -> tuple[dict[str, torch.Tensor], Any]:
    with weft.load(model(kind)).session(plan=plan) as s:
        use(s)
    return dict(s.results), s.outcome


def hold(kind: str, use: Any) -> None:
    found, outcome = results(kind, use, "auto")
    expected, _ = results(kind, use, "reference")
    assert outcome.plan == "planned" and not [note for note in outcome.notes if "as reference" in note]
    assert expected
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("kind", KINDS)
def test_expert_sites_are_read_and_written_in_packed_passes(kind):
    def use(s: Any) -> None:
        clean, turned, without, moved = (s.run(ROWS) for _ in range(4))
        turned.router_logits[LAYER][:, -1] = -turned.router_logits[LAYER][:, -1]
        without.expert_weights[2][:, 2:, 1] = 0.0
        moved.expert_out[LAYER][0, 1] = clean.expert_out[2][0, 3]
        for number, run in enumerate((clean, turned, without, moved)):
            (run.logits * 1.0).save(f"logits {number}")
            for name in ("router_logits", "expert_weights", "expert_out", "mlp_out"):
                (run.site(run.resolve(name, 2)) * 1.0).save(f"{name} {number}")

    hold(kind, use)


def test_gradients_reach_experts_that_were_not_chosen():
    def use(s: Any) -> None:
        run = s.run(ROWS)
        names = ("router_logits", "expert_weights", "expert_out")
        targets = [run.site(run.resolve(name, LAYER)) for name in names]
        for name, gradient in zip(names, s.grad(run.logits[0, -1, 3], targets), strict=True):
            gradient.save(name)

    hold("mixtral", use)
    found, _ = results("mixtral", use, "auto")
    assert bool((found["expert_weights"][0, -1] != 0).all())  # an expert of weight 0 has a gradient too


def test_each_step_of_a_generation_has_its_router():
    def use(s: Any) -> None:
        g = s.generate(ROWS[1:], max_new_tokens=3)
        for step in (0, 2):
            (g.step(step).router_logits[LAYER] * 1.0).save(f"logits {step}")
            (g.step(step).expert_out[LAYER] * 1.0).save(f"outs {step}")

    hold("mixtral", use)


@pytest.mark.parametrize(("kind", "plan"), [
    *((kind, "planned") for kind in ("mixtral", "deepseek_v3", "deepseek_v2", "afmoe", "minimax_m2")),
    *((kind, "reference") for kind in ("qwen3_next", "lfm2_moe", "llama4_text", "minimax")),
])  # fmt: skip
def test_what_is_generated_is_what_the_model_gives_next(kind, plan):
    plain, ids = build(kind, seed=3), torch.tensor([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 9, 7]])
    whole = ids
    with torch.no_grad():
        for _ in range(3):
            logits = plain(whole, use_cache=False).logits[:, -1]
            whole = torch.cat([whole, logits.argmax(-1, keepdim=True)], 1)
    with weft.load(plain).session() as s:
        g = s.generate(ids.tolist(), max_new_tokens=3)
        router = g.step(2).router_logits[LAYER].save()
    tokens = g.tokens.value if hasattr(g.tokens, "value") else g.tokens
    assert torch.as_tensor(tokens)[:, -3:].tolist() == whole[:, 7:].tolist()
    assert router.value.shape == (2, 1, weft.models.load(plain).sizes["n_experts"])
    assert s.outcome.plan == plan


def test_half_precision_holds_the_sites_too():
    half = weft.load(model("dots1").bfloat16())
    with half.session() as s:
        run = s.run(ROWS[:1])
        run.router_logits[LAYER][:, -1] = 0.5 * run.router_logits[LAYER][:, -1]
        logits, outs, mlp = (
            run.site(run.resolve(name, LAYER)).save() for name in ("router_logits", "expert_out", "mlp_out")
        )
    assert logits.value.dtype == torch.float32 and outs.value.dtype == torch.bfloat16
    assert mlp.value.shape == outs.value.sum(2).shape
