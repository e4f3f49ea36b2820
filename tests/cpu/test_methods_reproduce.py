"""`reproduce`: the papers' settings are what runs, their figures stand beside ours, and nothing passes silently."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import weft
from tiny import randomised
from weft import methods
from weft.bobbin import tokenizer
from weft.errors import ProgramError, TokenError
from weft.methods import FilterHeads, FunctionVector, Reproduction, reproduce
from weft.methods.papers import PAPERS, Figure
from weft.methods.papers.function_vectors import TASKS
from weft.methods.reproducing import filter_heads as filter_run
from weft.methods.reproducing import function_vectors as vector_run
from weft.methods.reproducing.rows import Ours, agrees

WORDS: dict[str, Any] = {"mediator": "", "search": "", "intervention": "", "metric": "", "control": ""}
FEW = {"tasks": ("country-capital",), "n_means": 2, "n_effects": 1, "n_heads": 2, "shots": 2}


def tiny(kind: str) -> weft.Model:
    """A random model of a paper's family, with bobbin's tokenizer: it answers nothing rightly."""
    import transformers

    tok = tokenizer.build()
    sizes: dict[str, Any] = {"vocab_size": tok.get_vocab_size(), "bos_token_id": 0, "eos_token_id": 1}
    if kind == "GPTJ":
        sizes |= {"n_layer": 3, "n_head": 4, "n_embd": 16, "n_inner": 20, "n_positions": 512, "rotary_dim": 4}
    else:
        sizes |= {
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "hidden_size": 16,
            "intermediate_size": 20, "max_position_embeddings": 512,
        }  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(**sizes, attn_implementation="eager")
    module = getattr(transformers, f"{kind}ForCausalLM")(config)
    return weft.load(randomised(module, 0), tokenizer=tok)


class Calls:
    """Stands in for a method: keeps what it was called with, and gives a result that says as little as can be."""

    def __init__(self, make: Any) -> None:
        self.make, self.calls = make, []

    __name__ = "stand-in"

    def __call__(self, model: Any, task: Any, **asked: Any) -> Any:
        self.calls.append((task, asked))
        return self.make(model, asked)


def a_vector(model: Any, asked: Any) -> FunctionVector:
    aie = xr.DataArray(
        np.arange(12.0).reshape(3, 4), dims=("layer", "head"), coords={"layer": range(3), "head": range(4)}
    )
    table = xr.DataArray(
        [[0.5, 0.4, 0.6, 10.0]], dims=("condition", "value"),
        coords={"condition": ["zero-shot"], "value": ["value", "low", "high", "n"]},
    )  # fmt: skip
    return FunctionVector(model="tiny", layer=1, arrays={"aie": aie, "accuracy": table}, **WORDS)


def some_heads(model: Any, asked: Any) -> FilterHeads:
    names = ["heads", "causality", "low", "high"]
    own = "given" if "heads" in asked else "mask"
    table = xr.DataArray([[2.0, 0.5, 0.4, 0.6]], dims=("set", "measure"), coords={"set": [own], "measure": names})
    return FilterHeads(model="tiny", heads=((1, 0), (1, 2)), arrays={"sets": table}, **WORDS)


@pytest.fixture
def vectors(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls(a_vector)
    monkeypatch.setattr(vector_run, "function_vector", calls)
    return calls


@pytest.fixture
def filters(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls(some_heads)
    monkeypatch.setattr(filter_run, "filter_heads", calls)
    return calls


def test_every_figure_has_a_mark_a_model_of_its_paper_and_a_place_or_a_reason() -> None:
    for paper in PAPERS.values():
        models = {each.id for each in paper.models}
        for figure in paper.figures:
            assert figure.mark in "RSM" and figure.model in models, figure
            assert bool(figure.key) != bool(figure.why), figure
        assert all(each.mark in "RSM" and each.where for each in paper.settings)


def test_function_vectors_runs_the_papers_counts_on_six_tasks(vectors: Calls) -> None:
    reproduce("function-vectors", tiny("GPTJ"), progress=False)
    effects, last = vectors.calls[:6], vectors.calls[6:]
    assert [task for task, _ in effects] == [task for task, _ in last] == list(TASKS.values())
    paper = {"shots": 10, "n_means": 100, "n_effects": 25, "held_out": 0.3, "n_heads": 10, "effects_on": "shuffled",
             "layer": 1, "only_right": True}  # fmt: skip
    assert all(asked[name] == value for _, asked in effects for name, value in paper.items())
    strongest = [divmod(at, 4) for at in range(11, 1, -1)]  # of the mean effect, 0 to 11
    assert all(asked["heads"] == strongest and asked["n_effects"] == 0 for _, asked in last)


def test_filter_heads_runs_the_papers_counts(filters: Calls) -> None:
    found = reproduce("filter-heads", tiny("Llama"), progress=False)
    (task, main), *others = filters.calls
    assert (task.distractors, task.question) == (5, "Which among these objects mentioned above is a {}?")
    paper = {"pairs": 1024, "train_pairs": 512, "batch_size": 16, "epochs": 10, "penalty": 2e-2, "keep": 0.5, "at": (-1,),
             "evaluate_at": (-1, -2, "question_mark"), "score": "first_token", "only_right": True}  # fmt: skip
    assert {name: main[name] for name in paper} == paper
    assert all(list(asked["heads"]) == [(1, 0), (1, 2)] for _, asked in others)
    assert [asked["pairs"] for _, asked in others] == [1024] * 10 + [512]
    assert list(found.parts) == [
        "select-one", "select-first", "select-last", "rhymes", *(f"distractors-{n}" for n in range(2, 8)), "question-first",
        "union",
    ]  # fmt: skip


def test_ours_stand_beside_the_papers_and_another_model_is_not_compared(filters: Calls) -> None:
    rows = {row.key: row for row in reproduce("filter-heads", tiny("Llama"), progress=False).rows}
    first = rows["select-first/sets/given/causality"]
    assert (first.expected, first.mark, first.ours, first.low, first.high) == ("0.688", "R", 0.5, 0.4, 0.6)
    assert (first.verdict, first.reason) == ("not comparable", "another model")
    assert rows["all/heads"].ours == 2
    assert rows["union/union/sum/rate"].verdict == "not measured"


def test_the_papers_own_model_is_told_by_name_and_sizes() -> None:
    (gptj, _), card = PAPERS["function-vectors"].models, tiny("GPTJ").card
    sizes = {"n_layers": 28, "n_heads": 16, "d_model": 4096, "d_vocab": 50400}

    class Like:
        def __init__(self, name: str, **other: int) -> None:
            self.name, self.sizes = name, sizes | other

    assert gptj.is_of(Like("EleutherAI/gpt-j-6b")) and gptj.is_of(Like("gpt-j-6B"))
    assert not gptj.is_of(Like("gpt-j-6b", n_layers=2)) and not gptj.is_of(Like("mine")) and not gptj.is_of(card)


def test_agreeing_means_that_the_intervals_meet() -> None:
    def figure(value: float, **more: Any) -> Figure:
        return Figure("x", value, "R", "m", "k", **more)

    assert agrees(figure(0.863), Ours(0.85, 0.82, 0.87)) and not agrees(figure(0.863), Ours(0.8, 0.77, 0.83))
    assert agrees(figure(0.81, tolerance=0.02), Ours(0.8, 0.77, 0.8)) and agrees(
        figure(0.02, upto=0.58), Ours(0.3, 0.2, 0.4)
    )
    assert agrees(figure(9.03), Ours(9.0312)) and not agrees(figure(79), Ours(78.0))


def test_without_weights_it_says_exactly_what_is_missing() -> None:
    found = reproduce("function-vectors")
    gptj = found.missing["needs"][0]
    assert (gptj["model"], gptj["parameters"]) == ("EleutherAI/gpt-j-6b", 6_050_882_784)
    assert gptj["bytes_bfloat16"] == 12_101_765_568 and gptj["memory"].startswith("11.3 GiB")
    assert gptj["command"].startswith("weft reproduce function-vectors --model EleutherAI/gpt-j-6b")
    assert {row.verdict for row in found.rows} == {"not measured"} and not found.right
    assert (
        found.rows[0].expected.startswith("39.1 %")
        and found.rows[0].reason == "needs the weights of EleutherAI/gpt-j-6b"
    )


def test_a_folder_that_is_not_there_is_missing_too() -> None:
    found = reproduce("filter-heads", "no/such/folder")
    assert "cannot load 'no/such/folder'" in found.missing["why"] and "141,107,412,992 bytes" in str(found)


def test_what_a_model_gets_wrong_is_asked_only_where_rows_say_so() -> None:
    found = reproduce("function-vectors", tiny("GPTJ"), settings=FEW, progress=False)
    row = found.rows[0]
    assert row.ours == 0
    loose = "counts prompts that the model answers wrongly too"
    assert row.reason == f"another model; other settings (n_effects, n_heads, n_means, shots, tasks); {loose}"
    assert any("answers none of 2 prompts" in note for note in found.notes)


def test_held_to_right_answers_a_random_model_has_nothing_measured() -> None:
    found = reproduce("function-vectors", tiny("GPTJ"), settings=FEW, only_right=True, progress=False)
    assert {row.verdict for row in found.rows} == {"not measured"} and not found.right
    assert "answers none of 2 prompts" in found.failed["effects-country-capital"]
    assert "answers none of 2 prompts" in found.rows[0].reason


def test_finished_parts_are_not_run_again(vectors: Calls, tmp_path: Path) -> None:
    model = tiny("GPTJ")
    first = reproduce("function-vectors", model, out=tmp_path, progress=False)
    (tmp_path / "vector-antonym.safetensors").unlink()
    again = reproduce("function-vectors", model, out=tmp_path, progress=False)
    assert len(vectors.calls) == 12 + 1 and vectors.calls[-1][0] == TASKS["antonym"]
    assert again.rows == first.rows
    with pytest.raises(ProgramError, match="seed are not those asked for now"):
        reproduce("function-vectors", model, out=tmp_path, seed=1, progress=False)


def test_it_is_one_file_and_read_back(vectors: Calls, tmp_path: Path) -> None:
    found = reproduce("function-vectors", tiny("GPTJ"), out=tmp_path, progress=False)
    read = methods.load(tmp_path / "reproduction.safetensors")
    assert isinstance(read, Reproduction) and read.rows == found.rows and read.differs == found.differs
    assert read["figures"].sel(value="expected").values[0] == 39.1
    assert read["mean_accuracy"].sel(condition="zero-shot", value="value") == 0.5
    json.dumps(found.to_data())


def test_the_mean_of_tasks_has_the_interval_of_independent_ones() -> None:
    tasks = xr.DataArray(
        [[0.5, 0.4, 0.6, 10], [0.7, 0.6, 0.8, 10]], dims=("task", "value"),
        coords={"value": ["value", "low", "high", "n"]},
    )  # fmt: skip
    value, low, high, n = vector_run._mean(tasks)
    half = (0.1**2 + 0.1**2) ** 0.5 / 2
    assert (value, low, high, n) == pytest.approx((0.6, 0.6 - half, 0.6 + half, 20))


def test_a_mean_over_some_of_the_tasks_is_not_held_against_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(model: Any, asked: Any) -> FunctionVector:
        if "heads" in asked and len(calls.calls) == 12:  # the last one
            raise ProgramError("no such words")
        return a_vector(model, asked)

    calls = Calls(made)
    monkeypatch.setattr(vector_run, "function_vector", calls)
    found = reproduce("function-vectors", tiny("GPTJ"), only_right=True, progress=False)
    assert found.failed == {"vector-singular-plural": "no such words"} and not found.right
    row = next(row for row in found.rows if row.key == "all/mean_accuracy/zero-shot/value")
    assert row.reason == "another model; over 5 of 6 tasks, without singular-plural"


def test_a_mask_that_keeps_no_head_says_what_stands_in_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(model: Any, asked: Any) -> FilterHeads:
        found = some_heads(model, asked)
        delta = xr.DataArray(torch.eye(4)[:2].numpy() * 2, dims=("layer", "head"))
        return found if "heads" in asked else FilterHeads(model="tiny", heads=(), arrays={"delta": delta}, **WORDS)

    calls = Calls(made)
    monkeypatch.setattr(filter_run, "filter_heads", calls)
    found = reproduce("filter-heads", tiny("Llama"), progress=False)
    assert "the mask kept no head; L0H0" in found.notes[0]
    assert [asked["heads"] for _, asked in calls.calls[1:]] == [[(0, 0)]] * 12
    assert {row.key: row.ours for row in found.rows}["all/heads"] == 0


def test_what_is_not_known_is_named_with_what_is() -> None:
    with pytest.raises(ProgramError, match=r"there are function-vectors, filter-heads: weft\.methods\.reproduce"):
        reproduce("function vectors")
    with pytest.raises(ProgramError, match="filter-heads has no setting 'shots'; it has question"):
        reproduce("filter-heads", settings={"shots": 1})
    with pytest.raises(TokenError, match="tokenizer="):
        reproduce("filter-heads", weft.load(tiny_without_words()))


def tiny_without_words() -> Any:
    from tiny import tiny_llama

    return tiny_llama()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("paper", "kind"), [("function-vectors", "GPTJ"), ("filter-heads", "Llama"), ("filter-heads", "Gemma2")]
)
def test_the_papers_whole_settings_run_on_a_random_model_of_its_family(paper: str, kind: str) -> None:
    found = reproduce(paper, tiny(kind), progress=False)
    assert not found.failed and not found.stopped
    assert {name: found.settings[name] for name in PAPERS[paper].values()} == PAPERS[paper].values()
    if paper == "function-vectors":
        assert [found.parts[f"effects-{task}"]["indirect_effect"].sizes["prompt"] for task in TASKS] == [25] * 6
        assert {found.parts[f"effects-{task}"].settings["of"] for task in TASKS} == {100}
    else:
        assert (found.parts["select-one"].settings["train_pairs"], found.parts["select-one"].settings["pairs"]) == (
            512,
            1024,
        )
        assert found.parts["select-one"]["loss"].sizes["step"] == 320
        assert found.parts["union"]["union"].sizes["query"] == 3
    measured = [row for row in found.rows if row.ours is not None]
    assert len(measured) > 5 and {row.verdict for row in measured} == {"not comparable"}


def test_the_pages_program_runs() -> None:
    page = (Path(__file__).parents[2] / "docs/reproduce.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    there: dict[str, Any] = {}
    exec(compile(code, "docs/reproduce.md", "exec"), there)
    found = there["found"]
    said = re.search(r"rows\[0\] *# (.+)", code).group(1).split(", ")  # type: ignore[union-attr]
    assert len(said) > 5 and all(hasattr(found.rows[0], each) for each in said)
    assert found.missing["needs"] and found.differs
