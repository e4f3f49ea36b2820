"""The benchmark that holds engines against one another: it finds no fault in weft, and finds one that is put there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from agreeing import checkpoints, engines  # noqa: E402
from agreeing.identity import CLOSE, Truth  # noqa: E402
from agreeing.verdicts import Own, Verdicts, judge, wrong  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def saved(folder):
    makers = checkpoints.makers()
    return lambda kind: checkpoints.save(kind, makers[kind], folder)


@pytest.mark.parametrize("kind", ["gpt2", "gemma2", "mixtral"])
def test_weft_is_nowhere_wrong(kind, saved) -> None:
    where = saved(kind)
    truth, own, found = Truth(where, engines.weft(where)), Own(), Verdicts("plain hooks")
    own.add(kind, truth)
    judge(found, kind, engines.hooks(where), truth)
    assert own.held > 30 and not own.broken and not wrong(found)


def test_a_norm_after_the_sublayer_is_missed_by_a_hook_on_it_and_told(saved) -> None:
    where = saved("gemma2")
    found = Verdicts("plain hooks")
    judge(found, "gemma2", engines.hooks(where), Truth(where, engines.weft(where)))
    assert [site for site, cell in found.cells["gemma2"].items() if cell == "W"] == ["attn_out", "mlp_out"]
    assert found.cells["gemma2"]["scores"] == "–" and found.cells["gemma2"]["z"] == "="


@pytest.mark.parametrize("site", [
    "embed", "q.1", "k.1", "v.1", "q_rot.1", "k_rot.1", "scores.1", "pattern.1", "z.1", "head_out.1", "attn_out.1",
    "resid_mid.1", "mlp_pre.1", "mlp_post.1", "mlp_out.1", "resid_post.1", "final_norm", "logits",
])  # fmt: skip
def test_a_wrong_value_is_off_its_identity(site, saved) -> None:
    where = saved("llama")
    values = engines.weft(where)
    truth = Truth(where, values)
    assert truth.off(site, values) < CLOSE
    other = torch.randn(values[site].shape, generator=torch.Generator().manual_seed(0))
    assert truth.off(site, {**values, site: values[site] + 0.1 * other}) > 10 * CLOSE


def test_where_weft_is_wrong_it_is_told(saved) -> None:
    where = saved("llama")
    right = engines.weft(where)
    truth = Truth(where, {**right, "mlp_post.2": right["mlp_post.2"] * 1.1})
    own, found = Own(), Verdicts("plain hooks")
    own.add("llama", truth)
    judge(found, "llama", engines.hooks(where), truth)
    assert wrong(found) == ["plain hooks: llama mlp_post"] and found.cells["llama"]["mlp_post"] == "T"
    assert [each.split(":")[0] for each in own.broken] == ["llama mlp_post.2"]


def test_the_page_has_families_that_there_are_and_no_fault_of_wefts() -> None:
    text = (ROOT / "docs" / "agreement.md").read_text()
    part = text.split("## plain hooks")[1].split("##")[0]
    rows = [row for row in re.findall(r"^\| ([^|`-]+) \|", part, re.MULTILINE) if row.strip()]
    assert len(rows) > 60 and set(rows) <= set(checkpoints.makers()), "write it anew: weft bench agreement --write-docs"
    assert "and 0 do not" in text and not re.search(r"^\* `[NT?]`", part, re.MULTILINE)
