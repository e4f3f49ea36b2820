"""The model in the package: it loads under its name and anywhere, and does what its card says it does."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import weft
from weft import bobbin, tasks
from weft.bobbin import screen, tokenizer
from weft.bobbin.measure import suite

pytestmark = pytest.mark.skipif(
    not (bobbin.FOLDER / "model.safetensors").exists(), reason="the package has no trained weights"
)


@pytest.fixture(scope="module")
def model() -> Any:
    return weft.load("bobbin")


def test_it_loads_by_name_with_its_own_words(model: Any) -> None:
    assert model.d_vocab == tokenizer.build().get_vocab_size()
    text = "Q: robin\nA:"
    assert model.tokens.encode([text]).ids[0].tolist() == tokenizer.build().encode(text).ids


def test_any_tool_that_knows_llama_loads_it(model: Any) -> None:
    net, words = AutoModelForCausalLM.from_pretrained(bobbin.FOLDER), AutoTokenizer.from_pretrained(bobbin.FOLDER)
    text = "The capital of France is"
    with torch.no_grad():
        expected = net(**words(text, return_tensors="pt", return_token_type_ids=False)).logits
    with model.session() as session:
        logits = session.run(text).logits.save("logits")
    torch.testing.assert_close(logits.value, expected)


def test_the_weights_are_small_enough_to_ship() -> None:
    assert (bobbin.FOLDER / "model.safetensors").stat().st_size < 10e6


def test_it_loads_and_answers_a_prompt_of_each_task() -> None:
    model = weft.load("bobbin")
    right = [task.evaluate(model, n=1, seed=3).value for task in suite().values()]
    assert sum(right) > len(right) / 2


def test_bars_that_the_card_says_hold_hold(model: Any) -> None:
    card = (bobbin.FOLDER / "README.md").read_text()
    held = dict(re.findall(r"^\| (\w+) \| .* \| ≥ ([\d.]+) \| holds \|$", card, re.MULTILINE))
    checked = [name for name in held if name in suite()]
    assert {"functions_train", "translation", "belief"} <= set(checked)
    for name in checked:
        found = suite()[name].evaluate(model, n=40, seed=77)
        assert found.interval.high >= float(held[name]), name


def test_without_examples_a_word_does_not_say_what_to_do_with_it(model: Any) -> None:
    task = tasks.InContextFunctions(split="train", shots=4)
    asked = task.questions(40, seed=5)
    assert tasks.accuracy(model, asked, "exact").value - tasks.accuracy(model, task.bare(asked), "exact").value > 0.4


@pytest.mark.parametrize("name", ["induction", "predicates", "pointers_numbered"])
def test_a_mechanism_that_the_card_says_is_there_is_there(model: Any, name: str) -> None:
    card = (bobbin.FOLDER / "README.md").read_text()
    verdicts = dict(re.findall(r"^\| (\w+) \| \**(pass|fail)\** \| ", card, re.MULTILINE))
    net, words = bobbin.read()[0].eval(), tokenizer.build()
    found = {
        "induction": lambda: screen.induction(net, seed=5, n=8),
        "predicates": lambda: screen.predicates(net, words, 24, 5),
        "pointers_numbered": lambda: screen.pointers(net, words, 24, 5, layout="numbered"),
    }[name]()
    assert verdicts[name] == ("pass" if found.passed else "fail"), found.says
