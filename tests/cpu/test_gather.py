"""Experiments that only look, run in one pass that keeps nothing: the numbers of the reference, and no others' business."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import tiny_gpt2, tiny_llama, tiny_mistral, tiny_qwen2

import weft
from weft.errors import JobCancelledError, WeftError
from weft.execute import gather, run

FAMILIES = {"gpt2": tiny_gpt2, "llama": tiny_llama, "mistral": tiny_mistral, "qwen2": tiny_qwen2}
FIRST, SECOND = [[1, 2, 3], [4, 5, 6, 7, 8, 9, 10], [1, 2, 3]], [[1, 2, 3], [2, 2]]
ROWS, PLACES = torch.tensor([0, 1, 1, 2, 0]), torch.tensor([4, 0, 6, -1, 0])  # the last is padding


def look(session) -> None:
    """Some rows and positions of several sites of two runs that share a row."""
    first, second = session.run(FIRST), session.run(SECOND)
    for name in ("embed", "resid_post[0]", "z[1]", "mlp_post[1]", "k[0]", "attn_out[1]"):
        first[name][ROWS, PLACES].save(name)
    second["resid_post[1]"][torch.tensor([0, 1]), torch.tensor([2, 1])].save("second")


def experiment(model):
    with model.session(plan="reference") as s:
        look(s)
    return s.experiment


@pytest.mark.parametrize("family", FAMILIES)
def test_the_numbers_are_the_references(family):
    model = weft.load(FAMILIES[family]().double(), name=family)
    with model.session(plan="reference") as slow:
        look(slow)
    with model.session() as quick:
        look(quick)
    assert quick.outcome.plan == "planned" and quick.outcome.work["passes"] == 1
    assert quick.outcome.work["rows"] == 3, "rows that are the same are one"
    for name, expected in slow.results.items():
        torch.testing.assert_close(quick.results[name], expected, rtol=1e-9, atol=1e-9)
    assert quick.results["z[1]"][-1].abs().max() == 0 and quick.results["embed"][0].abs().max() > 0


def test_the_pass_ends_with_the_last_site():
    model = weft.load(tiny_llama(), name="tiny")
    with model.session() as s:
        s.run(FIRST)["mlp_out[0]"][ROWS, PLACES].save("x")
    assert s.outcome.work["layer_tokens_done"] == 1 * (3 + 7)


def edited(s):
    run_ = s.run(FIRST)
    run_.resid_post[0][:, -1] += 1.0
    run_["z[1]"][ROWS, PLACES].save("x")


def computed(s):
    (s.run(FIRST)["z[1]"][ROWS, PLACES] * 2).save("x")


def whole(s):
    s.run(FIRST)["z[1]"].save("x")


def pattern(s):
    s.run(FIRST)["pattern[1]"][torch.tensor([0, 1]), torch.tensor([2, 0])].save("x")


@pytest.mark.parametrize("other", [edited, computed, whole, pattern])
def test_what_does_more_than_look_is_left_to_the_others(other):
    model = weft.load(tiny_gpt2(), name="tiny")
    with model.session() as s:
        other(s)
    assert gather.wanted(s.experiment) == []
    with model.session(plan="reference") as slow:
        other(slow)
    torch.testing.assert_close(s.results["x"], slow.results["x"], rtol=1e-5, atol=1e-5)


def test_a_place_outside_is_an_error_at_the_users_line():
    model = weft.load(tiny_gpt2(), name="tiny")
    with pytest.raises(WeftError) as wrong, model.session() as s:
        s.run(FIRST)["z[1]"][torch.tensor([0, 3]), torch.tensor([0, 0])].save("x")
    assert wrong.value.where is not None and "torch.tensor([0, 3])" in wrong.value.where.text


def test_it_can_be_cancelled():
    model = weft.load(tiny_gpt2(), name="tiny")
    with pytest.raises(JobCancelledError):
        run(model.backend.loaded, experiment(model), cancelled=lambda: True)


@pytest.mark.parametrize(
    "index", [(torch.tensor([3]), torch.tensor([0])), (torch.tensor([0]), torch.tensor([-8]))], ids=str
)
def test_an_index_outside_is_refused_where_runs_are_planned(index):
    model = weft.load(tiny_gpt2(), name="tiny")
    for write in (False, True):
        with pytest.raises(WeftError, match=r"are there|out of bounds"), model.session() as s:
            first, second = s.run(FIRST), s.run(FIRST)
            first.resid_post[0][:, -1] = second.resid_post[0][:, -1] + 1
            if write:
                first.resid_post[1][index] = 0.0
            (first.resid_post[1] * 2 if write else first.resid_post[1][index]).save("x")
