"""Before generations of a model are decoded together: two of them on a tiny random copy, against the reference.

Steered at each step, on padded rows and on whole ones, longer than the copy's windows. Where they differ, the reference
runs generations of this model, and `explain()` says why.
"""

from __future__ import annotations

import struct
import weakref
from typing import Any

import torch

from weft.execute.tinycopy import tiny_copy
from weft.execute.trial import ROWS, STARTS, Way
from weft.ir.constant import BytesConstant
from weft.ir.nodes import EACH, Const, Experiment, Node, Op, Read, Ref, Run, Save, Site, Write
from weft.ir.types import TensorType

STEPS = 5
_models: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def undecoded(loaded: Any, together: Way, reference: Way) -> str:
    """Why generations of this model must not be decoded together; "" if they agree with the reference."""
    if loaded.module not in _models:
        _models[loaded.module] = _tried(loaded, together, reference)
    return _models[loaded.module]


def _tried(loaded: Any, together: Way, reference: Way) -> str:
    try:
        tiny = tiny_copy(loaded)
        _models[tiny.module] = ""  # the trial itself is not held up by a trial
        a, b = together(tiny, _steered()).values, reference(tiny, _steered()).values
    except Exception as error:  # whatever a class does that is not expected is a reason not to use it
        said = str(error).splitlines()[0][:160] if str(error) else ""
        return f"generations of a tiny copy of it failed side by side: {said} ({type(error).__name__})"
    worst = max(_apart(a[name], b[name]) for name in b)
    return "" if worst < 1e-4 else f"on a tiny copy of it, generations side by side have other logits (by {worst:.1e})"


def _apart(a: torch.Tensor, b: torch.Tensor) -> float:
    difference = float((a - b).abs().max()) / (float(b.abs().max()) or 1.0)
    return difference if difference == difference else float("inf")


def _steered() -> Experiment:
    """Logits of every step, with the first layer's stream scaled at each."""
    nodes: list[Node] = [_constant(ROWS, (len(ROWS), len(ROWS[0]))), _constant((STARTS,), (len(STARTS),))]
    for name, inputs in (("whole", (("tokens", Ref(0)),)), ("padded", (("tokens", Ref(0)), ("start", Ref(1))))):
        at = len(nodes)
        nodes += [
            Run("generate", inputs, (("max_new_tokens", STEPS),)),
            Read(at, Site("resid_post", 0), EACH),
            Op("mul.Scalar", (Ref(at + 1), 1.5)),
            Write(Ref(at + 1), (), Ref(at + 2)),
            Read(at, Site("logits"), EACH),
            Save(name, Ref(at + 4)),
        ]
    return Experiment(tuple(nodes))


def _constant(rows: tuple[tuple[int, ...], ...], shape: tuple[int, ...]) -> Const:
    flat = [item for row in rows for item in row]
    return Const(BytesConstant(TensorType("int64", shape), struct.pack(f"<{len(flat)}q", *flat)))
