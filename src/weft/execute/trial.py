"""Before the engine is trusted with a model: what it does is held against the reference, on this very class.

    on a tiny random copy, once for each class and attention:   real edits at several sites and positions
    on the model itself, once:                                  an edit that changes nothing must change nothing

A model that fails is run as the reference runs it, and `explain()` says why.
"""

from __future__ import annotations

import copy
import struct
import weakref
from collections.abc import Callable
from typing import Any

import torch

from weft.ir.constant import BytesConstant
from weft.ir.nodes import Const, Experiment, Node, Op, Read, Ref, Run, Save, Site, ViewStep, Write
from weft.ir.outcome import Outcome
from weft.ir.types import TensorType

Way = Callable[[Any, Experiment], Outcome]

ROWS = ((3, 1, 4, 1, 5, 9, 2), (3, 1, 4, 2, 6, 5, 8))
_classes: dict[tuple[Any, ...], str] = {}
_models: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def distrust(loaded: Any, engine: Way, reference: Way) -> str:
    """Why the engine must not be used for this model; "" if it agrees with the reference."""
    module = loaded.module
    if module not in _models:
        key = (type(module), type(module.config), module.config._attn_implementation)
        if key not in _classes:
            _classes[key] = _on_a_copy(loaded, engine, reference)
        _models[module] = _classes[key] or _on_itself(loaded, engine, reference)
    return _models[module]


def _on_a_copy(loaded: Any, engine: Way, reference: Way) -> str:
    try:
        tiny = tiny_copy(loaded)
        scale, layers = 1.5, tiny.card.sizes["n_layers"]
        sites = [Site("embed"), Site("resid_post", 0), Site("z", 1), Site("k", 1), Site("mlp_out", layers - 1)]
        difference = _difference(tiny, _edits(ROWS, sites, scale), engine, reference)
    except Exception as error:  # whatever a class does that the engine does not expect is a reason not to use it
        return f"on a tiny copy of it the engine failed ({type(error).__name__}: {str(error).splitlines()[0][:120]})"
    return (
        "" if difference < 1e-4 else f"on a tiny copy of it the engine differs from the reference by {difference:.1e}"
    )


def _on_itself(loaded: Any, engine: Way, reference: Way) -> str:
    top = min(loaded.card.sizes["d_vocab"], 10)
    rows = tuple(tuple(token % top for token in row[:5]) for row in ROWS)
    tolerance = 1e-3 if loaded.card.dtype in ("float32", "float64") else 5e-2
    try:
        difference = _difference(loaded, _edits(rows, [Site("resid_post", 0)], 1.0), engine, reference)
    except Exception as error:
        return f"the engine failed on it ({type(error).__name__}: {str(error).splitlines()[0][:120]})"
    return "" if difference < tolerance else f"an edit of nothing changes its logits by {difference:.1e}"


def _difference(loaded: Any, experiment: Experiment, engine: Way, reference: Way) -> float:
    """The largest difference, relative to the largest value."""
    a, b = engine(loaded, experiment).values, reference(loaded, experiment).values
    worst = 0.0
    for name, value in b.items():
        scale = float(value.abs().max()) or 1.0
        worst = max(worst, float((a[name] - value).abs().max()) / scale)
    return worst


def _edits(rows: tuple[tuple[int, ...], ...], sites: list[Site], scale: float) -> Experiment:
    """The logits without edits, and with each site scaled at position 1, a middle one and the last."""
    length = len(rows[0])
    data = struct.pack(f"<{len(rows) * length}q", *(token for row in rows for token in row))
    nodes: list[Node] = [Const(BytesConstant(TensorType("int64", (len(rows), length)), data))]
    inputs = (("tokens", Ref(0)),)
    nodes += [Run("tokens", inputs), Read(1, Site("logits")), Save("base", Ref(2))]
    for site in sites:
        for position in (1, length // 2, length - 1):
            at = len(nodes)
            nodes += [
                Run("tokens", inputs),
                Read(at, site),
                Op("select.int", (Ref(at + 1), 1, position)),
                Op("mul.Scalar", (Ref(at + 2), scale)),
                Write(Ref(at + 1), (ViewStep("select.int", (1, position)),), Ref(at + 3)),
                Read(at, Site("logits")),
                Save(f"{site} {position}", Ref(at + 5)),
            ]
    return Experiment(tuple(nodes))


def tiny_copy(loaded: Any) -> Any:
    """A small random model of the same class, with everything else in its configuration as it is."""
    from weft.models import load

    config = copy.deepcopy(loaded.module.config)
    shared = loaded.card.sizes["n_kv_heads"] != loaded.card.sizes["n_heads"]
    small = {
        "num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2 if shared else 4,
        "head_dim": 8, "intermediate_size": 48, "n_inner": 48, "vocab_size": 23,
        "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
    }  # fmt: skip
    for name, value in small.items():
        if hasattr(config, name):
            setattr(config, name, value)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = type(loaded.module)(config).eval()
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, 0.0 if parameter.dim() > 1 else 0.5, 0.3)
    return load(module, name="trial")
