"""Models that other people trained: their known text, batches of different lengths, sampling, stops."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from plain import Plain

import weft
from weft.serve import ModelSpec, background

LILY = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
PROMPTS = [
    "Once upon a time",
    "The dog was very happy because he",
    "One day, a girl named Sue went to the park with her mom and saw a",
]
pytestmark = pytest.mark.assets


@pytest.fixture(scope="module")
def stories(assets):
    return weft.load(str(assets / "hf-stories260k"))


@pytest.fixture(scope="module")
def tiny(assets):
    return weft.load(str(assets / "hf-tinystories-656k"))


def by_hand(folder):
    from transformers import AutoModelForCausalLM

    return Plain(AutoModelForCausalLM.from_pretrained(folder).eval())


# -- hf-stories260k ---


def test_greedy_text_is_the_expected_one(stories):
    bos = torch.tensor([[stories.tokens.bos_id]])
    with stories.session() as s:
        g = s.generate(bos, max_new_tokens=200)
    assert g.text[0].startswith(LILY)
    assert g.lengths.tolist() == [200] and g.tokens.shape == (1, 200)


def test_an_edit_at_each_step_equals_a_loop_of_hooks(stories, assets):
    """Each step adds another multiple of a vector to the last position, as the model writes; the cache keeps them all."""
    plain, steps = by_hand(assets / "hf-stories260k"), 20
    vector = torch.randn(plain.d_model, generator=torch.Generator().manual_seed(0))
    with stories.session() as s:
        g = s.generate(torch.tensor([[1]]), max_new_tokens=steps)
        for i in range(steps):
            g.step(i).resid_post[2][:, -1] += vector * (i % 4) / 3
            g.step(i).logits[:, -1].save(f"logits {i}")
    ids = torch.tensor([[1]])
    for i in range(steps):
        change = torch.tensor([j % 4 / 3 for j in range(i + 1)])[:, None] * vector
        logits = plain.logits(ids, [plain.after(plain.layers[2], lambda x, c=change: x + c)])[:, -1]
        torch.testing.assert_close(s.results[f"logits {i}"], logits, rtol=1e-5, atol=3e-5)
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], 1)
    assert g.tokens.tolist() == ids[:, 1:].tolist()
    with stories.session() as s:
        unedited = s.generate(torch.tensor([[1]]), max_new_tokens=steps)
    assert g.tokens.tolist() != unedited.tokens.tolist()


def test_writing_the_logits_chooses_the_token(stories):
    with stories.session() as s:
        g = s.generate(torch.tensor([[1]]), max_new_tokens=5)
        g.step(2).logits[:, -1] = -1.0
        g.step(2).logits[:, -1, 300] = 1.0
    assert g.tokens[0, 2] == 300


def test_each_reads_and_writes_every_step(stories, assets):
    plain, steps = by_hand(assets / "hf-stories260k"), 6
    prompt = torch.tensor([[1, 403, 407]])
    vector = torch.randn(plain.d_model, generator=torch.Generator().manual_seed(1)) / 2
    with stories.session() as s:
        g = s.generate(prompt, max_new_tokens=steps)
        g.each.resid_post[1] += vector
        late = g.each.resid_post[3].save("late")
        g.each.logits.save("logits")
        one = g.step(4).resid_post[3].save("one")
    assert late.shape == (steps, 1, 1, plain.d_model)
    ids = prompt
    for i in range(steps):
        change = torch.zeros(ids.shape[1], 1)
        change[2:] = 1
        edit = plain.after(plain.layers[1], lambda x, c=change: x + c * vector)
        expected = plain.resid(3, ids, [edit])[:, -1]
        torch.testing.assert_close(late.value[i, :, 0], expected, rtol=1e-5, atol=3e-5)
        logits = plain.logits(ids, [edit])[:, -1]
        torch.testing.assert_close(s.results["logits"][i, :, 0], logits, rtol=1e-5, atol=3e-5)
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], 1)
    torch.testing.assert_close(one.value, late.value[4], rtol=0, atol=0)
    assert g.tokens.tolist() == ids[:, 3:].tolist()


# -- hf-tinystories-656k ---


def experiment(model, prompts):
    """Numbers at several sites, an edit, and a generation."""
    with model.session() as s:
        run = s.run(prompts)
        run.resid_post[0][run.rows, run.at(1)] *= 0.5
        run.logits[:, -1].save("logits")
        run.z[1][:, -1].save("z")
        run.pattern[1][:, :, -1].save("pattern")
        s.generate(prompts, max_new_tokens=8).tokens.save("tokens")
    return s


def own(results, row):
    """A row's own numbers: padding is on the left, and reads as 0."""
    return {name: value[row : row + 1] for name, value in results.items()}


def test_a_batch_of_different_lengths_gives_each_prompts_own_numbers(tiny):
    together = experiment(tiny, PROMPTS).results
    for row, prompt in enumerate(PROMPTS):
        alone = experiment(tiny, [prompt]).results
        for name, value in own(together, row).items():
            width = alone[name].shape[-1] if name == "pattern" else None
            if width is not None:
                assert not value[..., :-width].any()
                value = value[..., -width:]
            torch.testing.assert_close(value, alone[name], rtol=1e-5, atol=1e-5)


CLIENT = """
import sys, json, torch
from safetensors.torch import save_file
sys.path.insert(0, sys.argv[3])
from test_assets import PROMPTS, experiment
import weft
s = experiment(weft.connect(sys.argv[1]).model("tiny"), PROMPTS)
save_file({k: v.contiguous() for k, v in s.results.items()}, sys.argv[2], {"hash": s.record.experiment_hash})
"""


def test_and_the_same_through_a_server_with_an_empty_hub_cache(tiny, assets, tmp_path):
    from pathlib import Path

    from safetensors import safe_open

    specs = [ModelSpec("tiny", str(assets / "hf-tinystories-656k"))]
    here = experiment(tiny, PROMPTS)
    with background(specs, tmp_path / "server") as url:
        (tmp_path / "empty").mkdir()
        command = [sys.executable, "-c", CLIENT, url, str(tmp_path / "out"), str(Path(__file__).parent)]
        import os

        environment = {**os.environ, "HF_HOME": str(tmp_path / "empty")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    with safe_open(tmp_path / "out", "pt") as file:
        assert file.metadata()["hash"] == here.record.experiment_hash
        for name, value in here.results.items():
            torch.testing.assert_close(file.get_tensor(name), value, rtol=1e-5, atol=1e-5)


def sampled(model, prompts, **options):
    with model.session() as s:
        g = s.generate(prompts, max_new_tokens=12, temperature=0.9, top_p=0.9, **options)
    return g.tokens.tolist()


def test_sampling_depends_on_the_seed_and_not_on_the_neighbours(tiny):
    first = sampled(tiny, [PROMPTS[0], PROMPTS[1]], seed=3)
    assert sampled(tiny, [PROMPTS[0], PROMPTS[2]], seed=3)[0] == first[0]
    assert sampled(tiny, [PROMPTS[2], PROMPTS[1], PROMPTS[0]], seed=3)[1] == first[1]
    assert sampled(tiny, [PROMPTS[0], PROMPTS[1]], seed=3) == first
    assert sampled(tiny, [PROMPTS[0], PROMPTS[1]], seed=4) != first


def test_top_p_near_nothing_is_greedy(tiny):
    with tiny.session() as s:
        greedy = s.generate(PROMPTS, max_new_tokens=6)
        sure = s.generate(PROMPTS, max_new_tokens=6, temperature=1.0, top_p=1e-6, seed=1)
    assert greedy.tokens.tolist() == sure.tokens.tolist()


def test_a_text_ends_its_row_and_no_other(tiny):
    with tiny.session() as s:
        whole = s.generate(PROMPTS, max_new_tokens=24)
        ended = s.generate(PROMPTS, max_new_tokens=24, stop=["."])
        ended.each.logits[:, 0].amax(-1).save("largest logit")
    lengths = ended.lengths.tolist()
    assert min(lengths) < max(lengths) or max(lengths) < 24
    for row, (text, length) in enumerate(zip(ended.text, lengths, strict=True)):
        kept = whole.tokens[row, :length].tolist()
        assert ended.tokens[row, :length].tolist() == kept
        assert ("." in text) == (length < 24 or "." in text)
        assert "." not in tiny.tokens.decode(kept[:-1])


def test_a_token_ends_its_row(tiny):
    with tiny.session() as s:
        g = s.generate(PROMPTS[0], max_new_tokens=10)
    third = int(g.tokens[0, 2])
    with tiny.session() as s:
        ended = s.generate(PROMPTS[0], max_new_tokens=10, stop=[third])
    assert int(ended.lengths[0]) == g.tokens[0].tolist().index(third) + 1
