"""Before the engine is trusted with a model: what it does is held against the reference, on this very class.

    the model's card, once:                  layers called once each in order, streams shaped [batch, pos, d_model]
    a tiny random copy, once for each kind of configuration and attention:
                                             real edits at the first layer and at each change of layer type, at the second
                                             position, a middle one and the last, beyond any window, padded and not
    the model itself, once:                  an edit that changes nothing must change nothing

A model that fails is run as the reference runs it, and `explain()` says why.
"""

from __future__ import annotations

import math
import struct
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from weft.execute.tinycopy import WINDOW, kinds_of, tiny_copy
from weft.ir.card import BATCH, POS, Card, Dim
from weft.ir.constant import BytesConstant
from weft.ir.nodes import Const, Experiment, Node, Op, Read, Ref, Run, Save, Site, ViewStep, Write
from weft.ir.outcome import Outcome
from weft.ir.types import TensorType

Way = Callable[[Any, Experiment], Outcome]

ROWS = ((3, 1, 4, 1, 5, 9, 2, 6, 5), (3, 1, 4, 2, 6, 5, 8, 7, 9))
STARTS = (0, 3)
"""Where the rows begin when they are padded on the left."""
assert len(ROWS[0]) > 2 * WINDOW
KINDS = ("full_attention", "sliding_attention", "chunked_attention")
"""Layers that keep nothing but keys and values; `layer_types` of a configuration may name others."""
_classes: dict[tuple[Any, ...], str] = {}
_models: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def distrust(loaded: Any, engine: Way, reference: Way) -> str:
    """Why the engine must not be used for this model; "" if it agrees with the reference."""
    module = loaded.module
    if module not in _models:
        reason = built(loaded)
        key = _kind(module)
        if not reason and key not in _classes:
            _classes[key] = _on_a_copy(loaded, engine, reference)
        _models[module] = reason or _classes[key] or _on_itself(loaded, engine, reference)
    return _models[module]


def _kind(module: Any) -> tuple[Any, ...]:
    """What makes one model's computation another's, sizes aside: its class and its configuration's switches."""
    config = module.config
    switches = {
        name: value if isinstance(value, bool | str | None) else bool(value)
        for name, value in vars(config).items()
        if isinstance(value, bool | str | int | float | None) and not name.startswith("_name")
    }
    return type(module), type(config), config._attn_implementation, tuple(kinds_of(config)), frozenset(switches.items())


# -- what the card says ----------------------------------------------------------------------------------------------------


def built(loaded: Any) -> str:
    """Why a model is not built as the engine takes it apart, as far as shapes and the order of modules tell; or ""."""
    others = [kind for kind in kinds_of(loaded.module.config) if kind not in KINDS]
    if others:
        return f"it has layers of type {others[0]!r}, which keep more than keys and values"
    return _called(loaded.card, loaded.family.layers) or _streams(loaded.card, loaded.family.layers)


def _called(card: Card, layers: str) -> str:
    """Whether each layer is called once, in order."""
    wanted = [f"{layers}.{layer}" for layer in range(card.sizes["n_layers"])]
    order: list[str] = []
    for spec in card.sites:
        site = spec.site
        if site.path in wanted and site.name == "module.output" and site.item in ("", "0"):
            if site.call:
                return f"it calls layer {wanted.index(site.path)} more than once"
            order.append(site.path)
    if order == wanted:
        return ""
    missing = [number for number, path in enumerate(wanted) if path not in order]
    return f"it never calls layer {missing[0]}" if missing else "it calls its layers in another order"


def _streams(card: Card, layers: str) -> str:
    """Whether what goes into and comes out of each layer is [batch, pos, d_model]."""
    stream = (BATCH, POS, Dim(card.sizes["d_model"]))
    for layer in range(card.sizes["n_layers"]):
        for side in ("input", "output"):
            sites = [Site(f"module.{side}", None, f"{layers}.{layer}", 0, item) for item in ("", "0")]
            spec = next((card.by_site[site][1] for site in sites if site in card.by_site), None)
            if spec is None or spec.dims != stream:
                return f"the stream at the {side} of layer {layer} is not shaped [batch, pos, d_model]"
    return ""


# -- what the numbers say --------------------------------------------------------------------------------------------------


class Edit(NamedTuple):
    """A run of the trial: one position of a site scaled."""

    site: Site
    position: int
    padded: bool

    def __str__(self) -> str:
        return f"{self.site} edited at position {self.position}{' of padded rows' if self.padded else ''}"


def _on_a_copy(loaded: Any, engine: Way, reference: Way) -> str:
    try:
        tiny = tiny_copy(loaded)
        worst, edit = _difference(tiny, _edits(ROWS, _sites(tiny)), 1.5, engine, reference)
    except Exception as error:  # whatever a class does that the engine does not expect is a reason not to use it
        return f"on a tiny copy of it the engine failed: {_said(error)}"
    if worst < 1e-4:
        return ""
    return (
        f"on a tiny copy of it, with {edit}, a suffix computed from keys and values gives other logits (by {worst:.1e} of "
        "the largest): it keeps something else between positions, or computes attention in a way of its own"
    )


def _sites(tiny: Any) -> list[Site]:
    """Sites of the first layer, of each at which the type changes, and of the last; those that the model has."""
    kinds, layers = list(getattr(tiny.module.config, "layer_types", None) or ()), tiny.card.sizes["n_layers"]
    changes = {layer for layer in range(1, len(kinds)) if kinds[layer] != kinds[layer - 1]}
    marks = sorted({0, *changes, layers - 1})
    sites = [Site("embed"), *(Site(name, layer) for layer in marks for name in ("k", "resid_post"))]
    return [site for site in sites if site in tiny.card.by_site]


def _on_itself(loaded: Any, engine: Way, reference: Way) -> str:
    top = min(loaded.card.sizes["d_vocab"], 10)
    rows = tuple(tuple(token % top for token in row[:5]) for row in ROWS)
    half = loaded.card.dtype not in ("float32", "float64")
    edits = [Edit(Site("resid_post", 0), position, False) for position in (1, 2, 4)]
    try:
        worst, edit = _difference(loaded, (rows, edits), 1.0, engine, reference, _mean_apart if half else None)
    except Exception as error:
        return f"the engine failed on it: {_said(error)}"
    return "" if worst < (0.1 if half else 1e-3) else f"with {edit}, by nothing, its logits change by {worst:.1e}"


def _said(error: Exception) -> str:
    return f"{str(error).splitlines()[0][:160]} ({type(error).__name__})" if str(error) else type(error).__name__


def _edits(rows: tuple[tuple[int, ...], ...], sites: list[Site]) -> tuple[tuple[tuple[int, ...], ...], list[Edit]]:
    """Each site edited at the second position, a middle one and the last, padded and not."""
    length = len(rows[0])
    places = [(at, False) for at in (1, length // 2, length - 1)]
    places += [(at, True) for at in (max(STARTS) + 1, (length + max(STARTS)) // 2, length - 1)]
    return rows, [Edit(site, *place) for site in sites for place in places]


def _difference(
    loaded: Any,
    given: tuple[tuple[tuple[int, ...], ...], list[Edit]],
    scale: float,
    engine: Way,
    reference: Way,
    apart: Callable[[torch.Tensor, torch.Tensor], float] | None = None,
) -> tuple[float, Edit]:
    """The largest difference between the logits of both ways (by `apart`), and with which edit."""
    rows, edits = given
    experiment = _experiment(rows, edits, scale)
    a, b = engine(loaded, experiment).values, reference(loaded, experiment).values
    worst, where = 0.0, edits[0]
    for number, edit in enumerate(edits):
        for name in (f"{number}", f"base {int(edit.padded)}"):
            here = (apart or _apart)(a[name], b[name])
            if here > worst:
                worst, where = here, edit
    return worst, where


def _apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, of the largest value."""
    scale = float(b.abs().max()) or 1.0
    apart = float((a - b).abs().max()) / scale
    return math.inf if math.isnan(apart) else apart


def _mean_apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """For half precision: a token that is sent to another expert, because two were as good, moves the largest difference
    but not the mean. Right models came to 0.02 at most, logits of neighbouring positions to 0.4 at least."""
    apart = float((a - b).double().abs().mean()) / (float(b.double().abs().mean()) or 1.0)
    return math.inf if math.isnan(apart) else apart


def _experiment(rows: tuple[tuple[int, ...], ...], edits: list[Edit], scale: float) -> Experiment:
    """The logits without edits, and with each of them."""
    nodes: list[Node] = [_constant(rows), _constant((STARTS,), 1)]
    inputs = {False: (("tokens", Ref(0)),), True: (("tokens", Ref(0)), ("start", Ref(1)))}
    for padded in sorted({edit.padded for edit in edits}):
        nodes += [Run("tokens", inputs[padded]), Read(len(nodes), Site("logits"))]
        nodes.append(Save(f"base {int(padded)}", Ref(len(nodes) - 1)))
    for number, edit in enumerate(edits):
        at = len(nodes)
        nodes += [
            Run("tokens", inputs[edit.padded]),
            Read(at, edit.site),
            Op("select.int", (Ref(at + 1), 1, edit.position)),
            Op("mul.Scalar", (Ref(at + 2), scale)),
            Write(Ref(at + 1), (ViewStep("select.int", (1, edit.position)),), Ref(at + 3)),
            Read(at, Site("logits")),
            Save(f"{number}", Ref(at + 5)),
        ]
    return Experiment(tuple(nodes))


def _constant(rows: tuple[tuple[int, ...], ...], dims: int = 2) -> Const:
    flat = [item for row in rows for item in row]
    shape = (len(rows), len(rows[0])) if dims == 2 else (len(flat),)
    return Const(BytesConstant(TensorType("int64", shape), struct.pack(f"<{len(flat)}q", *flat)))
