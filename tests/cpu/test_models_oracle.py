"""Real models that nobody here made: inner activations computed by another program, and a story known beforehand."""

import base64
import json

import numpy as np
import pytest
import torch

from weft.ir.nodes import Site
from weft.models import load, tapped

pytestmark = pytest.mark.assets
PATH = "transformer.h.0"
OF_BLOCK_0 = {
    "x": Site("embed"),
    "q": Site("q", 0),
    "k": Site("k", 0),
    "v": Site("v", 0),
    "att": Site("scores", 0),
    "attSm": Site("pattern", 0),
    "y": Site("z", 0),
    "yProj": Site("attn_out", 0),
    "attnResid": Site("resid_mid", 0),
    "fc": Site("mlp_pre", 0),
    "gelu": Site("mlp_post", 0),
    "mlp": Site("mlp_out", 0),
    "mlpResid": Site("resid_post", 0),
    "block0": Site("resid_post", 0),
    "block1": Site("resid_post", 1),
    "block2": Site("resid_post", 2),
    "ln_f": Site("final_norm"),
    "lm_head": Site("logits"),
    "tok_emb": Site("module.output", None, "transformer.wte"),
    "pos_emb": Site("module.output", None, "transformer.wpe"),
    "ln1": Site("module.output", None, f"{PATH}.ln_1"),
    "qkv": Site("module.output", None, f"{PATH}.attn.c_attn"),
    "ln2": Site("module.output", None, f"{PATH}.ln_2"),
}


@pytest.fixture(scope="module")
def partials(assets):
    data = json.loads((assets / "hf-gpt-nano-sort" / "partials.json").read_text())
    return {
        name: torch.from_numpy(np.frombuffer(base64.b64decode(entry["data"]), "<f4").copy()).view(entry["shape"])
        for name, entry in data.items()
        if name != "config"
    }


@pytest.fixture(scope="module")
def seen(assets, partials):
    loaded, values = load(assets / "hf-gpt-nano-sort"), {}
    taps = {site: lambda value, site=site: values.update({site: value.clone()}) for site in set(OF_BLOCK_0.values())}
    with torch.no_grad(), tapped(loaded, taps):
        loaded.forward({"tokens": partials["idx"].long()})
    return values


def test_the_table_covers_every_entry(partials):
    assert set(partials) == {*OF_BLOCK_0, "idx", "probs"}


@pytest.mark.parametrize("name", OF_BLOCK_0)
def test_site_agrees_with_the_other_program(partials, seen, name):
    value = seen[OF_BLOCK_0[name]]
    if name in ("q", "k", "v"):
        value = value.transpose(1, 2)
    if name == "y":
        value = value.flatten(2)
    assert value.shape == partials[name].shape
    assert torch.allclose(value, partials[name], rtol=0, atol=1e-5)


def test_probabilities_agree(partials, seen):
    assert torch.allclose(seen[Site("logits")].softmax(-1), partials["probs"], rtol=0, atol=1e-5)


def test_nano_sort_sorts(assets):
    loaded = load(assets / "hf-gpt-nano-sort")
    ids, start = loaded.tokens.encode("CABBAC")
    for _ in range(6):
        ids = torch.cat([ids, loaded.forward({"tokens": ids[:, -11:]})[:, -1:].argmax(-1)], dim=1)
    assert loaded.tokens.decode(ids[0, 6:]) == "AABBCC" and start.tolist() == [0]


def test_stories_tells_its_story(assets):
    loaded = load(assets / "hf-stories260k")
    ids = torch.tensor([[loaded.tokens.bos_id]])
    with torch.no_grad():
        for _ in range(40):
            ids = torch.cat([ids, loaded.forward({"tokens": ids})[:, -1:].argmax(-1)], dim=1)
    text = loaded.tokens.decode(ids[0], skip_special=True)
    expected = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
    assert text.strip()[: len(expected)] == expected


def test_tinystories_prompts_of_different_lengths_keep_their_numbers(assets):
    loaded = load(assets / "hf-tinystories-656k")
    prompts = ["Once upon a time", "Lily", "The dog saw a big ball in the park"]
    ids, start = loaded.tokens.encode(prompts)
    with torch.no_grad():
        together = loaded.forward({"tokens": ids, "start": start})[:, -1]
        for row, prompt in enumerate(prompts):
            alone = loaded.forward({"tokens": loaded.tokens.encode(prompt).ids})[0, -1]
            assert torch.allclose(together[row], alone, atol=1e-5)


def test_a_folder_gives_what_transformers_gives(assets):
    from transformers import AutoModelForCausalLM

    loaded = load(assets / "hf-tinystories-656k", dtype="float32")
    plain = AutoModelForCausalLM.from_pretrained(assets / "hf-tinystories-656k", dtype=torch.float32)
    ids = torch.tensor([[1, 80, 147, 201]])
    assert torch.equal(loaded.forward({"tokens": ids}), plain(ids).logits)
    assert not loaded.module.training and loaded.name == "hf-tinystories-656k"
