"""Small experiments and their server, for the tests of this folder."""

from __future__ import annotations

import struct
from pathlib import Path

from weft.errors import Location
from weft.ir.constant import BytesConstant
from weft.ir.nodes import Const, Experiment, Ref, Save
from weft.ir.types import TensorType
from weft.serve import ModelSpec

NAME = "planted/induction"
"""A real model, small and built in."""


def fake(folder: Path, name: str = "fake", source: str = "", **options: str) -> ModelSpec:
    """The fake model; `folder` remembers that it has died once."""
    return ModelSpec(name, source, "fake_engine:load", {"marker": str(folder / "died"), **options})


def saving(name: str, *numbers: float) -> Experiment:
    """An experiment that saves a constant under `name`: the name says what the fake engine does."""
    data = BytesConstant(TensorType("float32", (len(numbers),)), struct.pack(f"<{len(numbers)}f", *numbers))
    here = Location("mine.py", 7, f"x.save({name!r})")
    return Experiment((Const(data), Save(name, Ref(0))), (here, here))
