"""JSON read as if it came from somebody hostile, and written in one way only.

`parse` looks at size and nesting before it builds anything, refuses duplicate keys, NaN and Infinity; `dump` gives
the canonical bytes: UTF-8, keys sorted, no spaces.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any, NoReturn, TypeGuard

from weft.errors import FormatError

# Possessive, and the closing quote optional, so that no input makes it look at a byte twice.
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEP = [1 if byte in b"[{" else -1 for byte in range(256)]


def is_list(value: object) -> TypeGuard[list[Any]]:
    return type(value) is list


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    return type(value) is dict


def dump(value: object) -> bytes:
    """The canonical JSON of plain data."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return text.encode("utf-8")


def parse(data: bytes | memoryview, *, what: str, depth: int, objects: int, arrays: int) -> Any:
    """The plain data in `data`; FormatError if it is not strict JSON, or nested or numerous beyond the given bounds.

    The bounds hold before anything is built: a small file can otherwise become gigabytes of empty lists.
    """
    data = bytes(data)
    brackets = _STRINGS.sub(b"", data).translate(None, _NOT_BRACKETS)
    for name, found, bound in (("objects", brackets.count(b"{"), objects), ("arrays", brackets.count(b"["), arrays)):
        if found > bound:
            raise FormatError(f"{what} has {found:,} JSON {name}, but at most {bound:,} are read")
    deepest = max(accumulate(map(_STEP.__getitem__, brackets)), default=0)
    if deepest > depth:
        raise FormatError(f"{what} is nested {deepest:,} deep, but at most {depth} levels are read")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} is not JSON: {error}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise FormatError(f"the key {twice[:80]!r} is given twice; each key may be given once")
    return found


def _constant(name: str) -> NoReturn:
    raise FormatError(f"{name} is no JSON number; write it as the string {name.lower()!r} under its kind")
