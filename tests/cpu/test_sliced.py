"""Some rows at a time gives what all at once gives: the same numbers, the same count of edits, whatever the slices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.tiny import tiny_gpt2, tiny_llama

import weft
from weft.errors import WeftError
from weft.execute import planned, sliced
from weft.execute.sliced import rows_at_a_time
from weft.plan.slices import rows_of

GPT2 = weft.load(tiny_gpt2())
LLAMA = weft.load(tiny_llama())
ROWS = 5
generator = torch.Generator().manual_seed(0)
CLEAN, CORRUPT = (torch.randint(1, 17, (ROWS, 6), generator=generator) for _ in range(2))
RAGGED = [torch.randint(1, 17, (n,), generator=generator).tolist() for n in (3, 6, 1, 5, 4)]
VECTOR, EACH = torch.randn(12, generator=generator), torch.randn(ROWS, 12, generator=generator)
ANSWERS = [3, 1, 4, 1, 5]


def heads(s: Any) -> None:
    clean, corrupt = s.run(CLEAN), s.run(CORRUPT)
    found = []
    for layer in range(2):
        for head in range(3):
            patched = corrupt.fork()
            patched.z[layer][:, -1, head] = clean.z[layer][:, -1, head]
            found.append(weft.log_prob(patched.logits[:, -1], ANSWERS))
    torch.stack(found).save("effects")


def ragged_places(s: Any) -> None:
    run = s.run(RAGGED)
    places = run.start + torch.tensor([1, 4, 0, 2, 3])
    edited = run.fork()
    edited.resid_post[0][edited.rows, places] += EACH
    edited.logits.save("logits")
    run.k[1].save("keys")


def a_vector_for_each_row(s: Any) -> None:
    run = s.run(CLEAN)
    run.resid_post[0][:, 2:4] += EACH[:, None]
    run.mlp_out[1].flatten(0, 1).softmax(-1).save("merged")


def mean_ablation(s: Any) -> None:
    clean, run = s.run(CLEAN), s.run(CORRUPT)
    run.z[0][:, -1] = clean.z[0][:, -1].mean(0)
    weft.logit_diff(run.logits[:, -1], 2, 3).save("difference")


def mean_of_itself(s: Any) -> None:
    run = s.run(CLEAN)
    run.resid_post[1] -= run.mlp_out[0].mean((0, 1))
    run.logits.argmax(-1).save("tokens")
    run.mlp_out[0].save("before")


def other_rows(s: Any) -> None:
    clean, run = s.run(CLEAN), s.run(CORRUPT)
    order = torch.tensor([3, 0, 4, 1, 2])
    run.resid_post[0][:, 3:] = clean.resid_post[0][order][:, 3:]
    run.logits[:, -1].save("logits")


def one_row_for_all(s: Any) -> None:
    single, run = s.run(CLEAN[:1]), s.run(CORRUPT)
    run.resid_post[0][:, -1] = single.resid_post[0][:, -1]
    (run.logits[:, -1] - single.logits[:, -1]).save("difference")


def one_row_alone(s: Any) -> None:
    run, other = s.run(CLEAN), s.run(CORRUPT)
    run.resid_post[0][2, -1] += VECTOR
    run.logits[:, -1].save("edited")
    other.logits[:, -1].save("unedited")


def a_gradient(s: Any) -> None:
    clean, run = s.run(CLEAN), s.run(CORRUPT)
    metric = weft.log_prob(run.logits[:, -1], ANSWERS).sum()
    (gradient,) = weft.grad(metric, [run.resid_post[0]])
    ((clean.resid_post[0] - run.resid_post[0]) * gradient).sum((1, 2)).save("effect")


def no_effect(s: Any) -> None:
    run = s.run(CLEAN)
    run.resid_post[1][:, -1] += VECTOR
    run.resid_post[0].save("before")


def a_grid(s: Any) -> None:
    run, grid = s.run(CLEAN), torch.zeros(2, ROWS)
    for layer in range(2):
        grid[layer] = run.resid_post[layer][:, -1].norm(dim=-1)
    grid.save("norms")


SCENES = (heads, ragged_places, a_vector_for_each_row, mean_ablation, mean_of_itself, other_rows, one_row_for_all,
          one_row_alone, a_gradient, no_effect, a_grid)  # fmt: skip


def outcome(scene: Callable[[Any], None], plan: str = "auto", model: Any = GPT2) -> Any:
    with model.session(plan=plan) as s:
        scene(s)
    return s


def apart(scene: Callable[[Any], None], rows: int) -> float:
    """The largest difference between so many rows at a time and the reference."""
    with rows_at_a_time(rows):
        found = outcome(scene)
    wanted = outcome(scene, "reference")
    assert found.results.keys() == wanted.results.keys()
    assert found.outcome.edits.asked == wanted.outcome.edits.asked
    return max(float((found.results[name] - value).abs().max()) for name, value in wanted.results.items())


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_slices_of_any_size_change_nothing(scene: Callable[[Any], None], rows: int) -> None:
    assert apart(scene, rows) < 2e-5


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_edits_are_counted_as_when_run_at_once(scene: Callable[[Any], None]) -> None:
    with rows_at_a_time(2):
        found = outcome(scene)
    assert found.outcome.edits == outcome(scene).outcome.edits


def sliced_by(scene: Callable[[Any], None]) -> list[str]:
    with rows_at_a_time(2):
        return [note for note in outcome(scene).outcome.notes if note.startswith("row slices")]


def test_explain_says_that_rows_were_run_in_slices() -> None:
    assert len(sliced_by(heads)) == 1
    assert "5 rows, at most 2 at a time" in sliced_by(heads)[0]
    with rows_at_a_time(2):
        assert "a gradient takes all rows" in outcome(a_gradient).explain()


def test_a_budget_too_small_for_all_rows_cuts_them_and_a_large_one_does_not() -> None:
    small, large = weft.load(tiny_gpt2(), memory="1 kB"), weft.load(tiny_gpt2(), memory="1 GB")
    cut, at_once = outcome(heads, model=small), outcome(heads, model=large)
    assert "at most 1 at a time" in cut.explain() and "row slices" not in at_once.explain()
    assert torch.allclose(cut.results["effects"], at_once.results["effects"], atol=1e-5)


def test_another_family_with_grouped_keys() -> None:
    with rows_at_a_time(3):
        found = outcome(ragged_places_llama, model=LLAMA).results["z"]
    assert torch.allclose(found, outcome(ragged_places_llama, "reference", LLAMA).results["z"], atol=1e-5)


def ragged_places_llama(s: Any) -> None:
    clean, run = s.run(CLEAN), s.run(RAGGED)
    run.k[1][:, -1] = clean.k[1][:, -1]
    run.z[2].save("z")


def test_a_slice_one_row_short_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sliced, "rows_of", lambda found, first, last: rows_of(found, first, max(last - 1, first + 1)))
    with pytest.raises((RuntimeError, AssertionError)):
        assert apart(heads, 2) < 2e-5


def test_a_slice_of_the_wrong_rows_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sliced, "rows_of", lambda found, first, last: rows_of(found, 0, last - first))
    assert apart(heads, 2) > 1e-3


def test_out_of_memory_halves_the_slice_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    run = sliced.Slicing._run

    def short(self: Any, program: Any, *how: Any, **more: Any) -> Any:
        sizes.append(max(node.data.type.shape[0] for node in program.experiment.nodes
                         if type(node).__name__ == "Const" and len(node.data.type.shape) == 2))  # fmt: skip
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("out of memory")
        return run(self, program, *how, **more)

    monkeypatch.setattr(sliced.Slicing, "_run", short)
    assert apart(heads, 4) < 2e-5
    assert sizes == [4, 2, 2, 1]


def test_what_fits_by_the_estimate_but_not_in_truth_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, failed = planned._run, []

    def first_fails(*given: Any) -> Any:
        failed.append(len(given[1].nodes))
        if len(failed) <= 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 7 bytes")
        return whole(*given)

    outcome(heads)  # the check before the engine is trusted comes first
    monkeypatch.setattr(planned, "_run", first_fails)
    found = outcome(heads)
    assert "at most 3 at a time" in found.explain()
    assert torch.allclose(found.results["effects"], outcome(heads, "reference").results["effects"], atol=1e-5)


def test_one_row_too_large_is_the_users_to_know(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*given: Any, **more: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(sliced.Slicing, "_run", never)
    with rows_at_a_time(1), pytest.raises(WeftError, match="one row"):
        outcome(heads)


def test_an_error_in_a_slice_is_the_users_line() -> None:
    def scene(s: Any) -> None:
        run = s.run(CLEAN)
        places = run.resid_post[0].argmax(-1)  # below 12: not all below 6
        run.logits[:, -1].gather(1, places + 100).save("picked")

    with rows_at_a_time(2), pytest.raises(WeftError) as caught:
        outcome(scene)
    assert caught.value.where is not None and caught.value.where.file.endswith("test_sliced.py")


def test_progress_reaches_the_end_and_never_goes_back() -> None:
    with GPT2.session() as s:
        heads(s)
    seen: list[float] = []
    with rows_at_a_time(2):
        sliced_run = weft.execute.run
        sliced_run(GPT2.backend.loaded, s.experiment, progress=lambda done, text: seen.append(done))
    assert seen == sorted(seen) and seen[-1] == pytest.approx(1.0)


def test_the_work_of_all_slices_is_counted() -> None:
    whole = outcome(heads).outcome
    with rows_at_a_time(2):
        cut = outcome(heads).outcome
    assert cut.work["layer_tokens_asked"] == whole.work["layer_tokens_asked"]
    assert cut.work["runs"] == whole.work["runs"]
    assert replace(cut, work={}).plan == "planned"


def test_a_gradient_of_a_gradient_runs_in_one_piece_and_says_so() -> None:
    found = []
    for rows in (1, ROWS):
        with rows_at_a_time(rows), LLAMA.session() as s:
            run = s.run(CLEAN)
            stream = run.resid_post[0]
            first = weft.grad(weft.logit_diff(run.logits[:, -1], 2, 3).sum(), stream)
            second = weft.grad(first.pow(2).sum(), stream).save()
        found.append(second.value)
        assert any(note.startswith("in one piece") and "gradient" in note for note in s.outcome.notes)
    torch.testing.assert_close(found[0], found[1])
    assert float(found[0].abs().max()) > 0
