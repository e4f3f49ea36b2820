"""The table of operations an experiment may hold: what is legal, and what each gives for which types.

    infer("softmax.int", (TensorType("float32", (2, 5)), -1))      → (float32[2, 5],)

A name is a public aten overload, "name.overload" (".default" is left out). Adding an op means: one row in the file of
its kind, a shape rule (most rows share one), and a generated case in tests/cpu/op_cases.py, which fails without it.
Anything that is not here is refused.
"""

from weft.ir.optable import indexing, linalg, losses, nn, pointwise, reductions, viewing
from weft.ir.optable.rows import MIXED, Rows
from weft.ir.optable.spec import MAX_NUMEL, OPS, REQUIRED, Index, OpSpec, Param, canonical, flops, infer, spec_of

ROWS_OF = (pointwise, reductions, viewing, indexing, linalg, nn, losses)
"""The files of rows; importing them fills the table."""

__all__ = [
    "MAX_NUMEL",
    "MIXED",
    "OPS",
    "REQUIRED",
    "ROWS_OF",
    "Index",
    "OpSpec",
    "Param",
    "Rows",
    "canonical",
    "flops",
    "infer",
    "spec_of",
]
