"""Legal calls of every op in the table, as data: (name, args) with a Given wherever an operand stands.

A Given says dtype, shape and what the values may be; `build` makes the tensor. Both the comparison with PyTorch's
kernels and the fuzzing start from these, so an op without cases here fails the tests.
"""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import torch

from weft.ir.nodes import Dtype


class Given(NamedTuple):
    """An operand to be made: values normal, or uniform in (0, 1), or integers below `high`, or something special."""

    dtype: str
    shape: tuple[int, ...]
    kind: str = "any"
    high: int = 5


def f(*shape: int, dtype: str = "float32", kind: str = "any") -> Given:
    return Given(dtype, shape, kind)


def unit(*shape: int) -> Given:
    return Given("float32", shape, "unit")


def at(high: int, *shape: int) -> Given:
    return Given("int64", shape, "index", high)


def ints(*shape: int) -> Given:
    return Given("int64", shape)


def bools(*shape: int) -> Given:
    return Given("bool", shape)


def build(given: Given, generator: torch.Generator) -> torch.Tensor:
    """The tensor that a Given describes."""
    dtype = getattr(torch, given.dtype)
    if given.kind == "symmetric":
        x = torch.randn(given.shape, generator=generator, dtype=torch.float64)
        eye = torch.eye(given.shape[-1], dtype=torch.float64)
        return (x @ x.mT + eye).to(dtype)
    if given.kind == "sorted":
        return torch.randn(given.shape, generator=generator).sort(-1)[0].to(dtype)
    if given.dtype == "bool":
        return torch.rand(given.shape, generator=generator) < 0.5
    if not dtype.is_floating_point:
        low = 0 if given.kind == "index" or given.high < 2 else 1
        return torch.randint(low, given.high, given.shape, generator=generator).to(dtype)
    if given.kind == "unit":
        return torch.rand(given.shape, generator=generator).mul(0.98).add(0.01).to(dtype)
    return torch.randn(given.shape, generator=generator).to(dtype)


Args = tuple[Any, ...]
CASES: dict[str, list[Args]] = {}
DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
F64 = Dtype("float64")


def case(names: str, *cases: Args) -> None:
    for name in names.split():
        CASES.setdefault(name, []).extend(cases)


# -- one operand -------------------------------------------------------------------------------------------------------

ONE = """acos acosh asin asinh atan atanh cos cosh deg2rad digamma erf erfc erfinv exp exp2 expm1 i0 lgamma log log10
log1p log2 rad2deg reciprocal rsqrt sigmoid sin sinc sinh special_entr special_erfcx special_ndtri sqrt tan tanh ceil
floor round trunc square sign sgn positive abs neg relu relu6 frac silu mish hardsigmoid hardswish log_sigmoid selu isnan
isinf isfinite isposinf isneginf logical_not signbit bitwise_not logit nan_to_num gelu softplus elu celu leaky_relu
hardtanh softshrink hardshrink clone contiguous zeros_like ones_like"""
case(ONE, *((f(2, 3, dtype=dtype),) for dtype in DTYPES), (f(),), (f(0, 3),))
case("round.decimals", (f(2, 3), 1))
case("logit", (unit(3), 0.1))
case("nan_to_num", (f(3), 0.0, 1.0, -1.0))
case("gelu", (f(3), "tanh"))
case("softplus", (f(3), 2, 10))
case("elu", (f(3), 1.5, 2.0, 0.5))
case("celu", (f(3), 0.5))
case("leaky_relu", (f(3), 0.2))
case("hardtanh", (f(3), -2, 2.0), (ints(3), 0, 2))
case("threshold", (f(2, 3), 0.5, 0.0), (ints(3), 2, 0))
case("softshrink hardshrink", (f(3), 0.3))
case("to.dtype", *((f(2, 3, dtype=a), Dtype(b)) for a, b in product(DTYPES, DTYPES)))
case("zeros_like ones_like", (f(2), F64))
case("full_like", (f(2, 3), 7), (ints(3), 1.5), (f(2), 1, Dtype("int64")), (f(2), True))
case("new_zeros new_ones", (f(2), (3, 4)), (f(2), (), F64), (ints(2), (0, 2)))
case("new_full", (f(2), (3, 4), 1.5), (ints(2), (2,), 1, F64))
case("fill.Scalar", (f(2, 3), 2), (ints(2), True), (f(), 1.5))
case("fill.Tensor", (f(2, 3), f()), (f(2), ints()))
case("copy", (f(2, 3), f(3)), (f(2, 3), ints(2, 3)))

# -- two operands: promotion among all dtypes, dimensions and numbers --------------------------------------------------

PAIRS = [(f(2, 3, dtype=a), f(3, dtype=b)) for a, b in product(DTYPES, DTYPES)]
PAIRS += [(f(2, dtype=a), f(dtype=b)) for a, b in product(DTYPES, DTYPES)]
PAIRS += [(f(dtype=a), f(dtype=b)) for a, b in product(DTYPES, DTYPES)] + [(f(2, 1), f(1, 4)), (f(0, 3), f(1, 3))]
NUMBERS = [(f(2, 3, dtype=a), n) for a, n in product(DTYPES, (2, 1.5, True))] + [(f(dtype=a), 1.5) for a in DTYPES]
TENSOR_PAIR = """add.Tensor sub.Tensor rsub.Tensor mul.Tensor div.Tensor floor_divide remainder.Tensor fmod.Tensor
pow.Tensor_Tensor float_power.Tensor_Tensor maximum minimum fmax fmin atan2 xlogy.Tensor copysign.Tensor hypot logaddexp
logaddexp2 heaviside ldexp.Tensor eq.Tensor ne.Tensor lt.Tensor le.Tensor gt.Tensor ge.Tensor logical_and logical_or
logical_xor isclose bitwise_and.Tensor bitwise_or.Tensor bitwise_xor.Tensor bitwise_left_shift.Tensor
bitwise_right_shift.Tensor gcd lcm nextafter kron"""
case(TENSOR_PAIR, *PAIRS)
NUMBER_PAIR = """add.Scalar sub.Scalar rsub.Scalar mul.Scalar div.Scalar floor_divide.Scalar remainder.Scalar fmod.Scalar
pow.Tensor_Scalar float_power.Tensor_Scalar xlogy.Scalar_Other copysign.Scalar eq.Scalar ne.Scalar lt.Scalar le.Scalar
gt.Scalar ge.Scalar bitwise_and.Scalar bitwise_or.Scalar bitwise_xor.Scalar bitwise_left_shift.Tensor_Scalar
bitwise_right_shift.Tensor_Scalar"""
case(NUMBER_PAIR, *NUMBERS)
case("remainder.Scalar_Tensor pow.Scalar float_power.Scalar xlogy.Scalar_Self", *((n, x) for x, n in NUMBERS))
case("add.Tensor sub.Tensor rsub.Tensor", (f(3), f(3), 2), (ints(3), ints(3), 2))
case("add.Scalar sub.Scalar rsub.Scalar", (f(3), 2, 2))
case("isclose", (f(3), f(3), 0.1, 0.1, True))
for mode in (None, "trunc", "floor"):
    case("div.Tensor_mode", *((*pair, mode) for pair in PAIRS))
    case("div.Scalar_mode", *((*pair, mode) for pair in NUMBERS))
MASKED = [(bools(2, 3), *pair) for pair in PAIRS[:100]]
case("where.self", *MASKED, (bools(2), f(3, 2), f()), (bools(), f(dtype="int32"), f(dtype="float16")))
case("where.ScalarOther", *((bools(2, 3), *pair) for pair in NUMBERS))
case("where.ScalarSelf", *((bools(2, 3), n, x) for x, n in NUMBERS))
case("where.Scalar", (bools(3), 1, 2), (bools(3), 1.0, 2), (bools(3), True, False))
case("clamp", (f(3), 0), (f(3), None, 1.5), (f(3), -1, 1), (ints(3), 0.5, 2), (ints(3), 2), (f(dtype="float16"), 0.5))
case("clamp.Tensor", (f(2, 3), f(3)), (f(2, 3), None, f()), (ints(3), f(3), f(3)), (f(3), f(2, 3)))
case("lerp.Scalar", (f(3), f(3), 0.3), (f(2, 3), f(3), 1))
case("lerp.Tensor", (f(3), f(3), f(3)), (f(2, 3), f(3), f()))
case("addcmul addcdiv", (f(2, 3), f(3), f(2, 1)), (f(3), f(3), f(3), 0.5), (f(dtype="float16"), f(2), f(2)))
case("addcmul", (ints(3), ints(3), ints(3), 2))
case("prelu", (f(2, 3), f(1)), (f(2, 3), f(3)), (f(2, 3, 4), f(3)), (f(2, 3), f()))

# -- along dimensions --------------------------------------------------------------------------------------------------

EACH = [f(2, 3, 4, dtype=dtype) for dtype in DTYPES]
WHOLE = [(x,) for x in (*EACH, f())]
case("sum prod mean any all max min median nanmedian count_nonzero nansum nanmean aminmax argmax argmin", *WHOLE)
case("sum prod mean nansum", (f(0, 3),))
case("sum prod", (ints(3), F64))
case("mean", (ints(3), F64))
LISTS = [(x, dims, keep) for x in (f(2, 3, 4), ints(2, 3, 4)) for dims in ((1,), (-1, 0), ()) for keep in (False, True)]
case(
    "sum.dim_IntList mean.dim nansum nanmean",
    *LISTS,
    (f(2, 3), None),
    (f(), (0,)),
    (f(2, 0), (1,)),
    (ints(3), (0,), True, F64),
)
case("amax amin", *LISTS, (f(2, 3),), (f(), (-1,)), (bools(2, 3), (0,)))
case(
    "var.correction std.correction var_mean.correction std_mean.correction",
    (f(2, 3),),
    (f(2, 3), (1,)),
    (f(2, 3), (0, 1), 0, True),
    (f(2, 3), None, 2),
    (f(4, dtype="float16"), (-1,), 1.0),
)
ONES = [(x, dim, keep) for x in EACH for dim in (0, -1) for keep in (False, True)] + [(f(), 0), (f(), -1, True)]
case("max.dim min.dim median.dim nanmedian.dim any.dim all.dim argmax argmin mode", *ONES)
case("mode", (f(2, 3),))
case("prod.dim_int", *ONES, (f(3), 0, False, F64))
case("any.dims all.dims", (f(2, 3), (0, 1)), (f(2, 3), ()), (f(2, 3), None, True), (bools(2, 3), (-1,), True))
case("aminmax", (f(2, 3), 1), (f(2, 3), -1, True), (f(), 0))
case("count_nonzero", (f(2, 3), 1))
case("count_nonzero.dim_IntList", (f(2, 3), (0, 1)), (bools(2, 3), (1,)))
for order in (2, 1, 0, 0.5, 3, float("inf"), float("-inf")):
    case("linalg_vector_norm", (f(2, 3), order), (f(2, 3), order, (1,), True), (f(2, 3), order, (0, 1)), (f(), order))
case("linalg_vector_norm", (f(2, 3), 2, None, False, F64), (f(2, 3),))
case("norm.Scalar", (f(2, 3),), (f(2, 3), 1))
case("norm.ScalarOpt_dim", (f(2, 3), 2, (1,)), (f(2, 3), None, (0,), True), (f(2, 3), 1.0, (0, 1)))
case("logsumexp", (f(2, 3), (1,)), (f(2, 3), (0, 1), True), (ints(2, 3), (0,)), (f(), (0,)))
case("cumsum cumprod", *((x, 1) for x in EACH), (f(), 0), (f(2, 3), -1, F64), (ints(2, 3), 0, Dtype("int32")))
case("logcumsumexp", (f(2, 3), 1), (f(), 0))
case("cummax cummin", *((x, 1) for x in EACH), (f(), 0))
case("sort argsort", *((x,) for x in EACH), (f(2, 3), 0, True), (f(),))
case("sort.stable", (f(2, 3), True), (f(2, 3), None, 0, True), (f(2, 3), False, 0))
case("argsort.stable", (f(2, 3), True), (f(2, 3), True, 0, True))
case("topk", (f(2, 5), 2), (f(2, 5), 0), (f(4, 5), 3, 0, False, False), (ints(2, 5), 5), (f(), 1))
case("kthvalue", (f(2, 5), 2), (f(4, 5), 3, 0, True), (ints(2, 5), 5), (f(), 1))
case("quantile", (f(2, 5), unit()), (f(2, 5), unit(3), 1), (f(2, 5), unit(3), 0, True, "nearest"))
case("quantile.scalar", (f(2, 5), 0.3), (f(2, 5), 0.5, 1, True), (f(2, 5), 0.5, 0, False, "lower"))
case(
    "softmax.int log_softmax.int",
    (f(2, 3), 1),
    (f(2, 3), -2),
    (ints(3), 0, F64),
    (f(), 0),
    (f(3, dtype="float16"), 0, Dtype("float32")),
)
case("flip", (f(2, 3), (0,)), (f(2, 3), (0, -1)), (f(2, 3), ()), (f(), ()))
case("roll", (f(2, 3), (1,)), (f(2, 3), (1, 2), (0, 1)), (f(2, 3), (-1,), (1,)), (f(0, 3), (1,), (0,)))
case("diff", (f(2, 5),), (f(2, 5), 2), (f(2, 5), 1, 0), (f(2, 5), 1, -1, f(2, 1), f(2, 2)), (f(2, 3), 7), (bools(4),))

# -- views -------------------------------------------------------------------------------------------------------------

X = f(2, 3, 4)
case("select.int", (X, 0, 1), (X, -1, -1), (f(1), 0, 0))
case("slice.Tensor", (X,), (X, 1, 1), (X, 1, None, -1), (X, 2, 0, 4, 2), (X, 0, 5, 9), (X, 1, -2, 2**63 - 1))
case("narrow", (X, 1, 1, 2), (X, 1, -1, 1), (X, 1, 3, 0))
case("view reshape", (X, (6, 4)), (X, (-1,)), (X, (2, -1, 2)), (f(), (1, 1)), (f(0, 3), (3, 0)), (f(1), ()))
case("expand", (f(3, 1), (3, 4)), (f(3, 1), (2, -1, 4)), (f(), (2, 3)), (f(1), (0,)), (f(3), (3,), True))
case("permute", (X, (2, 0, 1)), (X, (-1, 0, 1)), (f(), ()))
case("transpose.int", (X, 0, 2), (X, -1, -2), (f(), 0, -1))
case("t", (f(2, 3),), (f(3),), (f(),))
case("unsqueeze", (X, 0), (X, -1), (X, 3), (f(), 0))
case("squeeze", (f(1, 3, 1),), (X,), (f(),))
case("squeeze.dim", (f(1, 3, 1), 0), (X, 0), (f(1, 3, 1), -1), (f(), 0))
case("squeeze.dims", (f(1, 3, 1), (0, 2)), (X, (0,)), (f(1, 3), ()))
case("unfold", (X, 2, 2, 1), (X, 1, 3, 2), (f(5), 0, 2, 2), (f(), 0, 1, 1), (X, 2, 0, 1))
case("diagonal", (f(3, 4),), (f(3, 4), 1), (f(3, 4), -2), (X, 0, 1, 2), (X, 9, 0, -1))
case("split.Tensor", (X, 2, 1), (X, 2), (X, 9, -1), (f(0, 2), 1))
case("split_with_sizes", (X, (1, 2), 1), (X, (2,)), (X, (0, 4), -1))
case("unbind.int", (X,), (X, -1), (f(1), 0))
case("movedim.intlist", (X, (0, 1), (2, 0)), (X, (-1,), (0,)))
case("movedim.int", (X, 0, 2), (X, -1, 0))
case("flatten.using_ints", (X,), (X, 1), (X, 0, 1), (f(),))
case("unflatten.int", (X, 2, (2, 2)), (X, -1, (-1, 2)), (f(6), 0, (2, 3)))
case("alias detach", (X,), (f(),))

# -- places ------------------------------------------------------------------------------------------------------------

M = f(4, 5)
case(
    "index.Tensor",
    (M, (at(4, 3),)),
    (M, (None, at(5, 2, 2))),
    (M, (at(4, 3), at(5, 3))),
    (M, (at(4, 3, 1), at(5, 2))),
    (f(2, 3, 4), (at(2, 3), None, at(4, 3))),
    (f(2, 3, 4), (None, at(3, 2), at(4, 2))),
    (M, (at(4),)),
    (M, (Given("int32", (2,), "index", 4),)),
    (f(2, 3, 4, 5), (None, at(3, 2), None, at(5, 2))),
)
case(
    "index_put",
    (M, (at(4, 3),), f(3, 5)),
    (M, (at(4, 3),), f()),
    (M, (None, at(5, 2)), f(4, 2), True),
    (M, (at(4, 3), at(5, 3)), f(1)),
)
case("index_select", (M, 0, at(4, 3)), (M, 1, at(5)), (M, -1, at(5, 0)), (f(), 0, at(1, 1)))
case("index_add", (M, 0, at(4, 3), f(3, 5)), (M, 1, at(5, 2), f(4, 2), 2), (f(), 0, at(1), f()))
case("index_copy", (M, 0, at(4, 3), f(3, 5)), (M, 1, at(5, 2), f(4, 2)))
case(
    "index_reduce",
    *((M, 0, at(4, 3), f(3, 5), way, keep) for way in ("prod", "mean", "amax", "amin") for keep in (True, False)),
)
case("index_fill.int_Scalar", (M, 0, at(4, 2), 1.5), (M, 1, at(5), 2), (ints(4), 0, at(4, 2), 3))
case("index_fill.int_Tensor", (M, 0, at(4, 2), f()), (M, 1, at(5), f()))
case("gather", (M, 0, at(4, 2, 5)), (M, 1, at(5, 4, 1)), (M, -1, at(5, 3, 7)), (f(), 0, at(1)), (M, 0, at(4, 0, 5)))
case("scatter.src scatter_add", (M, 0, at(4, 2, 5), f(2, 5)), (M, 1, at(5, 4, 1), f(4, 5)), (M, 1, at(5, 0), f(0)))
case("scatter.value", (M, 0, at(4, 2, 5), 1.5), (M, 1, at(5, 4, 1), 2))
case("scatter.reduce", (M, 0, at(4, 2, 5), f(2, 5), "add"), (M, 0, at(4, 2, 5), f(2, 5), "multiply"))
case("scatter.value_reduce", (M, 0, at(4, 2, 5), 1.5, "add"), (M, 0, at(4, 2, 5), 2, "multiply"))
case(
    "scatter_reduce.two",
    *(
        (M, 1, at(5, 4, 2), f(4, 2), way, keep)
        for way in ("sum", "prod", "mean", "amax", "amin")
        for keep in (True, False)
    ),
)
case(
    "masked_fill.Scalar",
    (M, bools(4, 5), 1.5),
    (M, bools(5), float("-inf")),
    (f(5), bools(4, 5), 1),
    (ints(3), bools(3), True),
)
case("masked_fill.Tensor", (M, bools(4, 5), f()), (M, bools(5), ints()), (f(), bools(), f()))
case("take", (M, at(20, 3, 2)), (f(), at(1)), (M, at(20, 0)))
case("take_along_dim", (M, at(5, 4, 2), 1), (M, at(4, 2, 1), 0), (M, at(20, 3)), (f(1, 5), at(5, 4, 2), 1))
case("put", (M, at(20, 3), f(3)), (M, at(20, 2, 2), f(4), True))
case("embedding", (M, at(4, 2, 3)), (M, at(4)), (M, Given("int32", (2,), "index", 4), 1))
case("one_hot", (at(5, 2, 3), 5), (at(5), 7), (at(5, 0), 5))
case("bucketize.Tensor", (f(2, 3), f(4, kind="sorted")), (f(2, 3), f(4, kind="sorted"), True, True))
case(
    "searchsorted.Tensor",
    (f(2, 4, kind="sorted"), f(2, 3)),
    (f(4, kind="sorted"), f(2, 3), True, False, "right"),
    (f(2, 4), f(2, 3), False, False, None, at(4, 2, 4)),
)
case("isin.Tensor_Tensor", (ints(2, 3), ints(2)), (f(2, 3), f(3), True, True), (ints(3), f(2)), (ints(3), ints(50)))
case("isin.Tensor_Scalar", (ints(2, 3), 2), (f(3), 1.5, False, True))
case(
    "cat",
    ((M, M),),
    ((M, f(4, 2)), 1),
    ((M, f(0)),),
    ((M, ints(4, 5)), -2),
    ((f(0), f(0)),),
    ((f(3), ints(2), bools(1)),),
)
case("stack", ((M, M),), ((M, M, M), 1), ((f(), f()), -1), ((f(3), ints(3)), 0))
case("repeat", (M, (2, 1)), (M, (3, 1, 2)), (M, (0, 1)), (f(), ()))
case("tile", (M, (2,)), (M, (3, 1, 2)), (f(), ()))
case("repeat_interleave.self_int", (M, 2), (M, 3, 0), (M, 2, -1, 10), (f(), 2), (M, 0, 1))
case("tril triu", (M,), (M, 1), (f(2, 3, 3), -1), (bools(3, 3),))
case("diag_embed", (f(3),), (f(2, 3), 1), (f(2, 3), -1, 0, 2))
case("rot90", (M,), (M, 2), (f(2, 3, 4), 3, (0, 2)), (M, -1))
case("block_diag", ((f(2, 3), f(4), f()),), ((f(0, 2), ints(1, 1)),))
case("select_scatter", (M, f(5), 0, 1), (M, f(4), -1, -1))
case("slice_scatter", (M, f(2, 5), 0, 1, 3), (M, f(4, 3), 1, None, None, 2))
case("diagonal_scatter", (M, f(4)), (M, f(4), 1), (f(2, 3, 3), f(2, 3), 0, 1, 2))
case("meshgrid.indexing", ((f(2), f(3)), "ij"), ((f(2), f(3), f(4)), "xy"), ((f(), f(3)), "ij"))

# -- products and linear algebra ---------------------------------------------------------------------------------------

case("mm", (f(2, 3), f(3, 4)), (ints(2, 3), ints(3, 4)), (f(2, 0), f(0, 4)), (f(0, 3), f(3, 2)))
case("bmm", (f(5, 2, 3), f(5, 3, 4)), (f(0, 2, 3), f(0, 3, 4)), (f(2, 3, 0), f(2, 0, 4)))
case(
    "addmm",
    (f(4), f(2, 3), f(3, 4)),
    (f(2, 4), f(2, 3), f(3, 4), 0.5, 2.0),
    (f(), f(2, 0), f(0, 4)),
    (f(4), f(2, 0), f(0, 4), 0),
)
case(
    "baddbmm",
    (f(4), f(5, 2, 3), f(5, 3, 4)),
    (f(5, 2, 4), f(5, 2, 3), f(5, 3, 4), 0, 2),
    (f(4), f(5, 2, 0), f(5, 0, 4), 0),
)
case("mv", (f(2, 3), f(3)), (f(0, 3), f(3)), (f(2, 0), f(0)))
case("addmv", (f(2), f(2, 3), f(3)), (f(), f(2, 3), f(3), 2, 3), (f(2), f(2, 0), f(0), 0))
case("dot vdot", (f(3), f(3)), (ints(3), ints(3)), (f(0), f(0)))
SHAPES = [
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 1, 2, 3), (4, 3, 2)),
    ((5, 2, 3), (3,)),
    ((3,), (5, 3, 4)),
    ((2, 0), (0, 3)),
]
case("matmul", *((f(*a), f(*b)) for a, b in SHAPES))
case(
    "linear",
    (f(2, 3), f(4, 3)),
    (f(5, 2, 3), f(4, 3), f(4)),
    (f(3), f(4, 3)),
    (f(2, 3), f(3), f()),
    (f(0, 3), f(4, 3), f(4)),
)
EQUATIONS = [
    ("ij,jk->ik", f(2, 3), f(3, 4)),
    ("bqhd,bkhd->bhqk", f(2, 3, 4, 5), f(2, 6, 4, 5)),
    ("ii->i", f(3, 3)),
    ("ij,jk", f(2, 3), f(3, 4)),
    ("...ij,...jk->...ik", f(5, 2, 3), f(3, 4)),
    ("i,j->ij", f(2), f(3)),
    ("b a, a -> b", f(2, 3), f(3)),
    ("ij->", f(2, 3)),
    ("ji", f(2, 3)),
    ("ii", f(3, 3)),
    ("a...,b...->ab...", f(2, 4), f(3, 4)),
    ("ij,ij->j", f(1, 3), f(4, 3)),
    ("...i->i...", f(2, 3, 4)),
]
case("einsum", *((equation, tuple(operands)) for equation, *operands in EQUATIONS))
case("outer", *((f(2, dtype=a), f(3, dtype=b)) for a, b in product(DTYPES, DTYPES)), (f(0), f(3)))
case("trace", (f(3, 3),), (f(2, 4),), (ints(3, 3),))
SQUARE = [
    (f(3, 3, kind="symmetric"),),
    (f(2, 3, 3, kind="symmetric"),),
    (f(0, 0),),
    (f(4, 4, kind="symmetric", dtype="float64"),),
]
case("linalg_inv linalg_det linalg_slogdet linalg_cholesky linalg_eigh linalg_eigvalsh linalg_matrix_exp", *SQUARE)
case("linalg_cholesky", (f(3, 3, kind="symmetric"), True))
case("linalg_eigh linalg_eigvalsh", (f(3, 3, kind="symmetric"), "U"))
TALL = [(f(4, 3),), (f(3, 4),), (f(2, 4, 3),), (f(0, 3),), (f(2, 3, 3),)]
case("linalg_qr linalg_svd linalg_svdvals linalg_pinv.atol_rtol_float", *TALL)
case("linalg_qr", (f(4, 3), "complete"), (f(3, 4), "complete"))
case("linalg_svd", (f(4, 3), False), (f(2, 3, 4), True))
case("linalg_pinv.atol_rtol_float", (f(3, 3, kind="symmetric"), 0.1, None, True), (f(3, 4), None, 0.1))
SYMMETRIC = f(3, 3, kind="symmetric")
case(
    "linalg_solve",
    (SYMMETRIC, f(3)),
    (SYMMETRIC, f(3, 2)),
    (SYMMETRIC, f(2, 3), False),
    (f(2, 3, 3, kind="symmetric"), f(3, 4)),
    (f(2, 3, 3, kind="symmetric"), f(2, 3)),
    (SYMMETRIC, f(4, 3, 2)),
)
case(
    "linalg_solve_triangular",
    (SYMMETRIC, f(3, 2), True),
    (SYMMETRIC, f(4, 2, 3), False, False),
    (SYMMETRIC, f(3, 2), True, True, True),
)
case("linalg_householder_product", (f(4, 3), f(3)), (f(2, 4, 3), f(2, 2)), (f(3, 3), f(3)))
case("linalg_cross", (f(2, 3), f(2, 3)), (f(3, 4), f(1, 1).__class__("float32", (3, 1)), 0), (ints(3), ints(3)))
NORMS = [
    (f(2, 3, 4), None, (1,)),
    (f(2, 3), None, None, True),
    (f(3), 1, None),
    (f(2, 3), 2, None),
    (f(2, 3, 4), 1, (0, 2), True),
]
case("linalg_norm", *NORMS, (f(2, 3), 2, (1,)), (f(2, 3), None, None, False, F64))
case("linalg_norm.ord_str", (f(2, 3), "fro"), (f(2, 3, 4), "nuc", (1, 2), True))
case(
    "linalg_matrix_norm",
    *((f(2, 3, 4), order) for order in (1, -1, 2, -2, float("inf"))),
    (f(2, 3, 4), 2, (0, 1), True),
)
case("linalg_matrix_norm.str_ord", (f(2, 3, 4),), (f(2, 3, 4), "nuc", (0, 2), True))
case(
    "cdist",
    (f(4, 3), f(5, 3)),
    (f(2, 4, 3), f(5, 3), 1.0),
    (f(4, 3), f(5, 3), float("inf")),
    (f(0, 3), f(5, 3)),
    (f(4, 0), f(5, 0)),
)
case("pdist", (f(4, 3),), (f(4, 3), 1.0), (f(1, 3),))

# -- layers ------------------------------------------------------------------------------------------------------------

case(
    "layer_norm",
    (f(2, 3, 4), (4,)),
    (f(2, 3, 4), (4,), f(4), f(4), 1e-3),
    (f(2, 3, 4), (3, 4), f(3, 4)),
    (f(0, 4), (4,)),
)
case("rms_norm", (f(2, 3, 4), (4,)), (f(2, 3, 4), (4,), f(4), 1e-3), (f(2, 3, 4), (3, 4), None, 1e-3))
case("group_norm", (f(2, 4, 3), 2), (f(2, 4, 3, 3), 4, f(4), f(4), 1e-3), (f(2, 4), 1))
TAIL = (0.1, 1e-5, False)
case(
    "batch_norm",
    (f(2, 3, 4), f(3), f(3), f(3), unit(3), False, *TAIL),
    (f(2, 3, 4), None, None, None, None, True, *TAIL),
    (f(4, 3), None, None, f(3), unit(3), False, *TAIL),
)
case(
    "instance_norm",
    (f(2, 3, 4), f(3), f(3), None, None, True, *TAIL),
    (f(2, 3, 4, 5), None, None, None, None, True, *TAIL),
)
case("glu", (f(2, 4),), (f(4, 3), 0))
Q = f(2, 4, 3, 8)
case(
    "scaled_dot_product_attention",
    (Q, Q, Q),
    (Q, Q, Q, None, 0.0, True),
    (Q, Q, Q, f(3, 3)),
    (Q, Q, Q, bools(2, 1, 3, 3)),
    (Q, f(2, 4, 5, 8), f(2, 4, 5, 6)),
    (f(2, 3, 8), f(2, 5, 8), f(2, 5, 8), None, 0.0, False, 0.3),
    (f(3, 8), f(3, 8), f(3, 8)),
    (Q, f(2, 2, 3, 8), f(2, 2, 3, 8), None, 0.0, False, None, True),
    (Q, Q, Q, None, 0.0, False, 0.5),
)
case("conv1d", (f(2, 3, 7), f(4, 3, 2)), (f(2, 4, 7), f(4, 2, 3), f(4), (2,), (1,), (2,), 2), (f(3, 7), f(4, 3, 2)))
case("conv1d.padding", (f(2, 3, 7), f(4, 3, 2), None, (1,), "same"), (f(2, 3, 7), f(4, 3, 2)))
case(
    "conv2d",
    (f(2, 3, 7, 6), f(4, 3, 2, 3)),
    (f(2, 4, 7, 6), f(4, 1, 3, 3), f(4), (2, 1), (1, 2), (1, 1), 4),
    (f(3, 7, 6), f(4, 3, 2, 2)),
)
case(
    "conv2d.padding",
    (f(2, 3, 7, 6), f(4, 3, 3, 2), None, (1, 1), "same"),
    (f(2, 3, 7, 6), f(4, 3, 3, 2), None, (1, 1), "valid", (2, 2)),
)
case("conv3d", (f(1, 2, 4, 4, 4), f(3, 2, 2, 2, 2)), (f(1, 2, 4, 4, 4), f(3, 2, 2, 2, 2), f(3), (2, 2, 2), (1, 1, 1)))
case("conv3d.padding", (f(1, 2, 4, 4, 4), f(3, 2, 2, 2, 2), None, (1, 1, 1), "same"))
case(
    "conv_transpose1d",
    (f(2, 3, 5), f(3, 4, 2)),
    (f(2, 4, 5), f(4, 2, 3), f(4), (2,), (1,), (1,), 2),
    (f(3, 5), f(3, 4, 2)),
)
case(
    "conv_transpose2d.input",
    (f(2, 3, 5, 4), f(3, 4, 2, 2)),
    (f(2, 3, 5, 4), f(3, 4, 2, 2), f(4), (2, 2), (1, 0), (1, 0)),
)
case("max_pool1d", (f(2, 3, 7), (2,)), (f(3, 7), (3,), (1,), (1,), (2,), True))
case(
    "max_pool2d",
    (f(2, 3, 7, 6), (2, 2)),
    (f(3, 7, 6), (3, 2), (2, 1), (1, 1), (1, 2), True),
    (f(2, 3, 7, 6), (2, 2), (3, 3), (0, 0), (1, 1), True),
)
case("avg_pool1d", (f(2, 3, 7), (2,)), (f(3, 7), (3,), (2,), (1,), True, False))
case("avg_pool2d", (f(2, 3, 7, 6), (2, 2)), (f(3, 7, 6), (3, 2), (2, 1), (1, 1), True, False, 3))
case("adaptive_avg_pool1d", (f(2, 3, 7), (3,)), (f(3, 7), (1,)))
case("adaptive_avg_pool2d", (f(2, 3, 7, 6), (3, 2)), (f(3, 7, 6), (1, 1)))
case(
    "pad",
    (f(2, 3), (1, 2)),
    (f(2, 3), (1, -1, 0, 2), "constant", 1.5),
    (f(2, 3, 4), (1, 2), "reflect"),
    (f(2, 3, 4, 5), (1, 2, 0, 1), "replicate"),
    (f(2, 3, 4), (1, 2), "circular"),
    (ints(3), (1, 1)),
    (f(2, 3, 4), (3, 3), "reflect"),
    (f(2, 3, 4, 5, 6), (1, 1, 1, 1, 1, 1), "replicate"),
)
case("constant_pad_nd", (f(2, 3), (1, 2)), (f(2, 3), (1, -1, 0, 2), 1.5))
case("upsample_nearest1d", (f(2, 3, 4), (7,)), (f(2, 3, 4), (8,), 2.0))
case("upsample_nearest2d", (f(2, 3, 4, 5), (7, 6)), (f(2, 3, 4, 5), (8, 10), 2.0, 2.0))
case("upsample_linear1d", (f(2, 3, 4), (7,), False), (f(2, 3, 4), (8,), True, 2.0))
case("upsample_bilinear2d upsample_bicubic2d", (f(2, 3, 4, 5), (7, 6), True), (f(2, 3, 4, 5), (8, 10), False, 2.0, 2.0))
case("pixel_shuffle", (f(2, 8, 3, 4), 2), (f(4, 1, 1), 2))
case("pixel_unshuffle", (f(2, 3, 4, 6), 2), (f(1, 2, 2), 2))

# -- losses ------------------------------------------------------------------------------------------------------------

for how in (0, 1, 2):
    case(
        "cross_entropy_loss nll_loss_nd",
        (f(4, 5), at(5, 4), None, how),
        (f(5), at(5), None, how),
        (f(2, 5, 3), at(5, 2, 3), f(5), how, 1),
        (f(2, 5, 3, 2), at(5, 2, 3, 2), None, how),
    )
    case("cross_entropy_loss", (f(4, 5), unit(4, 5), None, how), (f(4, 5), at(5, 4), f(5), how, -100, 0.1))
    case("mse_loss l1_loss smooth_l1_loss huber_loss kl_div", (f(2, 3), f(2, 3), how), (f(2, 3), f(3), how))
    case("soft_margin_loss", (f(2, 3), f(2, 3), how))
    case("hinge_embedding_loss", (f(2, 3), f(2, 3), 1.0, how))
    case("binary_cross_entropy", (unit(2, 3), unit(2, 3), None, how), (unit(2, 3), unit(2, 3), f(3), how))
    case(
        "binary_cross_entropy_with_logits",
        (f(2, 3), unit(2, 3), None, None, how),
        (f(2, 3), unit(2, 3), f(3), f(3), how),
    )
    case("cosine_embedding_loss", (f(2, 3), f(2, 3), f(2), 0.1, how), (f(3), f(3), f(), 0.0, how))
    case("margin_ranking_loss", (f(3), f(3), f(3), 0.1, how))
case("kl_div", (f(2, 3), f(2, 3), 1, True))
case("smooth_l1_loss huber_loss", (f(3), f(3), 1, 0.5))
case("cosine_similarity", (f(2, 3), f(2, 3)), (f(2, 3), f(3), -1), (f(2, 3), f(2, 3), 0, 1e-3))
case("pairwise_distance", (f(2, 3), f(2, 3)), (f(2, 3), f(3), 1.0, 1e-3, True), (f(3), f(3)))
case("dist", (f(2, 3), f(2, 3)), (f(2, 3), f(3), 1))
