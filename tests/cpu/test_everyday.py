"""The everyday experiments: each against hooks written by hand, and through a server whose client has no hub cache."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import design_example
import pytest
import torch
from everyday_client import EXAMPLES, NAMES, example, run
from everyday_plain import BY_HAND
from plain import Plain
from safetensors.torch import load_file
from tests.tiny import tiny_gpt2, tiny_llama

import weft
from weft.planted.words import VOCABULARY, word_tokenizer
from weft.serve import ModelSpec, background

SIZES = {"vocab_size": len(VOCABULARY), "bos_token_id": 0, "eos_token_id": None}
MAKE = {
    "gpt2": lambda attention: louder(tiny_gpt2(1, attention, n_positions=32, **SIZES)),
    "llama": lambda attention: louder(tiny_llama(2, attention, max_position_embeddings=32, **SIZES)),
}
FAMILIES = list(MAKE)


def louder(module):
    """Larger weights, so that an effect lost altogether is far from 1e-5."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2.0 if parameter.dim() > 1 else 1.0)
    return module


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The tiny models as folders on disk."""
    found = {}
    for family in FAMILIES:
        found[family] = tmp_path_factory.mktemp(family)
        MAKE[family]("sdpa").save_pretrained(found[family])
        word_tokenizer().save_pretrained(found[family])
    return found


@pytest.fixture(scope="module")
def here(folders):
    """Each example's results and hashes in this process, by family and name, run when first asked for."""
    models = {family: weft.load(str(folder), name=family) for family, folder in folders.items()}
    known = {}

    def results(family: str, name: str):
        if (family, name) not in known:
            known[family, name] = run(name, models[family])
        return known[family, name]

    return results


@pytest.fixture(scope="module")
def server(folders, tmp_path_factory):
    specs = [ModelSpec(family, str(folder)) for family, folder in folders.items()]
    with background(specs, tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture(scope="module")
def client(server, tmp_path_factory):
    """What a client in another process, with an empty hub cache, got for each family: a folder."""
    known: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in known:
            out = known[family] = tmp_path_factory.mktemp(f"client-{family}")
            empty = tmp_path_factory.mktemp("empty-cache")
            environment = {**os.environ, "HF_HOME": str(empty), "HF_HUB_CACHE": str(empty / "hub")}
            command = [
                sys.executable,
                str(EXAMPLES.parents[1] / "tests/cpu/everyday_client.py"),
                server,
                family,
                str(out),
            ]
            done = subprocess.run(command, env=environment, cwd=empty, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr
            assert not list(empty.rglob("*.safetensors")) and not list(empty.rglob("tokenizer*"))
        return known[family]

    return folder


def equal(found, expected):
    assert list(found) == list(expected) or set(found) == set(expected)
    for name, value in expected.items():
        near = 1e-4 if name == "grid" else 1e-5  # a grid's cells are quotients by a small difference
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=near, msg=lambda text, n=name: f"{n}: {text}")


def test_there_are_twelve_and_each_fits_a_screen():
    assert set(NAMES) == set(BY_HAND) and len(NAMES) == 12
    for name in NAMES:
        text = (EXAMPLES / f"{name}.py").read_text()
        assert len(text.splitlines()) <= 40, name
        assert "weft." in text and "from weft." not in text and not re.search(r"\._(?!_)", text), (
            f"{name} uses more than the interface"
        )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_equals_hooks_by_hand(name, family, here):
    plain = Plain(MAKE[family]("eager"), word_tokenizer())
    equal(here(family, name)[0], BY_HAND[name](plain, example(name)))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_is_the_same_through_a_server(name, family, here, client):
    results, hashes = here(family, name)
    folder = client(family)
    equal(load_file(folder / f"{name}.safetensors"), results)
    assert json.loads((folder / "found.json").read_text())["hashes"][name] == hashes and hashes


@pytest.mark.parametrize("family", FAMILIES)
def test_a_job_is_fetched_by_another_process_than_the_one_that_submitted_it(family, here, client, server):
    job = json.loads((client(family) / "found.json").read_text())["job"]
    equal(example("submit_and_fetch").fetch(server, job), here(family, "submit_and_fetch")[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_designs_example_is_the_same_here_and_through_a_server(family, folders, server, tmp_path):
    results, hashes = design_example.run(weft.load(str(folders[family]), name=family))
    environment = {**os.environ, "HF_HOME": str(tmp_path / "empty")}
    command = [sys.executable, design_example.__file__, server, family, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    equal(load_file(tmp_path / "design.safetensors"), results)
    assert json.loads((tmp_path / "design.json").read_text()) == hashes


def test_an_example_runs_as_a_script():
    done = subprocess.run([sys.executable, EXAMPLES / "head_grid.py"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.startswith("tensor([["), done.stderr
