"""Where the row axis of an operand goes: the column that says which ops may run on slices of a batch.

POINTWISE           output dimensions line up with each operand's from the right
TRACED              one operand; where its row dimension comes out is read off the shape rule (views, repeats, …)
Along("dim")        TRACED, but mixed where the rows lie along the dimensions that the argument names
Leading(n, …)       of operand i, the last n_i dimensions are used up; those before line up from the right and pass
                    (a name in place of a number: as many as that argument is long)
FRESH               only the operand's dtype counts: the same in every slice
rule("matmul")      a rule of its own, in weft.ir.optable.follow
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
TRACED = Rows("traced")
VIEW = Rows("view")
FRESH = Rows("fresh")


def Along(*dims: int | str) -> Rows:
    return Rows("along", dims)


def Leading(*used: int | str) -> Rows:
    return Rows("leading", used)


def rule(name: str) -> Rows:
    return Rows(name)


class Lie(NamedTuple):
    """Where the rows of a value lie: along dimension `dim`, `inner` neighbours there belonging to each row.

    [batch, pos, d] has Lie(0); merged to [batch·pos, d] it has Lie(0, pos). Rows are always the major part.
    """

    dim: int
    inner: int = 1
