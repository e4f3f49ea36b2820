"""Which dtype arithmetic gives: PyTorch's promotion rules.

Operands count in three classes: tensors with dimensions, 0-dimensional tensors, Python numbers. A lower class decides
only where it is of a higher category (bool < int < float) than all classes above it.
"""

from __future__ import annotations

from weft.errors import DtypeError
from weft.ir.types import DTYPES, TensorType

DEFAULT_FLOAT = "float32"

_INTS = ("int8", "int16", "int32", "int64")
_FLOATS = ("float32", "float64")


def promote(a: str | None, b: str | None) -> str | None:
    """The least dtype that holds both (None: nothing yet)."""
    if a is None or b is None or a == b:
        return b if a is None else a
    rank = {"bool": 0, "int": 1, "float": 2}
    if rank[DTYPES[a].category] < rank[DTYPES[b].category]:
        a, b = b, a
    if DTYPES[a].category != DTYPES[b].category:
        return a
    if DTYPES[a].category == "float":
        both = {a, b}
        return "float64" if "float64" in both else "float32"
    if "uint8" in (a, b):
        other = b if a == "uint8" else a
        return "int16" if other == "int8" else other
    return max(a, b, key=_INTS.index)


def result_type(*operands: TensorType | bool | int | float) -> str:
    """The dtype in which `operands` meet, e.g. float32[3] and the number 2 meet in float32."""
    classes: list[str | None] = [None, None, None]
    for operand in operands:
        if isinstance(operand, TensorType):
            place = 0 if operand.shape else 1
            classes[place] = promote(classes[place], operand.dtype)
        else:
            number = "bool" if isinstance(operand, bool) else "int64" if isinstance(operand, int) else DEFAULT_FLOAT
            classes[2] = promote(classes[2], number)
    found = _combine(classes[0], _combine(classes[1], classes[2]))
    if found is None:
        raise DtypeError("no operand to take a dtype from")
    return found


def _combine(higher: str | None, lower: str | None) -> str | None:
    if higher is None or lower is None:
        return higher or lower
    if DTYPES[higher].category == "float":
        return higher
    if higher == "bool" or DTYPES[lower].category == "float":
        return promote(higher, lower)
    return higher


def to_float(dtype: str) -> str:
    """`dtype` if it is floating, else the default float."""
    return dtype if DTYPES[dtype].category == "float" else DEFAULT_FLOAT


def to_sum(dtype: str) -> str:
    """The dtype in which sums of `dtype` are kept."""
    return dtype if DTYPES[dtype].category == "float" else "int64"


def need_float(op: str, *operands: TensorType | None) -> None:
    """DtypeError unless every operand is floating."""
    for operand in operands:
        if operand is not None and operand.category != "float":
            raise DtypeError(f"{op} works on floating tensors, was given {operand}; convert with .float()")


def need_int(op: str, *operands: TensorType | None, bools: bool = False) -> None:
    """DtypeError unless every operand is of an integer dtype (or bool, where `bools`)."""
    for operand in operands:
        if operand is not None and operand.category != "int" and not (bools and operand.category == "bool"):
            raise DtypeError(f"{op} works on integer tensors here, was given {operand}; convert with .long()")


def need_same(op: str, *operands: TensorType | None) -> None:
    """DtypeError unless all operands have one dtype."""
    given = [operand for operand in operands if operand is not None]
    if len({each.dtype for each in given}) > 1:
        raise DtypeError(f"{op} needs operands of one dtype, was given {' and '.join(map(str, given))}")
