"""Where the row axis of an operand goes: the column that says which ops may run on slices of a batch.

POINTWISE           output dimensions line up with each operand's from the right
Along("dim")        works along the dimensions that argument names; the others pass through
Along(-2, -1)       works along these dimensions of the first operand; the others pass through
Leading(n, …)       of operand i, the last n_i dimensions are used up; those before line up from the right and pass
MIXED               rows may mix: the op waits for all of them
"""

from __future__ import annotations

from typing import NamedTuple


class Rows(NamedTuple):
    """A description of where rows go; see this module's head. `dims` holds numbers, names of arguments, or counts."""

    kind: str
    dims: tuple[int | str, ...] = ()


MIXED = Rows("mixed")
POINTWISE = Rows("pointwise")
VIEW = Rows("view")


def Along(*dims: int | str) -> Rows:
    return Rows("along", dims)


def Leading(*used: int) -> Rows:
    return Rows("leading", used)
