"""The table of operations an experiment may hold: what is legal, and what each gives for which types.

    infer("softmax.int", (TensorType("float32", (2, 5)), -1))      → (float32[2, 5],)

A name is a public aten overload, "name.overload" (".default" is left out). Adding an op means: one row in the file of
its kind, a shape rule (most rows share one), and a generated case in tests/cpu/op_cases.py, which fails without it.
Anything that is not here is refused.
"""

from weft.ir.optable import indexing, linalg, losses, nn, pointwise, reductions, viewing  # noqa: F401 - rows are added
from weft.ir.optable.rows import MIXED, Rows
from weft.ir.optable.spec import MAX_NUMEL, OPS, REQUIRED, Index, OpSpec, Param, canonical, flops, infer, spec_of

__all__ = [
    "MAX_NUMEL",
    "MIXED",
    "OPS",
    "REQUIRED",
    "Index",
    "OpSpec",
    "Param",
    "Rows",
    "canonical",
    "flops",
    "infer",
    "spec_of",
]
