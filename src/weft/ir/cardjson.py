"""A model's card as JSON and back, for the service and for clients. No torch.

card_from_json(card_to_json(card)) == card
"""

from __future__ import annotations

import json
from typing import Any, TypeVar, cast

from weft.errors import FormatError
from weft.ir.card import Card, Dim, PartSpec, SiteSpec
from weft.ir.nodes import Site
from weft.ir.types import DTYPES, TensorType

VERSION = 1
T = TypeVar("T")


def card_to_json(card: Card) -> str:
    """The card as canonical JSON (sorted keys, no spaces)."""
    data = {
        "version": VERSION,
        "name": card.name,
        "kind": card.kind,
        "family": card.family,
        "dtype": card.dtype,
        "sizes": card.sizes,
        "sites": [
            [*spec.site, list(spec.axes), [list(dim) for dim in spec.dims], spec.dtype, spec.writable]
            for spec in card.sites
        ],
        "params": {name: [kind.dtype, list(kind.shape)] for name, kind in card.params.items()},
        "parts": [[part.name, part.d_in, part.d_out, part.dtype] for part in card.parts],
        "absent": card.absent,
        "max_positions": card.max_positions,
        "config": card.config,
        "tokenizer": card.tokenizer,
    }
    return json.dumps(data, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def card_from_json(text: str | bytes) -> Card:
    """The card that `card_to_json` wrote. FormatError, naming the entry, for anything else."""
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"a card must be JSON: {error}") from error
    if not isinstance(data, dict):
        raise FormatError(f"a card must be a JSON object; this is a {type(data).__name__}")
    entries = cast(dict[str, Any], data)
    found = entries.get("version")
    if found != VERSION:
        raise FormatError(
            f"this is a card of version {found!r}; this weft reads version {VERSION}: update the older side"
        )
    try:
        return _card(entries)
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"a card's entry is missing or of the wrong kind: {type(error).__name__}: {error}") from error


def _card(data: dict[str, Any]) -> Card:
    return Card(
        name=_kind(str, data["name"]),
        kind=_kind(str, data["kind"]),
        family=_kind(str, data["family"]),
        dtype=_dtype(data["dtype"]),
        sizes={str(name): _kind(int, size) for name, size in data["sizes"].items()},
        sites=tuple(_site(row) for row in data["sites"]),
        params={str(name): TensorType(_dtype(dtype), _ints(shape)) for name, (dtype, shape) in data["params"].items()},
        parts=tuple(
            PartSpec(_kind(str, name), int(d_in), int(d_out), _dtype(d)) for name, d_in, d_out, d in data["parts"]
        ),
        absent={str(name): _kind(str, reason) for name, reason in data["absent"].items()},
        max_positions=_kind(int, data["max_positions"]),
        config=dict(data["config"]),
        tokenizer={str(name): _kind(str, text) for name, text in data["tokenizer"].items()},
    )


def _site(row: list[Any]) -> SiteSpec:
    name, layer, path, call, item, axes, dims, dtype, writable = row
    site = Site(
        _kind(str, name), None if layer is None else _kind(int, layer), _kind(str, path), _kind(int, call), item
    )
    axis_names = tuple(_kind(str, axis) for axis in axes)
    return SiteSpec(site, axis_names, tuple(Dim(*_ints(dim)) for dim in dims), _dtype(dtype), _kind(bool, writable))


def _kind(kind: type[T], value: Any) -> T:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{value!r} where {kind.__name__} is needed")
    return value


def _dtype(name: Any) -> str:
    if name not in DTYPES:
        raise ValueError(f"dtype {name!r}")
    return str(name)


def _ints(values: Any) -> tuple[int, ...]:
    return tuple(_kind(int, each) for each in values)
