"""Function vectors on the planted functions: the head, the layer and the vector are the ones put there, and hooks agree."""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import signal
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from planted_hooks import VARIANTS, answers, at_head, marked, run, tokens

import weft
from weft.methods import FunctionVector, function_vector
from weft.methods.functions.prompts import Examples
from weft.planted.functions import FUNCTIONS, WORDS, build

SETTING = {"shots": 6, "held_out": 0, "n_means": 16, "n_effects": 8, "progress": False}
NEAR = ("Q: ", "\nA:", "\n")
CHANCE = 1 / len(WORDS)
each_variant = pytest.mark.parametrize("variant", marked(VARIANTS))
built = cache(lambda variant: build(**VARIANTS[variant]))


@cache
def model(variant: str = "plain") -> weft.Model:
    return weft.load(built(variant).model, tokenizer=built(variant).tokenizer)


@cache
def found(variant: str = "plain", name: str = "third") -> FunctionVector:
    further = {"templates": [NEAR], "rebuild": 150} if (variant, name) == ("plain", "third") else {"controls": 2}
    return function_vector(model(variant), FUNCTIONS[name], **SETTING, **further)


@each_variant
def test_one_head_has_the_effect_and_is_the_one_chosen(variant: str) -> None:
    aie, where = found(variant)["aie"].values.copy(), built(variant).truth.heads["function"]
    assert aie[where] > 0.6  # what is missing to 1 the shuffled prompts had right
    aie[where] = 0
    assert np.abs(aie).max() < 0.01
    assert found(variant).heads == [where]


@each_variant
def test_the_layer_curve_is_chance_but_where_the_vector_can_still_be_read(variant: str) -> None:
    table = built(variant).truth.tables["zero_shot_with_vector"]
    probability = found(variant)["probability"]
    expected = [1.0 if entry else CHANCE for entry in table]
    assert probability.sel(vector="function vector").values == pytest.approx(expected, abs=0.02)
    assert found(variant)["curve"].sel(vector="function vector").values[table.index(1)] == 1
    for control in ("random heads", "random vectors"):
        assert probability.sel(vector=control).values == pytest.approx([CHANCE] * len(table), abs=0.03)
    assert table[found(variant).layer] == 1


@each_variant
def test_the_vector_lies_where_the_task_is_written(variant: str) -> None:
    vector = torch.tensor(found(variant)["vector"].values)
    subspace = built(variant).truth.subspaces["task"]
    inside = (vector @ subspace.T).numpy()
    assert inside == pytest.approx(np.eye(4)[list(FUNCTIONS).index("third")], abs=0.03)


@pytest.mark.parametrize("variant", ["plain", "all"])
def test_effects_and_means_equal_a_loop_of_hooks(variant: str) -> None:
    planted = built(variant)
    examples = Examples.of(model(variant), FUNCTIONS["third"], 6, 0, 0, ("Q: ", "\nA:", "\n\n"))
    shown, shuffled = examples.few_shot("valid", 16), examples.few_shot("valid", 8, shuffled=True)
    seen = run(planted, tokens(planted, shown.texts))[1]
    means = [seen["z", layer][:, -1:].mean(0, keepdim=True) for layer in range(planted.truth.n_layers)]
    assert torch.cat(means).numpy()[:, 0] == pytest.approx(found(variant)["mean_z"].values, abs=1e-4)

    ids = tokens(planted, shuffled.texts)
    right = torch.tensor(
        [planted.tokenizer.convert_tokens_to_ids(f" {FUNCTIONS['third'][q]}") for q in shuffled.queries]
    )
    chance = lambda logits: logits[:, -1].softmax(-1).gather(-1, right[:, None])[:, 0]  # noqa: E731
    before = chance(run(planted, ids)[0])
    for layer, head in itertools.product(range(planted.truth.n_layers), range(planted.truth.n_heads)):
        patch = at_head("z", (layer, head), slice(-1, None), means[layer].expand(len(ids), -1, -1, -1))
        effect = chance(run(planted, ids, patch)[0]) - before
        assert effect.numpy() == pytest.approx(found(variant)["indirect_effect"].values[layer, head], abs=1e-4)


def test_accuracies_come_with_intervals_and_controls() -> None:
    accuracy = found()["accuracy"]
    assert list(accuracy.condition.values) == [
        "with examples", "zero-shot", "zero-shot, function vector", "zero-shot, random heads", "zero-shot, random vectors",
        "shuffled", "shuffled, function vector", "shuffled, random heads", "shuffled, random vectors",
    ]  # fmt: skip
    value = accuracy.sel(value="value")
    for condition in ("with examples", "zero-shot, function vector", "shuffled, function vector"):
        assert value.sel(condition=condition) == 1
    for condition in ("zero-shot", "zero-shot, random heads", "zero-shot, random vectors"):
        assert value.sel(condition=condition) < 0.3
    row = accuracy.sel(condition="zero-shot, function vector")
    assert row.sel(value="low").item() == pytest.approx(8 / (8 + 1.96**2))  # Wilson's bound where all 8 of 8 are right
    assert accuracy.sel(condition="zero-shot, random heads", value="n") == 5 * 8


def test_it_works_in_another_form_and_not_by_the_words_it_makes_likelier() -> None:
    shown = found()["templates"].sel(value="value").values.tolist()
    assert shown[0] < 0.3 and shown[1] == 1
    rebuilt = found()["rebuilt"].sel(value="value").values.tolist()
    assert rebuilt[0] == 1 and rebuilt[1] < 0.3


def test_the_rebuilt_vector_unembeds_to_what_the_vector_does() -> None:
    planted = built("plain")
    parts = planted.model.transformer.ln_f, planted.model.lm_head
    p, q = (parts[1](parts[0](torch.tensor(found()[name].values))).softmax(-1) for name in ("vector", "rebuilt_vector"))
    kl = (p * (p / q).log()).sum().item()
    assert kl == pytest.approx(found()["rebuilt"].attrs["kl"], abs=1e-4)
    assert kl < 0.05
    top = found()["vocabulary_probability"].values
    assert top == pytest.approx(p.detach().topk(10).values.numpy(), abs=1e-5)
    assert found()["vocabulary"].values[0] == planted.tokenizer.decode([int(p.argmax())])


def test_it_steers_every_step_of_a_generation() -> None:
    """Without examples; each new word is what the function makes of the query, as the hooks of the oracle have it."""
    planted, third = built("plain"), found()
    with third.steer(model()).session() as s:
        g = s.generate([f"Q: {word}\nA:" for word in WORDS], max_new_tokens=1)
    assert g.text == [f" {FUNCTIONS['third'][word]}" for word in WORDS]
    vector = torch.tensor(third["vector"].values)

    def add(kind: str, layer: int, into: torch.Tensor) -> None:
        if (kind, layer) == ("resid", third.layer):
            into[:, -1] += vector

    ids = tokens(planted, [f"Q: {word}\nA:" for word in WORDS])
    assert g.text == answers(planted, run(planted, ids, add)[0])


def test_vectors_are_added_up() -> None:
    """v(third) + v(next) − v(next) is v(third), and v(third) − v(third) is nothing; in the papers A→D + B→C − A→C."""
    third, following = found(), found(name="next")
    composed = third + following - following
    assert composed.accuracy(model(), FUNCTIONS["third"]).value == 1
    assert following.steering.accuracy(model(), FUNCTIONS["third"]).value == 0
    assert composed.name == "function + function − function"
    assert (third - third).accuracy(model(), FUNCTIONS["third"]).value < 0.3


def test_heads_given_are_taken_as_they_are() -> None:
    wrong = function_vector(model(), FUNCTIONS["third"], heads=[(0, 0), (2, 1)], layer=0, controls=0, **SETTING)
    assert wrong.heads == [(0, 0), (2, 1)] and wrong.layer == 0
    assert wrong["accuracy"].sel(condition="zero-shot, function vector", value="value") < 0.3


def test_the_file_gives_it_back(tmp_path: Path) -> None:
    again = weft.methods.load(found().save(tmp_path / "fv.safetensors"))
    assert type(again) is FunctionVector and (again.layer, again.heads) == (found().layer, found().heads)
    assert torch.equal(again.steering.vector, found().steering.vector) and again.steering.form == found().steering.form
    assert again.steering.accuracy(model(), FUNCTIONS["third"]).value == 1
    assert len(again.records) == len(found().records) >= 4


def test_figures() -> None:
    assert len(found().plot().data[0].z) == 3
    curve = found().plot("curve")
    assert [line.name for line in curve.data] == ["function vector", "random heads", "random vectors"]
    bars = found().plot("accuracy").data[0]
    assert list(bars.x)[1:3] == ["zero-shot", "zero-shot, function vector"] and list(bars.y)[2] == 1
    assert bars.y[2] - bars.error_y.arrayminus[2] == pytest.approx(8 / (8 + 1.96**2))


def test_ctrl_c_keeps_the_effects_that_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    effects = sys.modules["weft.methods.functions.effects"]
    monkeypatch.setattr(effects, "PART", 8 * 8)
    done, patched = itertools.count(), effects._patched

    def interrupting(*args: object) -> object:
        if next(done) == 9:
            os.kill(os.getpid(), signal.SIGINT)
        return patched(*args)

    monkeypatch.setattr(effects, "_patched", interrupting)
    part = function_vector(model(), FUNCTIONS["third"], **SETTING)
    assert part.stopped == "after 2 of 3 parts of heads"
    assert part["aie"].values[:2] == pytest.approx(found()["aie"].values[:2], abs=1e-5)
    assert np.isnan(part["aie"].values[2]).all()
    with pytest.raises(weft.WeftError, match="stopped after 2 of 3"):
        part.steer(model())


WRONG = {
    "relation": (("capitol",), {}, "no relation is called 'capitol'; there are"),
    "pairs": ((["a", "b"],), {}, "task is pairs of words"),
    "too few": ((FUNCTIONS["next"],), {"shots": 7}, "give more pairs, fewer shots, or held_out=0"),
    "shots": ((FUNCTIONS["next"],), SETTING | {"shots": 8}, "fewer shots"),
    "a space at the end": ((FUNCTIONS["next"],), SETTING | {"form": ("Q: ", "\nA: ", "\n")}, "may not end in one"),
    "n_heads": ((FUNCTIONS["next"],), SETTING | {"n_heads": 0}, "from 1 to 24, not 0"),
    "layer": ((FUNCTIONS["next"],), SETTING | {"layer": 3}, "from 0 to 2, not 3"),
    "no such head": ((FUNCTIONS["next"],), SETTING | {"heads": [(0, 8)]}, "has layers 0 to 2 and heads 0 to 7"),
    "no pair": ((FUNCTIONS["next"],), SETTING | {"heads": [3]}, r"pairs of whole numbers, \[\(15, 5\), …\], not 3"),
    "no heads": ((FUNCTIONS["next"],), SETTING | {"heads": []}, "or leave heads out"),
    "heads and a number": ((FUNCTIONS["next"],), SETTING | {"heads": [(0, 0)], "n_heads": 1}, "leave out n_heads=1"),
    "never right": (({x: "cat" if y != "cat" else "dog" for x, y in FUNCTIONS["next"].items()},), SETTING, "answers none of"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_bad_calls_are_told_the_right_one(what: str) -> None:
    given, options, said = WRONG[what]
    with pytest.raises(weft.WeftError, match=said):
        function_vector(model(), *given, **options)


@pytest.mark.parametrize("asked", [{"layer": 3}, {"n_heads": 25}, {"heads": [(3, 0)]}, {"effects_on": "bare"}])
def test_what_cannot_be_had_is_refused_before_anything_is_run(asked: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weft.Model, "session", lambda *_, **__: pytest.fail("a session was opened"))
    with pytest.raises(weft.errors.ProgramError):
        function_vector(model(), FUNCTIONS["next"], **SETTING | asked)


def test_words_that_the_model_cannot_say_are_refused() -> None:
    with pytest.raises(weft.WeftError, match="no token for how"):
        function_vector(weft.load("induction"), "capital", shots=3, n_means=4)


def test_heads_of_several_functions() -> None:
    both = weft.methods.universal([found(), found(name="next")], 1)
    assert both == [built("plain").truth.heads["function"]]
    other = function_vector(model(), FUNCTIONS["second"], heads=both, **SETTING)
    assert other["accuracy"].sel(condition="zero-shot, function vector", value="value") == 1
    with pytest.raises(weft.WeftError, match="at least one function"):
        weft.methods.universal([])


def test_other_forms_are_those_that_the_model_has_words_for() -> None:
    assert found(name="next")["templates"].condition.values.tolist() == [
        "Q: …\nA:…\n", "Q: …\nA:…\n, function vector",
    ]  # fmt: skip
    assert found(name="next")["templates"].sel(value="value").values[1] == 1


def test_effects_on_prompts_without_examples() -> None:
    """All of the probability but the guess of one in eight comes with the head's mean."""
    bare = function_vector(model(), FUNCTIONS["third"], effects_on="zero-shot", controls=0, **SETTING)
    aie, where = bare["aie"].values.copy(), built("plain").truth.heads["function"]
    assert bare.settings["before"] == pytest.approx(CHANCE, abs=0.02)
    assert aie[where] == pytest.approx(1 - CHANCE, abs=0.02)
    aie[where] = 0
    assert np.abs(aie).max() < 0.01
    with pytest.raises(weft.WeftError, match='"shuffled" or "zero-shot"'):
        function_vector(model(), FUNCTIONS["third"], effects_on="bare", **SETTING)


def test_queries_are_held_out_and_capped() -> None:
    pairs = {f"w{i}": "cat" for i in range(20)}
    parts = Examples.of(model(), pairs, 5, 0, 0.5, ("Q: ", "\nA:", "\n"), 4).parts
    assert [len(parts[name]) for name in ("shown", "valid", "test")] == [10, 4, 4]
    assert not set(parts["shown"]) & {*parts["valid"], *parts["test"]} and not set(parts["valid"]) & set(parts["test"])


def test_shuffled_examples_keep_their_outputs_and_never_show_the_query() -> None:
    asked = Examples.of(model(), FUNCTIONS["next"], 6, 0, 0, ("Q: ", "\nA:", "\n\n")).few_shot(
        "valid", 8, shuffled=True
    )
    for text, query in zip(asked.texts, asked.queries, strict=True):
        shown = re.findall(r"Q: (\w+)\nA: (\w+)", text)
        assert len(shown) == 6 and query not in [x for x, _ in shown] and text.endswith(f"Q: {query}\nA:")
        assert sorted(y for _, y in shown) == sorted(FUNCTIONS["next"][x] for x, _ in shown)


def test_the_page_says_what_the_code_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[2] / "docs/data-types/functions.md"
    monkeypatch.chdir(tmp_path)
    space: dict = {}
    exec("".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)), space)
    assert space["found"].heads == [(1, 1)] and space["g"].text == [" dog"]
    assert space["grid"].direction == "denoising" and space["grid"]["effect"].dims == ("layer", "position")
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert (page.parent / link).exists()


def test_the_example(tmp_path: Path) -> None:
    path = Path(__file__).parents[2] / "examples/functions.py"
    spec = importlib.util.spec_from_file_location("functions_example", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    third = example.run(model())
    example.draw(third, tmp_path / "figures")
    assert third.heads == [built("plain").truth.heads["function"]]
    assert third["aie"].values[third.heads[0]] == pytest.approx(0.88, abs=0.05)  # as the page says
    assert example.steered(model(), third, "red") == f" {FUNCTIONS['third']['red']}"
    assert sorted(each.name for each in (tmp_path / "figures").iterdir()) == [
        "functions-aie.png", "functions-curve.html", "functions.safetensors",
    ]  # fmt: skip


def test_a_model_that_cannot_do_it_is_measured_on_all_prompts_where_that_is_asked_for() -> None:
    wrong = {word: "red" for word in WORDS if word != "red"} | {"red": "dog"}  # no function that is planted
    with pytest.raises(weft.errors.ProgramError, match="only_right=False"):
        function_vector(model(), wrong, **SETTING, controls=0)
    all_of_them = function_vector(model(), wrong, **SETTING, controls=0, templates=(), only_right=False)
    accuracy = all_of_them["accuracy"]
    assert accuracy.sel(condition="zero-shot", value="n") == len(WORDS)  # every query, though few are answered
    assert all_of_them.settings["only_right"] is False and all_of_them.settings["right_with_examples"] == 0


def test_heads_given_need_no_effects() -> None:
    where = built("plain").truth.heads["function"]
    given = function_vector(
        model(), FUNCTIONS["third"], **SETTING | {"n_effects": 0}, heads=[where], layer=0, controls=0, templates=()
    )
    assert "aie" not in given.arrays and given.settings["before"] is None
    assert given["accuracy"].sel(condition="zero-shot, function vector", value="value") == 1
    with pytest.raises(weft.errors.ProgramError, match=r"heads=\[\(15, 5\)"):
        function_vector(model(), FUNCTIONS["third"], **SETTING | {"n_effects": 0})


def test_of_a_sum_over_all_heads_no_others_are_left_as_a_control() -> None:
    every = list(itertools.product(range(model().n_layers), range(model().n_heads)))
    asked = SETTING | {"n_effects": 0}
    whole = function_vector(model(), FUNCTIONS["third"], **asked, heads=every, layer=0, controls=1, templates=())
    assert whole["curve"]["vector"].values.tolist() == ["function vector", "random vectors"]
