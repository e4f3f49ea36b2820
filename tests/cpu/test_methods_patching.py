"""Activation patching: the numbers of a loop of plain hooks, and the planted heads and nothing else."""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from plain import Plain, replaced
from tests.tiny import tiny_gpt2, tiny_llama

import weft
from weft.methods import activation_patching
from weft.planted.functions import FUNCTIONS, WORDS, build, prompt

IDS = torch.tensor([[0, 3, 5, 7, 9], [0, 4, 6, 8, 10], [0, 2, 2, 11, 12]])
OTHER = torch.tensor([[0, 3, 5, 7, 13], [0, 1, 6, 8, 14], [0, 15, 2, 11, 12]])
TINY = {"gpt2": tiny_gpt2, "llama": tiny_llama}


def metric(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, 3] - 2 * logits[:, 7]


def near(array: object, expected: object) -> bool:
    return np.allclose(np.asarray(array), np.asarray(expected), atol=1e-4, rtol=1e-4)


def z_with(plain: Plain, layer: int, head: int, at: int, value: torch.Tensor):
    """An edit: a head's columns of what goes into the output projection."""
    return plain.before(plain.o(layer), lambda x: replaced(x, (slice(None), at, plain.columns(head)), value))


@pytest.mark.parametrize("kind", TINY)
@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_heads_equal_a_loop_of_hooks(kind: str, direction: str) -> None:
    plain = Plain(TINY[kind](seed=1))
    found = activation_patching(weft.load(plain.module), IDS, OTHER, metric, position=[-1, 2], direction=direction)
    base, source = (OTHER, IDS) if direction == "denoising" else (IDS, OTHER)
    clean, corrupt = (metric(plain.logits(ids)[:, -1]) for ids in (IDS, OTHER))
    expected = np.zeros((plain.n_layers, 2, plain.n_heads, 3))
    for (layer, head), (p, at) in itertools.product(plain.heads, enumerate((-1, 2))):
        value = plain.z(layer, source)[:, at, plain.columns(head)]
        expected[layer, p, head] = metric(plain.logits(base, [z_with(plain, layer, head, at, value)])[:, -1])
    assert found["effect"].dims == ("layer", "position", "head")
    assert near(found["patched"], expected)
    assert near(found["clean"], clean) and near(found["corrupt"], corrupt)
    share = (expected.mean(-1) - corrupt.mean().item()) / (clean.mean() - corrupt.mean()).item()
    assert near(found["effect"], share)
    assert found.direction == direction


def test_the_stream_and_the_sublayers_in_one_grid() -> None:
    plain = Plain(tiny_llama(seed=2))
    sites = ["resid_post", "mlp_out"]
    found = activation_patching(
        weft.load(plain.module), IDS, OTHER, metric, site=sites, layers=[0, -1], position="each"
    )
    assert found["effect"].dims == ("site", "layer", "position")
    assert found["effect"].sizes == {"site": 2, "layer": 2, "position": 5}
    for (s, place), (i, layer) in itertools.product(enumerate((plain.layers, [m.mlp for m in plain.layers])),
                                                    enumerate((0, plain.n_layers - 1))):  # fmt: skip
        value = plain.taken(place[layer], IDS)
        for at in range(5):
            edit = plain.after(place[layer], lambda x, at=at, v=value: replaced(x, (slice(None), at), v[:, at]))
            assert near(found["patched"][s, i, at], metric(plain.logits(OTHER, [edit])[:, -1]))


@pytest.mark.parametrize("ablate", ["zero", "mean", "resample"])
def test_ablations_equal_a_loop_of_hooks(ablate: str) -> None:
    plain = Plain(tiny_gpt2(seed=3))
    found = activation_patching(weft.load(plain.module), IDS, metric=metric, ablate=ablate, seed=4)
    assert found.direction == f"ablation ({ablate})"
    before, after = metric(plain.logits(IDS)[:, -1]), []
    for layer, head in plain.heads:
        z = plain.z(layer, IDS)[:, -1, plain.columns(head)]
        candidates = {
            "zero": [torch.zeros_like(z)],
            "mean": [z.mean(0).expand_as(z)],
            "resample": [z[[1, 2, 0]], z[[2, 0, 1]]],  # the two ways in which no row keeps its own
        }[ablate]
        after.append(
            [metric(plain.logits(IDS, [z_with(plain, layer, head, -1, v)])[:, -1]).numpy() for v in candidates]
        )
    ways = np.array(after).swapaxes(0, 1)
    mine = found["patched"].values.reshape(len(plain.heads), 3)
    assert any(near(mine, way) for way in ways)
    assert near(found["effect"].values.ravel(), mine.mean(-1) - before.mean().item())


def test_the_mean_over_all_positions_is_broadcast() -> None:
    plain = Plain(tiny_gpt2(seed=3))
    found = activation_patching(weft.load(plain.module), IDS, metric=metric, ablate="mean", position="all", layers=[1])
    for head in range(plain.n_heads):
        columns = plain.columns(head)
        mean = plain.z(1, IDS)[..., columns].mean((0, 1))
        edit = plain.before(plain.o(1), lambda x, c=columns, m=mean: replaced(x, (..., c), m))
        assert near(found["patched"][0, head], metric(plain.logits(IDS, [edit])[:, -1]))


def test_on_the_induction_model_the_planted_head_and_no_other() -> None:
    from weft.planted.induction import truth

    model = weft.load("planted/induction")
    clean, corrupt = (f"The Eiffel Tower is in {city}. The Eiffel Tower is in" for city in ("Paris", "Rome"))
    sides = {"denoising": (0.0, 1.0), "noising": (1.0, 0.0)}
    for direction, (nothing, everything) in sides.items():
        found = activation_patching(model, clean, corrupt, answers=" Paris", others=" Rome", direction=direction)
        expected = np.full((3, 4), nothing)
        expected[truth().induction] = everything
        assert np.abs(found["effect"].values - expected).max() < 0.01
        assert found.top(1)[["layer", "head"]].values.tolist() == [list(truth().induction)]


def test_places_are_found_by_text_row_by_row() -> None:
    """The cities stand at different tokens in the two rows; their streams hold the whole difference at first."""
    model = weft.load("planted/induction")
    clean = ["The Eiffel Tower is in Paris. The Eiffel Tower is in", "The cat saw Paris when the cat saw"]
    corrupt = [text.replace("Paris", "Rome") for text in clean]
    city = {
        "city": lambda run: run.at([" Paris", " Paris"] if " Paris" in _text(run) else [" Rome", " Rome"]),
        "end": -1,
    }
    found = activation_patching(
        model, clean, corrupt, answers=" Paris", others=" Rome", site="resid_post", position=city
    )
    assert found["effect"].sel(layer=0, position="city").item() == pytest.approx(1, abs=0.01)
    assert found["effect"].sel(layer=0, position="end").item() == pytest.approx(0, abs=0.01)
    assert found["effect"].sel(layer=2, position="end").item() == pytest.approx(1, abs=0.01)


def _text(run: object) -> str:
    return run.session.model.tokens.decode(run.tokens[0].tolist())


def test_a_batch_brings_its_roles_answers_and_counterfactuals() -> None:
    from weft import tasks

    model = weft.load("planted/induction")
    batch = (
        tasks.RepeatedTokens.for_model(model, length=4).sample(6, seed=1).take(range(1, 6))
    )  # the first pair has one answer
    found = activation_patching(model, batch, site="resid_post", position=["end", "earlier"], layers=[2])
    assert found["effect"].sel(layer=2).sel(position="end").item() == pytest.approx(1, abs=0.01)
    assert found["clean"].min() > 0 > found["corrupt"].max()


def texts(name: str, other: str) -> tuple[list[str], list[str], list[str], list[str]]:
    """Prompts that differ in the function that their examples show, and each one's answers."""
    draw = random.Random(name)
    clean, corrupt, right, wrong = [], [], [], []
    for query in WORDS:
        shown = draw.sample([word for word in WORDS if word != query], 6)
        clean.append(prompt([(x, FUNCTIONS[name][x]) for x in shown], query))
        corrupt.append(prompt([(x, FUNCTIONS[other][x]) for x in shown], query))
        right.append(f" {FUNCTIONS[name][query]}")
        wrong.append(f" {FUNCTIONS[other][query]}")
    return clean, corrupt, right, wrong


@pytest.mark.parametrize("variant", [{}, {"family": "llama", "grouped": True, "rotate": True, "seed": 5}])
def test_on_the_functions_model_the_function_head_and_no_other(variant: dict) -> None:
    planted = build(**variant)
    clean, corrupt, right, wrong = texts("next", "third")
    model = weft.load(planted.model, tokenizer=planted.tokenizer)
    found = activation_patching(model, clean, corrupt, answers=right, others=wrong)
    expected = np.zeros(found["effect"].shape)
    expected[planted.truth.heads["function"]] = 1
    assert np.abs(found["effect"].values - expected).max() < 0.01


def test_many_cells_are_done_in_parts_that_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = weft.load(tiny_gpt2(seed=1))
    whole = activation_patching(model, IDS, OTHER, metric)
    monkeypatch.setattr(sys.modules["weft.methods.activation_patching"], "PART", 6)
    parts = activation_patching(model, IDS, OTHER, metric)
    assert near(parts["patched"], whole["patched"])
    assert len(parts.records) == 1 + 3 and len(whole.records) == 2  # six cells of three rows, two at once


def test_ctrl_c_keeps_the_parts_that_are_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert threading.current_thread() is threading.main_thread()
    model = weft.load(tiny_gpt2(seed=1))
    whole = activation_patching(model, IDS, OTHER, metric)
    monkeypatch.setattr(sys.modules["weft.methods.activation_patching"], "PART", 6)
    calls = itertools.count()

    def interrupting(logits: torch.Tensor) -> torch.Tensor:
        if next(calls) == 4:  # two without a patch, two in the first part, and in the second
            os.kill(os.getpid(), signal.SIGINT)
        return metric(logits)

    found = activation_patching(model, IDS, OTHER, interrupting, progress=False)
    done = found["patched"].values.reshape(6, 3)
    assert found.stopped == "after 2 of 3 parts of patching"
    assert near(done[:4], whole["patched"].values.reshape(6, 3)[:4])
    assert np.isnan(done[4:]).all() and np.isnan(found["effect"].values.ravel()[4:]).all()
    assert weft.methods.load(found.save(tmp_path / "p.safetensors")).stopped == found.stopped


def test_the_file_gives_a_patching_back(tmp_path: Path) -> None:
    found = activation_patching(weft.load(tiny_gpt2()), IDS, OTHER, metric)
    again = weft.methods.load(found.save(tmp_path / "p.safetensors"))
    assert type(again) is weft.methods.Patching and again.direction == "denoising"
    assert again.top(3).equals(found.top(3))
    assert [record.hash for record in again.records] == [record.hash for record in found.records]


WRONG = {
    "no corrupt side": ({"corrupt": None}, "give the corrupt prompts"),
    "a metric by number": ({"metric": lambda logits: logits[:, :2]}, "not one number, or one a row"),
    "no answers": ({"metric": "log_prob"}, "needs answers="),
    "direction": ({"direction": "up"}, '"denoising" or "noising"'),
    "ablation": ({"ablate": "none"}, '"zero", "mean" or "resample"'),
    "site": ({"site": "zz"}, "no site 'zz'"),
    "sites": ({"site": ["z", "mlp_out"]}, "have the same heads"),
    "layer": ({"layers": [7]}, r"in layers \[0, 1\], not in \[7\]"),
    "heads of none": ({"site": "mlp_out", "heads": [1]}, "has no heads"),
    "head": ({"heads": [4]}, "some of 0 to 2"),
    "no difference": ({"corrupt": IDS}, "no difference whose share"),
    "rows": ({"corrupt": OTHER[:2]}, "2 rows are patched from 3"),
    "lengths": ({"corrupt": OTHER[:, 1:], "site": "mlp_out", "position": "all"}, "the same number of tokens"),
    "place": ({"position": 2.5}, "a place is a position"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_bad_calls_are_told_the_right_one(what: str) -> None:
    changes, said = WRONG[what]
    options = {"corrupt": OTHER, "metric": metric} | changes
    with pytest.raises(weft.WeftError, match=said):
        activation_patching(weft.load(tiny_gpt2()), IDS, options.pop("corrupt"), **options)


def test_answers_that_begin_alike_are_refused() -> None:
    model = weft.load("planted/induction")
    with pytest.raises(weft.WeftError, match="begin with the same token"):
        activation_patching(model, ["The cat is in"], ["The dog is in"], answers=[" Paris"], others=[" Paris"])


def test_roles_are_found_on_both_sides_when_resampling_and_when_reading() -> None:
    """The rows' roles stand where the rows' own prompts have them, whichever row's value is put in."""
    from weft import tasks

    model = weft.load("planted/induction")
    batch = tasks.RepeatedTokens.for_model(model, length=4).sample(4, seed=3)
    found = activation_patching(
        model, batch, metric="log_prob", ablate="resample", site="resid_post", position=["end", "earlier"], layers=[2]
    )
    assert found["effect"].sel(layer=2, position="end") < -1
    assert found["effect"].sel(layer=2, position="earlier").item() == pytest.approx(0, abs=0.01)
    by_role = activation_patching(model, batch, metric="log_prob", read_at="end")
    by_number = activation_patching(model, batch, metric="log_prob", read_at=-1)
    assert near(by_role["patched"], by_number["patched"])


def test_whole_sites_by_any_name() -> None:
    model = weft.load(tiny_gpt2(seed=3))
    plain = activation_patching(model, IDS, metric=metric, ablate="mean", position="all")
    named = activation_patching(model, IDS, metric=metric, ablate="mean", position={"everywhere": "all"})
    assert near(plain["effect"], named["effect"])


def test_patterns_are_patched_by_the_token_that_looks() -> None:
    plain = Plain(tiny_gpt2(seed=3, attention="eager"))
    found = activation_patching(weft.load(plain.module), IDS, OTHER, metric, site="pattern", layers=[1])
    keys = IDS.shape[1]
    pattern, values = {}, {}
    for name, ids in (("clean", IDS), ("corrupt", OTHER)):
        with torch.no_grad():
            pattern[name] = plain.module(ids, output_attentions=True).attentions[1][:, :, -1]
        packed = plain.taken(plain.q(1), ids)
        values[name] = packed[..., -plain.n_heads * plain.d_head :].unflatten(-1, (plain.n_heads, plain.d_head))
    for head in range(plain.n_heads):
        z = torch.einsum("bk,bkd->bd", pattern["clean"][:, head, :keys], values["corrupt"][:, :, head])
        expected = metric(plain.logits(OTHER, [z_with(plain, 1, head, -1, z)])[:, -1])
        assert near(found["patched"].sel(layer=1, head=head), expected)


def test_half_precision_gives_numbers_too() -> None:
    module = tiny_gpt2(seed=1).to(torch.bfloat16)
    found = activation_patching(weft.load(module), IDS, OTHER, "log_prob", answers=3)
    assert found["patched"].dtype == np.float32 and np.isfinite(found["patched"]).all()
    expected = torch.log_softmax(Plain(module).logits(IDS)[:, -1].float(), -1)[:, 3]
    assert found["clean"].values == pytest.approx(expected.numpy(), abs=0.1)


def test_a_model_says_the_axes_and_layers_of_its_sites() -> None:
    model = weft.load(tiny_llama())
    assert model.axes("k") == ("batch", "pos", "kv_head", "d_head")
    assert model.axes("pattern") == ("batch", "head", "query_pos", "key_pos")
    assert model.layers("z") == tuple(range(model.n_layers)) == model.layers("resid_pre")
    assert model.layers("embed") == ()
    with pytest.raises(weft.WeftError, match=r"no site 'zz'.*there are embed"):
        model.axes("zz")
