"""Whether a run is one that the model can make, and what its sites then hold.

info = check_run(node, inputs, card, limits)          # inputs: the run's constants by name
read_type(info, Site("z", 5), None)                   # float32[2, 7, 4, 16]
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, cast

from weft.errors import BoundsError, DtypeError, LimitError, ProgramError, ShapeError, SiteError
from weft.ir.card import Card, SiteSpec
from weft.ir.limits import Limits, hold
from weft.ir.nodes import EACH, ConstantData, Run, Site
from weft.ir.types import TensorType

OUTPUTS = ("tokens", "lengths")
"""What a generation gives besides the sites of its steps: the new tokens [batch, max_new_tokens], the rows' lengths."""

KINDS = {"decoder": ("tokens", "generate"), "module": ("tensors",)}


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A checked run: its batch and positions, how many steps it has (0 for a plain run), and the card of its sites."""

    kind: str
    batch: int
    pos: int
    steps: int
    card: Card

    @property
    def layer_tokens(self) -> int:
        """Layers × rows × positions that the whole run takes."""
        return self.card.sizes.get("n_layers", 1) * self.batch * (self.pos + max(self.steps - 1, 0))


Extremes = dict[int, tuple[int, int]]
"""The least and the greatest number in a constant, by the identity of its data: runs share their tokens."""


def check_run(
    node: Run, inputs: Mapping[str, ConstantData], card: Card, limits: Limits, known: Extremes | None = None
) -> RunInfo:
    """The run's sizes; an error if its inputs or options are not what this kind of run on this model takes.

    `known` remembers from run to run what has been looked at, for as long as the constants live.
    """
    legal = KINDS.get(card.kind, ())
    if node.kind not in legal:
        raise ProgramError(f"a run of kind {node.kind[:40]!r} is not for {card.name}; it takes {' or '.join(legal)}")
    if node.kind == "tensors":
        return _tensors(node, inputs, card)
    batch, pos = _tokens(inputs, card, {} if known is None else known)
    steps = _options(dict(_once(node.options, "option")), card, limits) if node.kind == "generate" else 0
    if node.kind == "tokens" and node.options:
        raise ProgramError(f"a run of kind 'tokens' takes no options, was given {node.options[0][0][:40]!r}")
    if card.max_positions and pos + max(steps - 1, 0) > card.max_positions:
        raise LimitError(
            f"{pos + max(steps - 1, 0)} positions ({pos} given{f', {steps} new tokens' if steps else ''}), but "
            f"{card.name} takes at most {card.max_positions}"
        )
    info = RunInfo(node.kind, batch, pos, steps, card)
    hold(limits, "layer_tokens", info.layer_tokens)
    return info


def read_type(info: RunInfo, site: Site, step: int | None) -> TensorType:
    """The type of a site in a run; SiteError if it is not there to be read."""
    if info.steps and site.name in OUTPUTS and not site.path:
        if step is not None or site != Site(site.name):
            raise SiteError(f"{site.name} belongs to the whole generation: it is read without layer and step")
        return TensorType("int64", (info.batch, info.steps) if site.name == "tokens" else (info.batch,))
    spec = site_spec(info.card, site)
    if not info.steps:
        if step is not None:
            raise SiteError(f"{site} is read at step {step}, but this run is no generation and has no steps")
        return spec.type(info.batch, info.pos)
    if step is None:
        raise SiteError(f"{site} of a generation is read at a step, g.step(i), or at each, g.each")
    if step == EACH:
        if any(dim.key for dim in spec.dims):
            raise SiteError(f"{site} grows from step to step, so it cannot be read at each; read it at g.step(i)")
        return spec.type(info.batch, 1)
    if not 0 <= step < info.steps:
        raise BoundsError(f"step {step} of a generation of {info.steps} new tokens: steps are 0 to {info.steps - 1}")
    return spec.type(info.batch, info.pos) if step == 0 else spec.type(info.batch, 1, info.pos + step)


def site_spec(card: Card, site: Site) -> SiteSpec:
    """The card's entry for `site`; SiteError with the reason it is absent, its layers, or the nearest names."""
    if (found := card.by_site.get(site)) is not None:
        return found[1]
    shown = str(site)[:120]
    if reason := card.why_absent(site):
        name = site.name if site.name in card.absent else shown
        raise SiteError(f"{card.name} has no {name}: {reason}")
    layers = card.layers_of.get(site.name)
    if layers is not None and not site.path:
        raise SiteError(f"{card.name} has no site {shown}: {site.name} has layers 0 to {layers - 1}")
    names = {str(spec.site) if site.path else spec.site.name for spec in card.sites}
    near = get_close_matches(shown if site.path else site.name[:120], names, n=3)
    raise SiteError(f"{card.name} has no site {shown}" + (f"; near it: {', '.join(near)}" if near else ""))


def _once(pairs: tuple[tuple[str, object], ...], what: str) -> tuple[tuple[str, object], ...]:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise ProgramError(f"the {what} {name[:40]!r} is given twice")
        seen.add(name)
    return pairs


def _tensors(node: Run, inputs: Mapping[str, ConstantData], card: Card) -> RunInfo:
    if not inputs or node.options:
        raise ProgramError("a run of kind 'tensors' takes at least one tensor by keyword, and no options")
    for name in inputs:
        if not name.isidentifier():
            raise ProgramError(f"{name[:40]!r} cannot be the keyword of a tensor: it is no Python name")
    shape = next(iter(inputs.values())).type.shape
    return RunInfo("tensors", shape[0] if shape else 1, shape[1] if len(shape) > 1 else 1, 0, card)


def _tokens(inputs: Mapping[str, ConstantData], card: Card, known: Extremes) -> tuple[int, int]:
    """Batch and positions of the run's tokens, each a token of the model's, each row beginning before its end."""
    odd = inputs.keys() - {"tokens", "start"}
    if odd or "tokens" not in inputs:
        given = ", ".join(repr(name[:40]) for name in list(inputs)[:5]) or "nothing"
        raise ProgramError(f"a run of tokens takes 'tokens' and, where rows are padded, 'start'; given {given}")
    tokens = inputs["tokens"]
    if tokens.type.dtype != "int64":
        raise DtypeError(f"tokens must be int64[batch, pos], not {tokens.type}")
    if len(tokens.type.shape) != 2 or 0 in tokens.type.shape:
        raise ShapeError(f"tokens must be int64[batch, pos] with at least one of each, not {tokens.type}")
    batch, pos = tokens.type.shape
    _within(tokens, card.sizes.get("d_vocab", 1 << 62), "token ids", known)
    if (start := inputs.get("start")) is not None:
        if start.type != TensorType("int64", (batch,)):
            raise ShapeError(f"start must be {TensorType('int64', (batch,))}, one for each row, not {start.type}")
        _within(start, pos, "the rows' first positions (start)", known)
    return batch, pos


def _within(data: ConstantData, size: int, what: str, known: Extremes) -> None:
    if id(data) not in known:
        values = array("q", data.tobytes())
        known[id(data)] = min(values), max(values)
    low, high = known[id(data)]
    if low < 0 or high >= size:
        raise BoundsError(f"{what} go from 0 to {size - 1}; {low if low < 0 else high} was given")


def _options(options: dict[str, object], card: Card, limits: Limits) -> int:
    """How many new tokens a generation asks for; ProgramError for an option of another name, kind or range."""
    for name, value in options.items():
        if name not in _OPTIONS:
            raise ProgramError(f"generate has no option {name[:40]!r}; it has {', '.join(_OPTIONS)}")
        legal, expected = _OPTIONS[name]
        if not legal(value):
            raise ProgramError(f"generate's option {name} must be {expected}, was {repr(value)[:60]}")
    if "max_new_tokens" not in options:
        raise ProgramError("a generation must say max_new_tokens")
    if options.get("temperature") and options.get("seed") is None:
        raise ProgramError("sampling (temperature above 0) needs a seed: the same experiment gives the same tokens")
    stops, vocab = options.get("stop") or (), card.sizes.get("d_vocab", 1 << 62)
    if not card.tokenizer and any(isinstance(stop, str) for stop in _tuple(stops)):
        raise ProgramError(f"{card.name} has no tokenizer, so a text cannot end a row; give stop as token ids")
    for token in (token for stop in _tuple(stops) if not isinstance(stop, str) for token in stop):
        if not 0 <= token < vocab:
            raise BoundsError(f"stop holds token {token}; token ids go from 0 to {vocab - 1}")
    count = options["max_new_tokens"]
    assert isinstance(count, int)
    hold(limits, "max_new_tokens", count)
    return count


def _number(value: Any) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _tuple(value: Any) -> tuple[Any, ...]:
    return cast("tuple[Any, ...]", value) if type(value) is tuple else ()


def _stops(value: Any) -> bool:
    """A tuple of texts and tuples of token ids, none of them empty."""
    return type(value) is tuple and all(
        (type(stop) is str and stop != "") or (_tuple(stop) and all(type(token) is int for token in _tuple(stop)))
        for stop in _tuple(value)
    )


def _whole(value: Any, least: int) -> bool:
    return type(value) is int and value >= least


_OPTIONS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "max_new_tokens": (lambda v: _whole(v, 1), "a whole number of at least 1"),
    "temperature": (lambda v: _number(v) and v >= 0, "a number of at least 0"),
    "top_p": (lambda v: v is None or (_number(v) and 0 < v <= 1), "above 0 and at most 1"),
    "seed": (lambda v: v is None or _whole(v, 0), "a whole number of at least 0"),
    "stop": (lambda v: v is None or _stops(v), "a tuple of texts and tuples of token ids"),
}
