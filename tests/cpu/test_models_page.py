"""`weft models`, and docs/models.md, which says what the tables say."""

from __future__ import annotations

import json
import re

import pytest
from tests.tiny import tiny_llama
from typer.testing import CliRunner

from weft.cli import app
from weft.cli.models import PAGE, mark, page, row
from weft.errors import NotFoundError
from weft.models import described, load
from weft.models.families import FAMILIES, STANDARD_SITES

ANEW = "docs/models.md is not what the tables say; write it anew: weft models --write-docs"


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["models", *arguments])
    if done.exception is not None:
        raise done.exception
    return done.stdout


def reasons() -> dict[str, int]:
    found = re.findall(r"^(\d+)\. (.+)\.$", PAGE.read_text(), re.MULTILINE)
    return {why[0].lower() + why[1:]: int(number) for number, why in found}


def test_the_page_is_of_these_tables() -> None:
    assert f"from the tables {mark()}" in PAGE.read_text(), ANEW


def test_every_type_has_its_row() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE) == described.model_types(), ANEW


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "mixtral", "lfm2_moe"])
def test_a_row_says_what_a_model_of_that_type_has(kind: str) -> None:
    numbered = reasons()
    assert row(described.described(kind), dict(numbered)) in PAGE.read_text(), ANEW


def test_no_blank_is_without_its_reason() -> None:
    text, numbered = PAGE.read_text(), set(reasons().values())
    used = {int(number) for number in re.findall(r"\| (\d+)(?:\\\*)? (?=\|)", text)}
    assert used == numbered and not re.search(r"\| *\|", text)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_page_is_what_the_tables_say() -> None:
    assert page([described.described(kind) for kind in described.model_types()]) == PAGE.read_text(), ANEW


def test_parallel_blocks_lack_the_stream_between() -> None:
    found = described.described("gpt_neox")
    assert "resid_mid" not in found.sites and "both read the stream" in found.absent["resid_mid"]
    assert found.sites == tuple(site for site in STANDARD_SITES if site in found.sites)


def test_a_type_whose_defaults_cannot_be_built_says_so(monkeypatch) -> None:
    def broken(model_type: str) -> None:
        raise TypeError("its default is None")

    monkeypatch.setattr(described, "default_model", broken)
    found = described.described("gpt2")
    assert found.failed == "TypeError: its default is None"
    assert row(found, {}).count("| 1 ") == len(STANDARD_SITES)


def test_every_family_is_listed() -> None:
    assert set(json.loads(run("--json"))) == set(FAMILIES)
    assert "mixtral" in run() and "weft models NAME" in run()


def test_one_type_is_shown_with_axes_and_reasons() -> None:
    said = run("gpt_neox")
    assert re.search(r"^  scores +batch head query_pos key_pos$", said, re.MULTILINE)
    assert re.search(r"^  resid_mid +none: attention and MLP both read", said, re.MULTILINE)
    assert json.loads(run("gpt_neox", "--json"))["axes"]["v"] == ["batch", "pos", "kv_head", "d_head"]


def test_a_folder_is_shown_without_its_weights(tmp_path) -> None:
    tiny_llama().save_pretrained(tmp_path / "mine")
    (tmp_path / "mine" / "model.safetensors").write_bytes(b"not to be read")
    assert "llama (LlamaForCausalLM), table llama" in run(str(tmp_path / "mine"))


def test_a_type_without_a_table_is_named_with_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="did you mean mixtral"):
        run("mixtrall")


def test_default_models_have_no_weights() -> None:
    assert all(each.is_meta for each in described.default_model("gpt2").parameters())
    assert load(described.default_model("gpt2")).card.sizes["n_layers"] == 12
