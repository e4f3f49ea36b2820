"""Every site of a decoder in the engine: with equal numbers, and none of these runs left to the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.generated.zoo import Which, model_of

import weft
from weft.execute.inside import Inside

ROWS = ["w03 w04 w05 w06 w07", "w08 w09 w02"]
MODELS = [Which("gpt2", 3, "float64"), Which("llama", 4, "float64")]
Use = Callable[[Any], None]


def results(which: Which, use: Use, plan: str) -> tuple[dict[str, torch.Tensor], Any]:
    """What is saved, and how it was run."""
    with model_of(which).session(plan=plan) as session:
        use(session)
    return dict(session.results), session.outcome


def hold(which: Which, use: Use) -> None:
    """Equal to the reference in every number, with no run left to it."""
    found, outcome = results(which, use, "auto")
    expected, _ = results(which, use, "reference")
    assert outcome.plan == "planned"
    assert not [note for note in outcome.notes if "as reference" in note]
    assert outcome.edits.asked == outcome.edits.applied + outcome.edits.without_effect
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")


def paths(session: Any) -> tuple[str, str, str, str]:
    """Of this family: the layers, and the embedding; in a layer the first norm, and what goes into the MLP."""
    if session.model.card.family == "gpt2":
        return "transformer.h", "transformer.wte", "ln_1", "mlp.c_fc"
    return "model.layers", "model.embed_tokens", "input_layernorm", "mlp.up_proj"


def all_logits(runs: list[Any]) -> None:
    for number, run in enumerate(runs):
        (run.logits * 1.0).save(f"logits {number}")


@pytest.mark.parametrize("which", MODELS, ids=str)
def test_rotated_queries_and_keys(which: Which) -> None:
    def use(s: Any) -> None:
        a = s.run(ROWS)
        b, c = a.fork(), a.fork()
        b.q_rot[1][:, -1, 1] = 0.5 * a.q_rot[0][:, -1, 0]
        c.k_rot[1][c.rows, c.at(-2)] = 0.3
        all_logits([a, b, c])
        for number, run in enumerate((a, b, c)):
            run.k_rot[1].save(f"k {number}")
            run.q_rot[2].save(f"q {number}")

    hold(which, use)


@pytest.mark.parametrize("site", ["scores", "pattern"])
@pytest.mark.parametrize("which", MODELS, ids=str)
def test_what_is_looked_at_inside_attention(which: Which, site: str) -> None:
    def use(s: Any) -> None:
        a = s.run(ROWS)
        b = a.fork()
        b.resid_post[0][:, -2] = 0.2
        for number, run in enumerate((a, b)):
            value = getattr(run, site)[2]
            at = run.at(-2)
            parts = [
                value * 1.0, value[:, 1, -1], value[:, :, -1, :], value[0, :, 1:3, 2], value[:, ::2, 1::2],
                value[run.rows, :, at], value[run.rows, 1, at], value[run.rows, 1, at, 3], value.transpose(1, 2)[:, -1],
            ]  # fmt: skip
            for which_part, part in enumerate(parts):
                part.save(f"{number} {which_part}")

    hold(which, use)


@pytest.mark.parametrize("which", MODELS, ids=str)
def test_scores_and_patterns_written(which: Which) -> None:
    def use(s: Any) -> None:
        a = s.run(ROWS)
        b, c, d, e, f, g = (a.fork() for _ in range(6))
        b.pattern[1][:, 1, -1] *= 0.5
        c.scores[1][:, :, -1, -2] = -float("inf")
        d.scores[1][d.rows, :, d.at(-2)] = 0.4
        e.pattern[0][e.rows, 1, e.at(-1)] = 0.1
        f.pattern[1] = f.pattern[1].flip(1)
        g.scores[1][1] *= 0.5
        g.pattern[1][:, 0, -2:] += a.pattern[0][:, 0, -2:]
        g.resid_post[1][:, -1] *= 1.1
        all_logits([a, b, c, d, e, f, g])
        for number, run in enumerate((b, c, d, e, f, g)):
            run.pattern[1].save(f"pattern {number}")
            run.scores[1].save(f"scores {number}")
            run.z[1].save(f"z {number}")

    hold(which, use)


def test_a_query_may_be_given_a_later_key() -> None:
    def use(s: Any) -> None:
        a = s.run(ROWS)
        b = a.fork()
        b.scores[1][:, :, -3, -1] = 2.0
        b.mlp_out[1][:, -1] = a.mlp_out[0][:, -1]
        all_logits([a, b])

    hold(MODELS[0], use)


def test_all_keys_of_a_query_blocked_is_an_error() -> None:
    with (
        pytest.raises(weft.WeftError, match=r"row 1, head 0, query position 4 is blocked"),
        model_of(MODELS[0]).session() as s,
    ):
        a = s.run(ROWS)
        b = a.fork()
        b.scores[1][1, 0, -1] = -float("inf")
        all_logits([a, b])


@pytest.mark.parametrize("which", MODELS, ids=str)
def test_the_end_of_the_model_written(which: Which) -> None:
    def use(s: Any) -> None:
        a = s.run(ROWS)
        b, c, d, e = (a.fork() for _ in range(4))
        b.final_norm[:, -1] *= 2.0
        c.final_norm[c.rows, c.at(-2)] = a.final_norm[:, -1]
        c.resid_post[1][:, -1] = 0.3
        d.logits[:, -1, 3] = 5.0
        d.mlp_out[1][:, -2] = 0.0
        e.logits[:, -1] -= a.logits[:, -1]
        all_logits([a, b, c, d, e])
        for number, run in enumerate((a, b, c, d, e)):
            run.final_norm[:, -2:].save(f"norm {number}")
            run.logits[:, -1].save(f"last {number}")
            weft.logit_diff(run.logits[:, -1], 3, 4).save(f"diff {number}")

    hold(which, use)


FEW = torch.tensor([[1, 2, 5], [3, 4, 4]])
EVERYWHERE = torch.arange(30).reshape(2, 5, 3) % 7


@pytest.mark.parametrize("which", MODELS, ids=str)
def test_entries_gathered_of_the_logits(which: Which) -> None:
    def use(s: Any) -> None:
        a = s.run(ROWS)
        b, c, d, e = (a.fork() for _ in range(4))
        for number, run in enumerate((b, c, d, e)):
            run.z[1][:, -1, number % 2] = 0.1 * number
        b.logits[:, -1].gather(-1, FEW).save("several a row")
        c.logits[c.rows, c.at(-2)].gather(1, FEW[:, :1]).save("one a row")
        d.logits[:, -1].gather(-1, FEW[:1]).save("of the first row")
        e.logits[:, -3:].gather(-1, EVERYWHERE[:, :3]).save("of three places")
        a.logits.gather(2, EVERYWHERE).save("everywhere")

    hold(which, use)


def test_of_gathered_entries_only_their_columns_are_made() -> None:
    def work(pick: Use) -> str:
        notes = results(MODELS[0], lambda s: pick(s.run(ROWS).logits[:, -1]), "auto")[1].notes
        return next(note for note in notes if note.strip().startswith("logits"))

    gathered = work(lambda logits: logits.gather(-1, torch.tensor([[3], [4]])).save("x"))
    assert gathered == work(lambda logits: logits[torch.arange(2), torch.tensor([3, 4])].save("x"))
    assert gathered != work(lambda logits: logits.save("x"))


@pytest.mark.parametrize("which", MODELS, ids=str)
def test_modules_by_their_paths(which: Which) -> None:
    def use(s: Any) -> None:
        layers, embedding, norm, mlp = paths(s)
        a = s.run(ROWS)
        b, c, d, e = (a.fork() for _ in range(4))
        b.module(f"{layers}.1").input[:, -1] *= 0.5
        c.module(f"{layers}.1.{mlp}").output[:, -2:] = a.module(f"{layers}.0.{mlp}").output[:, -2:]
        d.module(embedding).output[:, -1] *= 1.5
        e.module(f"{layers}.1.{norm}").output[e.rows, e.at(-2)] = 0.1
        e.module(f"{layers}.2").output[:, -1] += 0.3
        all_logits([a, b, c, d, e])
        for number, run in enumerate((a, b, c, d, e)):
            run.module(f"{layers}.1").output.save(f"out {number}")
            run.module(f"{layers}.1.{mlp}").output.save(f"mlp {number}")
            run.module(embedding).output.save(f"embedding {number}")
            run.resid_post[1].save(f"stream {number}")

    hold(which, use)


def test_gradients_at_these_sites() -> None:
    def use(s: Any) -> None:
        a = s.run(ROWS)
        b = a.fork()
        b.pattern[2][:, 1, -1] *= 0.5
        at = [b.pattern[1], b.scores[0], b.k_rot[1], b.final_norm]
        found: Any = weft.grad(b.logits[:, -1, 3].sum(), at)
        for number, gradient in enumerate(found):
            gradient.save(f"gradient {number}")
        a.logits[:, -1].save("base")

    hold(MODELS[0], use)


def test_the_final_norm_edited_computes_no_layer_again() -> None:
    def use(s: Any) -> None:
        a = s.run(ROWS)
        b = a.fork()
        b.final_norm[:, -1] *= 2.0
        all_logits([a, b])

    _, outcome = results(MODELS[0], use, "auto")
    assert outcome.work["layer_tokens_done"] == 3 * (5 + 3)


def test_a_pattern_edit_recomputes_from_its_query_on() -> None:
    def use(s: Any) -> None:
        a = s.run(ROWS)
        b = a.fork()
        b.pattern[2][:, 1, -2, -3] = 0.5
        all_logits([a, b])

    _, outcome = results(MODELS[0], use, "auto")
    assert outcome.work["layer_tokens_done"] == 3 * (5 + 3) + 2 * 2


def test_only_the_heads_and_queries_looked_at_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, range | None]] = []
    before = Inside.at

    def at(self: Inside, rows: torch.Tensor, queries: torch.Tensor, heads: range | None = None) -> torch.Tensor:
        asked.append((len(rows), heads))
        return before(self, rows, queries, heads)

    monkeypatch.setattr(Inside, "at", at)

    def use(s: Any) -> None:
        a = s.run(ROWS)
        b = a.fork()
        b.resid_post[0][:, -1] = 0.1
        b.pattern[2][:, 1, -1].save("one head, one query")
        a.logits[:, -1].save("base")

    results(MODELS[0], use, "auto")
    assert asked == [(2, range(1, 2)), (2, range(1, 2))]  # the pattern, and the scores that it is made of


def test_a_module_after_the_layers_goes_to_the_reference_and_says_so() -> None:
    with model_of(MODELS[0]).session() as s:
        a = s.run(ROWS)
        b = a.fork()
        b.module("transformer.ln_f").output[:, -1] *= 2.0
        all_logits([a, b])
    assert any("comes after the layers" in note for note in s.outcome.notes)


def test_one_head_at_a_place_in_each_row_is_recomputed_from_there_on() -> None:
    """`x[rows, positions, head]` is recorded as an index into one head's part of the site."""

    def use(s: Any) -> None:
        a = s.run(ROWS)
        b, c = a.fork(), a.fork()
        b.z[1][b.rows, b.at(-1), 1] = 0.5
        c.pattern[1][c.rows, 1, c.at(-2)] = 0.1
        all_logits([a, b, c])

    hold(MODELS[0], use)
    _, outcome = results(MODELS[0], use, "auto")
    assert outcome.work["layer_tokens_done"] == 3 * (5 + 3) + 2 * 2 * 1 + 2 * 2 * 2


def test_an_unedited_run_comes_before_the_edits_that_need_it() -> None:
    """Also where rows have nothing in common that is worth sharing, so that each run is by itself."""

    def use(s: Any) -> None:
        a = s.run(["w04 w14 w03 w11"] * 2)
        b = a.fork()
        b.scores[2][:] *= 0.6
        b.mlp_out[0][:, -1] = a.mlp_out[0][:, -1]
        b.logits[:, -1].save("logits")

    hold(MODELS[0], use)
