"""Text, canonical bytes and hash of known experiments, as files.

A file that no longer agrees means that the schema changed: every experiment kept so far would hash differently. If that
is meant, raise SCHEMA and write the files anew: `PYTHONPATH=src:tests python tests/golden/test_golden.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes import fake_card
from golden.programs import PROGRAMS
from weft.ir.check import check
from weft.ir.codec import constants_of, decode, encode
from weft.ir.hash import content_hash, program_bytes
from weft.ir.nodes import Experiment, all_nodes
from weft.ir.text import parse, render

HERE = Path(__file__).parent


def shown(experiment: Experiment) -> str:
    """The text form with types where a decoder's card gives them, and the hash as a comment."""
    decoder = any(getattr(node, "kind", "") in ("tokens", "generate") for node in all_nodes(experiment.nodes))
    types = check(experiment, fake_card()).types if decoder else None
    return f"# {content_hash(experiment)}\n" + render(experiment, types)


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_text_is_as_it_was(name: str) -> None:
    assert shown(PROGRAMS[name]()) == (HERE / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_bytes_are_as_they_were(name: str) -> None:
    assert program_bytes(PROGRAMS[name]()) == (HERE / f"{name}.json").read_bytes()


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_text_reads_back_as_the_same_experiment(name: str) -> None:
    experiment = PROGRAMS[name]()
    read = parse((HERE / f"{name}.txt").read_text(encoding="utf-8"), constants_of(experiment))
    assert read == experiment
    assert decode(encode(read)) == experiment


def write() -> None:
    for name, make in PROGRAMS.items():
        (HERE / f"{name}.txt").write_text(shown(make()), encoding="utf-8")
        (HERE / f"{name}.json").write_bytes(program_bytes(make()))


if __name__ == "__main__":
    write()
