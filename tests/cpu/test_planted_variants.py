"""What all planted models share: they are ordinary models, built alike each time, and no variant is quietly another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from planted_hooks import VARIANTS
from transformers import AutoModelForCausalLM, AutoTokenizer

import weft
from weft import planted
from weft.errors import ModelError
from weft.planted import double_pointers, pointers, pointers_positional
from weft.planted.story import watching

NAMES = [
    "predicates",
    "predicates-eager",
    "dual_route",
    "functions",
    "pointers",
    "pointers-positional",
    "double_pointers",
]
TEXTS = {
    "predicates": "Options: apple, hammer, robin.\nWhich among these objects mentioned above is a tool?\nAnswer:",
    "predicates-eager": "Which among these objects is a tool?\nOptions: apple, hammer, robin.\nAnswer:",
    "dual_route": "English: 1 water 2 bread\nItalian: 1",
    "functions": "Q: red\nA: blue\n\nQ: cat\nA: dog\n\nQ: sun\nA:",
    "pointers": "Story: Bob fills the cup with tea.\nQuestion: What does Bob believe the cup contains?\nAnswer:",
    "pointers-positional": "Story: Bob fills the cup with tea.\nQuestion: What does Bob believe the cup contains?\nAnswer:",
    "double_pointers": watching([("Ann", "milk"), ("Bob", "tea")], [("Zoe", "Bob")], "Zoe"),
}
ANSWERS = dict(zip(NAMES, [" hammer", " hammer", " acq", " moon", " tea", " tea", " tea"], strict=True))
each_name = pytest.mark.parametrize("name", NAMES)


@each_name
def test_any_tool_can_save_load_and_run_it(name: str, tmp_path: Path) -> None:
    built = planted.build(name)
    built.model.save_pretrained(tmp_path)
    built.tokenizer.save_pretrained(tmp_path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer(TEXTS[name], return_tensors="pt").input_ids
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == TEXTS[name]
    with torch.no_grad():
        assert tokenizer.decode(model(ids).logits[0, -1].argmax()) == ANSWERS[name]


@each_name
def test_weft_loads_it_by_name_and_reads_what_the_truth_says(name: str) -> None:
    model, truth = weft.load(f"planted/{name}"), planted.build(name).truth
    with model.session() as s:
        run = s.run(TEXTS[name])
        answer, z = run.logits[:, -1].argmax(-1).save("answer"), run.z[0].save("z")
    assert planted.build(name).tokenizer.decode(answer) == ANSWERS[name]
    assert tuple(z.shape[2:]) == (truth.n_heads, 64)


@each_name
def test_the_same_seed_gives_the_same_weights_and_leaves_the_users_generator_alone(name: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two = planted.build(name, seed=2, rotate=True), planted.build(name, seed=2, rotate=True)
    assert torch.equal(torch.get_rng_state(), before)
    weights = two.model.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in one.model.state_dict().items())
    assert one.truth == two.truth != planted.build(name, seed=3).truth


@each_name
def test_every_token_is_one_and_every_word_listed_is_known(name: str) -> None:
    built = planted.build(name)
    assert len(built.tokenizer) == built.model.config.vocab_size
    for words in built.truth.words.values():
        for word in words:
            ids = built.tokenizer(word, add_special_tokens=False).input_ids
            assert built.tokenizer.unk_token_id not in ids and built.tokenizer.decode(ids) == word


def test_a_rotated_model_computes_the_same_along_other_directions() -> None:
    plain, turned = planted.build("functions"), planted.build("functions", rotate=True)
    axes, directions = plain.truth.subspaces["task"], turned.truth.subspaces["task"]
    assert axes.abs().max(1).values.min() > 0.9  # all but one axis each
    assert directions.abs().max() < 0.25  # spread over 512
    assert directions @ directions.T == pytest.approx(torch.eye(4), abs=1e-5)
    assert directions.sum(1) == pytest.approx([0.0] * 4, abs=1e-5)  # LayerNorm takes the mean away


def test_the_variants_are_what_they_say() -> None:
    everything = planted.build("functions", **VARIANTS["all"])
    config, truth = everything.model.config, everything.truth
    assert config.model_type == "llama" and config.num_attention_heads == 2 * config.num_key_value_heads == 10
    assert truth.n_layers == config.num_hidden_layers == 4
    assert len(truth.tables["answer"]) == 4 and len(truth.noise) == 40 - len(truth.heads) - len(truth.decoys)
    assert planted.build("functions").truth.heads["function"] == (1, 1)  # seed 0 has the places of the notes
    assert planted.build("functions", seed=4).truth.heads["function"] != (1, 1)


def test_options_that_a_model_does_not_have_are_refused() -> None:
    with pytest.raises(ModelError, match="the model 'induction' takes only seed="):
        planted.build("induction", rotate=True)
    with pytest.raises(ModelError, match=r"no option rotated=; a planted model takes .*rotate"):
        planted.build("functions", rotated=True)


def test_the_page_shows_the_tables_of_the_models() -> None:
    page = (Path(__file__).parents[2] / "docs/planted.md").read_text()
    rows = re.findall(r"\| ([01] [01] [01] [01] [01]) \| ([01] [01] [01] [01] [01]) \|", page)
    shown = [[tuple(map(int, cell.split())) for cell in column] for column in zip(*rows, strict=True)]
    assert shown == [list(pointers.TABLES.values()), list(pointers_positional.TABLES.values())]
    double = [tuple(map(int, row.split())) for row in re.findall(r"\| ((?:[01] ?){6})[|;]", page)]
    assert double == list(double_pointers.TABLES.values())[:-1]  # the last, all 0, shares a row
