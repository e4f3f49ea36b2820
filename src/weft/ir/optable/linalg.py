"""Products of matrices, and linear algebra."""

from __future__ import annotations

from functools import partial
from typing import Any

from weft.errors import DtypeError, OpError, ShapeError
from weft.ir.nodes import Dtype
from weft.ir.optable.promote import need_float, need_same, promote, result_type
from weft.ir.optable.reductions import vector_norm
from weft.ir.optable.rows import MIXED, Leading, rule
from weft.ir.optable.shapes import broadcast, fits, need_dims, one_of, wrap
from weft.ir.optable.spec import op, tensors
from weft.ir.types import DTYPES, TensorType


def _need_numbers(name: str, *operands: TensorType | None) -> None:
    """Products of bools are not defined, and all operands have one dtype."""
    need_same(name, *operands)
    for each in operands:
        if each is not None and each.dtype == "bool":
            raise DtypeError(f"{name} is not defined for bools; convert with .float()")


def _inner(name: str, a: TensorType, b: TensorType, left: int, right: int) -> None:
    if left != right:
        raise ShapeError(f"{name}: {a} and {b} do not fit: {left} columns against {right} rows")


def mm(a: TensorType, b: TensorType) -> TensorType:
    need_dims("mm", a, 2)
    need_dims("mm", b, 2)
    _need_numbers("mm", a, b)
    _inner("mm", a, b, a.shape[1], b.shape[0])
    return TensorType(a.dtype, (a.shape[0], b.shape[1]))


def bmm(a: TensorType, b: TensorType) -> TensorType:
    need_dims("bmm", a, 3)
    need_dims("bmm", b, 3)
    _need_numbers("bmm", a, b)
    _inner("bmm", a, b, a.shape[2], b.shape[1])
    if a.shape[0] != b.shape[0]:
        raise ShapeError(f"bmm: {a} and {b} have different batch lengths")
    return TensorType(a.dtype, (a.shape[0], a.shape[1], b.shape[2]))


def _plus(name: str, x: TensorType, product: TensorType, beta: object, alpha: object) -> TensorType:
    need_same(name, x, product)
    if product.category == "int" and (isinstance(beta, float) or isinstance(alpha, float)):
        raise DtypeError(f"{name}: alpha and beta must be integers where the operands are")
    fits(x.shape, product.shape, name)
    return product


def _addmm(x: TensorType, a: TensorType, b: TensorType, beta: object, alpha: object) -> TensorType:
    return _plus("addmm", x, mm(a, b), beta, alpha)


def _baddbmm(x: TensorType, a: TensorType, b: TensorType, beta: object, alpha: object) -> TensorType:
    return _plus("baddbmm", x, bmm(a, b), beta, alpha)


def _mv(a: TensorType, v: TensorType) -> TensorType:
    need_dims("mv", a, 2)
    need_dims("mv", v, 1)
    _need_numbers("mv", a, v)
    _inner("mv", a, v, a.shape[1], v.shape[0])
    return TensorType(a.dtype, (a.shape[0],))


def _addmv(x: TensorType, a: TensorType, v: TensorType, beta: object, alpha: object) -> TensorType:
    out = _plus("addmv", x, _mv(a, v), beta, alpha)
    if a.numel == 0 and x.shape != out.shape:
        raise ShapeError(f"addmv with the empty {a}: {x} must have shape {list(out.shape)}")  # else PyTorch's is wrong
    return out


def _dot(a: TensorType, b: TensorType) -> TensorType:
    need_dims("dot", a, 1)
    need_dims("dot", b, 1)
    _need_numbers("dot", a, b)
    _inner("dot", a, b, a.shape[0], b.shape[0])
    return TensorType(a.dtype, ())


def _outer(a: TensorType, b: TensorType) -> TensorType:
    need_dims("outer", a, 1)
    need_dims("outer", b, 1)
    return TensorType(result_type(a, b), a.shape + b.shape)


def matmul(a: TensorType, b: TensorType, name: str = "matmul") -> TensorType:
    """The rule of matmul: vectors, matrices, and batches of them."""
    _need_numbers(name, a, b)
    if not a.shape or not b.shape:
        raise ShapeError(f"{name} needs at least one dimension on each side, was given {a} and {b}")
    left = a.shape if len(a.shape) > 1 else (1, *a.shape)
    right = b.shape if len(b.shape) > 1 else (*b.shape, 1)
    _inner(name, a, b, left[-1], right[-2])
    out = broadcast(left[:-2], right[:-2])
    out += (left[-2],) if len(a.shape) > 1 else ()
    out += (right[-1],) if len(b.shape) > 1 else ()
    return TensorType(a.dtype, out)


def _linear(x: TensorType, weight: TensorType, bias: TensorType | None) -> TensorType:
    _need_numbers("linear", x, weight, bias)
    need_dims("linear", weight, 1, 2, name="weight")
    if not x.shape or x.shape[-1] != weight.shape[-1]:
        raise ShapeError(f"linear: {x} does not fit the weight {weight}: its last dimension must be {weight.shape[-1]}")
    out = x.shape[:-1] + weight.shape[:-1]
    if bias is not None:
        if len(weight.shape) == 1:
            raise ShapeError(f"linear: with a bias the weight must be a matrix, was {weight}")
        if bias.shape != weight.shape[:1]:
            raise ShapeError(f"linear: bias must have shape [{weight.shape[0]}], was {bias}")
    return TensorType(x.dtype, out)


def product_cost(args: tuple[Any, ...], outputs: tuple[TensorType, ...]) -> int:
    """Two operations for every element of the output times the length summed over."""
    given = tensors(args)
    first = given[-2] if len(given) > 1 else given[0]
    return 2 * outputs[0].numel * (first.shape[-1] if first.shape else 1)


def linear_cost(args: tuple[Any, ...], outputs: tuple[TensorType, ...]) -> int:
    return 2 * outputs[0].numel * args[1].shape[-1]


def cubic(args: tuple[Any, ...], outputs: tuple[TensorType, ...]) -> int:
    """A decomposition: about ten times rows × columns × the shorter of both, for each matrix."""
    x = args[0]
    return 10 * x.numel * min(x.shape[-2:], default=1) if len(x.shape) > 1 else x.numel


def _square(name: str, x: TensorType) -> TensorType:
    _matrix(name, x)
    if x.shape[-1] != x.shape[-2]:
        raise ShapeError(f"{name} needs square matrices, was given {x}")
    return x


def _matrix(name: str, x: TensorType) -> TensorType:
    if x.dtype not in ("float32", "float64"):
        raise DtypeError(f"{name} works in float32 and float64, was given {x}; convert with .float()")
    if len(x.shape) < 2:
        raise ShapeError(f"{name} needs matrices, was given {x}")
    return x


def _det(x: TensorType) -> TensorType:
    return TensorType(_square("det", x).dtype, x.shape[:-2])


def _slogdet(x: TensorType) -> tuple[TensorType, TensorType]:
    return _det(x), _det(x)


def _cholesky(x: TensorType, upper: bool) -> TensorType:
    return _square("cholesky", x)


def _pinv(x: TensorType, atol: float | None, rtol: float | None, hermitian: bool) -> TensorType:
    _matrix("pinv", x)
    if hermitian:
        _square("pinv of a symmetric matrix", x)
    return TensorType(x.dtype, x.shape[:-2] + (x.shape[-1], x.shape[-2]))


def _qr(x: TensorType, mode: str) -> tuple[TensorType, TensorType]:
    # Mode "r" gives an empty Q: it stays out, since nobody means to ask for one.
    one_of("qr", "mode", mode, "reduced", "complete")
    *batch, m, n = _matrix("qr", x).shape
    k = min(m, n) if mode == "reduced" else m
    return TensorType(x.dtype, (*batch, m, k)), TensorType(x.dtype, (*batch, k, n))


def _svd(x: TensorType, full: bool, driver: str | None) -> tuple[TensorType, ...]:
    one_of("svd", "driver", driver, None)
    *batch, m, n = _matrix("svd", x).shape
    k = min(m, n)
    left, right = (m, n) if full else (k, k)
    shapes = ((*batch, m, left), (*batch, k), (*batch, right, n))
    return tuple(TensorType(x.dtype, shape) for shape in shapes)


def _svdvals(x: TensorType, driver: str | None) -> TensorType:
    return _svd(x, False, driver)[1]


def _eigh(x: TensorType, triangle: str) -> tuple[TensorType, TensorType]:
    one_of("eigh", "UPLO", triangle, "L", "U")
    _square("eigh", x)
    return TensorType(x.dtype, x.shape[:-1]), x


def _eigvalsh(x: TensorType, triangle: str) -> TensorType:
    return _eigh(x, triangle)[0]


def _solve(a: TensorType, b: TensorType, left: bool) -> TensorType:
    _square("solve", a)
    need_same("solve", a, b)
    vector = len(b.shape) == 1 or (len(a.shape) - 1 == len(b.shape) and b.shape == a.shape[:-1])
    if vector:
        if not left:
            raise ShapeError("solve: a vector stands on the right; use left=True")
        columns = (*b.shape, 1)
    else:
        columns = b.shape
    if len(columns) < 2:
        raise ShapeError(f"solve: {b} must be a vector or a matrix")
    if columns[-2 if left else -1] != a.shape[-1]:
        raise ShapeError(f"solve: {a} and {b} do not fit")
    batch = broadcast(a.shape[:-2], columns[:-2])
    return TensorType(a.dtype, batch + columns[-2:-1] if vector else batch + columns[-2:])


def _solve_triangular(a: TensorType, b: TensorType, upper: bool, left: bool, unit: bool) -> TensorType:
    _square("solve_triangular", a)
    _matrix("solve_triangular", b)
    need_same("solve_triangular", a, b)
    if b.shape[-2 if left else -1] != a.shape[-1]:
        raise ShapeError(f"solve_triangular: {a} and {b} do not fit")
    return TensorType(a.dtype, broadcast(a.shape[:-2], b.shape[:-2]) + b.shape[-2:])


def _householder(x: TensorType, tau: TensorType) -> TensorType:
    _matrix("householder_product", x)
    need_same("householder_product", x, tau)
    if x.shape[-2] < x.shape[-1] or tau.shape[:-1] != x.shape[:-2] or not tau.shape or tau.shape[-1] > x.shape[-1]:
        raise ShapeError(f"householder_product: {x} and {tau} do not fit")
    return x


def _cross(a: TensorType, b: TensorType, dim: int) -> TensorType:
    if len(a.shape) != len(b.shape) or not a.shape:
        raise ShapeError(f"cross: {a} and {b} must have equally many dimensions")
    need_same("cross", a, b)
    at = wrap(dim, len(a.shape))
    if a.shape[at] != 3 or b.shape[at] != 3:
        raise ShapeError(f"cross: dimension {dim} of {a} and {b} must have length 3")
    if a.dtype == "bool":
        raise DtypeError("cross is not defined for bools")
    return TensorType(a.dtype, broadcast(a.shape, b.shape))


def _matrix_norm(x: TensorType, order: object, dim: tuple[int, ...], keepdim: bool, dtype: Dtype | None) -> TensorType:
    need_float("a norm", x)
    if len(x.shape) < 2 or len(dim) != 2:
        raise ShapeError(f"a matrix norm needs two dimensions, was given {x} and dim={dim}")
    if x.dtype not in ("float32", "float64"):
        raise DtypeError(f"matrix norms work in float32 and float64, was given {x}")
    one_of("linalg_matrix_norm", "ord", order, "fro", "nuc", 1, -1, 2, -2, float("inf"), float("-inf"))
    out = vector_norm(x, 2, dim, keepdim, dtype)
    if x.numel == 0 and order not in ("fro", "nuc"):
        raise ShapeError(f"a matrix norm of nothing: {x}")
    return out


def _norm(x: TensorType, order: object, dim: tuple[int, ...] | None, keepdim: bool, dtype: Dtype | None) -> TensorType:
    matrix = (dim is not None and len(dim) == 2) or (dim is None and order is not None and len(x.shape) == 2)
    if isinstance(order, str) and not matrix:
        raise ShapeError(f"norm: {order!r} is a norm of matrices; {x} needs dim= two dimensions")
    if order is not None and matrix:
        return _matrix_norm(x, order, dim or (0, 1), keepdim, dtype)
    if order is not None and not matrix and (len(dim) != 1 if dim is not None else len(x.shape) != 1):
        raise ShapeError(f"norm: with an order, {x} needs one dimension or two, was given dim={dim}")
    return vector_norm(x, 2 if order is None else order, dim, keepdim, dtype)


def _einsum(equation: str, operands: tuple[TensorType, ...], path: object) -> TensorType:
    """Explicit or implicit, with or without an ellipsis."""
    if not operands:
        raise OpError("einsum needs at least one operand")
    need_same("einsum", *operands)
    if operands[0].dtype not in ("float16", "bfloat16", "float32", "float64", "int64"):
        # PyTorch sums small integers sometimes as they are and sometimes as int64, by the order it chooses.
        raise DtypeError(f"einsum works on floating tensors and int64, was given {operands[0]}; convert with .float()")
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(operands):
        raise OpError(f"einsum {equation!r} names {len(terms)} operands, was given {len(operands)}")
    lengths: dict[str, int] = {}
    rest: tuple[int, ...] = ()
    for term, operand in zip(terms, operands, strict=True):
        rest = broadcast(rest, _read_term(equation, term, operand, lengths))
    return TensorType(operands[0].dtype, _einsum_shape(equation, left, right if arrow else None, lengths, rest))


def _read_term(equation: str, term: str, operand: TensorType, lengths: dict[str, int]) -> tuple[int, ...]:
    """Note the lengths of a term's letters; gives what its ellipsis stands for."""
    before, dots, after = term.partition("...")
    letters = before + after
    if any(not (char.isascii() and char.isalpha()) for char in letters):
        raise OpError(f"einsum {equation!r}: {term!r} may hold letters and one '...'")
    extra = len(operand.shape) - len(letters)
    if extra < 0 or (extra and not dots):
        raise ShapeError(f"einsum {equation!r}: {term!r} does not name the dimensions of {operand}")
    shape = operand.shape[: len(before)] + operand.shape[len(before) + extra :]
    own: dict[str, int] = {}
    for letter, length in zip(letters, shape, strict=True):
        if own.setdefault(letter, length) != length:
            raise ShapeError(f"einsum {equation!r}: {letter!r} is {own[letter]} and {length} in {operand}")
        known = lengths.get(letter, 1)
        if 1 not in (known, length) and known != length:
            raise ShapeError(f"einsum {equation!r}: {letter!r} is {known} and {length}")
        lengths[letter] = length if known == 1 else known
    return operand.shape[len(before) : len(before) + extra]


def _einsum_shape(
    equation: str, left: str, right: str | None, lengths: dict[str, int], rest: tuple[int, ...]
) -> tuple[int, ...]:
    if right is None:
        letters = left.replace(".", "").replace(",", "")
        return rest + tuple(lengths[each] for each in sorted(set(letters)) if letters.count(each) == 1)
    before, dots, after = right.partition("...")
    for each in before + after:
        if each not in lengths or (before + after).count(each) > 1:
            raise OpError(f"einsum {equation!r}: the output's {each!r} must be one of the inputs', once")
    head, tail = tuple(lengths[each] for each in before), tuple(lengths[each] for each in after)
    return head + (rest if dots else ()) + tail


def _einsum_cost(args: tuple[Any, ...], outputs: tuple[TensorType, ...]) -> int:
    lengths: dict[str, int] = {}
    rest: tuple[int, ...] = ()
    for term, operand in zip(args[0].replace(" ", "").partition("->")[0].split(","), args[1], strict=True):
        rest = broadcast(rest, _read_term(args[0], term, operand, lengths))
    total = 1
    for length in (*lengths.values(), *rest):
        total *= length
    return 2 * total


def _kron(a: TensorType, b: TensorType) -> TensorType:
    ndim = max(len(a.shape), len(b.shape))
    left, right = (1,) * (ndim - len(a.shape)) + a.shape, (1,) * (ndim - len(b.shape)) + b.shape
    return TensorType(promote(a.dtype, b.dtype) or a.dtype, tuple(m * n for m, n in zip(left, right, strict=True)))


def _trace(x: TensorType) -> TensorType:
    need_dims("trace", x, 2)
    if x.dtype in ("bool", "float16", "bfloat16"):
        raise DtypeError(f"trace is not defined for {x}")
    return TensorType("int64" if DTYPES[x.dtype].category == "int" else x.dtype, ())


def _cdist(a: TensorType, b: TensorType, p: float, mode: int | None) -> TensorType:
    _matrix("cdist", a)
    _matrix("cdist", b)
    need_same("cdist", a, b)
    one_of("cdist", "compute_mode", mode, None, 0, 1, 2)
    if p < 0 or a.shape[-1] != b.shape[-1]:
        raise ShapeError(f"cdist: {a} and {b} need equal last dimensions, and p (here {p}) cannot be negative")
    return TensorType(a.dtype, broadcast(a.shape[:-2], b.shape[:-2]) + (a.shape[-2], b.shape[-2]))


def _pdist(x: TensorType, p: float) -> TensorType:
    _matrix("pdist", x)
    need_dims("pdist", x, 2)
    if p < 0:
        raise OpError(f"pdist: p cannot be negative, was {p}")
    return TensorType(x.dtype, (x.shape[0] * (x.shape[0] - 1) // 2,))


product = partial(op, cost=product_cost)
product("mm", "tensor self, tensor mat2", mm, rows=rule("matmul"))
product("bmm", "tensor self, tensor mat2", bmm, rows=rule("matmul"))
product("addmm", "tensor self, tensor mat1, tensor mat2, number beta=1, number alpha=1", _addmm,
        rows=Leading(1, 1, 2))  # fmt: skip
product("baddbmm", "tensor self, tensor batch1, tensor batch2, number beta=1, number alpha=1", _baddbmm,
        rows=Leading(2, 2, 2))  # fmt: skip
product("mv", "tensor self, tensor vec", _mv, rows=rule("matmul"))
product("addmv", "tensor self, tensor mat, tensor vec, number beta=1, number alpha=1", _addmv,
        rows=Leading(0, 1, 1))  # fmt: skip
product("dot", "tensor self, tensor tensor", _dot)
product("vdot", "tensor self, tensor other", _dot)
op("outer", "tensor self, tensor vec2", _outer)
product("matmul", "tensor self, tensor other", matmul, rows=rule("matmul"))
op("linear", "tensor input, tensor weight, tensor? bias=None", _linear, cost=linear_cost, rows=Leading(1, 2, 1))
op("einsum", "str equation, tensors tensors, ints? path=None", _einsum, cost=_einsum_cost, rows=rule("einsum"))
op("kron", "tensor self, tensor other", _kron)
op("trace", "tensor self", _trace)

matrix = partial(op, cost=cubic, rows=Leading(2))
for _name in ("linalg_inv", "linalg_matrix_exp"):
    matrix(_name, "tensor A" if _name == "linalg_inv" else "tensor self", partial(_square, _name))
matrix("linalg_det", "tensor A", _det)
matrix("linalg_slogdet", "tensor A", _slogdet, outputs=2)
matrix("linalg_cholesky", "tensor self, bool upper=False", _cholesky)
_signature = "tensor self, float? atol=None, float? rtol=None, bool hermitian=False"
matrix("linalg_pinv.atol_rtol_float", _signature, _pinv)
matrix("linalg_qr", "tensor A, str mode='reduced'", _qr, outputs=2)
matrix("linalg_svd", "tensor A, bool full_matrices=True, str? driver=None", _svd, outputs=3)
matrix("linalg_svdvals", "tensor A, str? driver=None", _svdvals)
matrix("linalg_eigh", "tensor self, str UPLO='L'", _eigh, outputs=2)
matrix("linalg_eigvalsh", "tensor self, str UPLO='L'", _eigvalsh)
matrix("linalg_solve", "tensor A, tensor B, bool left=True", _solve, rows=MIXED)
_signature = "tensor self, tensor B, bool upper, bool left=True, bool unitriangular=False"
matrix("linalg_solve_triangular", _signature, _solve_triangular, rows=Leading(2, 2))
matrix("linalg_householder_product", "tensor input, tensor tau", _householder, rows=Leading(2, 1))
op("linalg_cross", "tensor self, tensor other, int dim=-1", _cross)
_rest = "bool keepdim=False, dtype? dtype=None"
matrix("linalg_norm", f"tensor self, number? ord=None, ints? dim=None, {_rest}", _norm, rows=MIXED)
matrix("linalg_norm.ord_str", f"tensor self, str ord, ints? dim=None, {_rest}", _norm, rows=MIXED)
matrix("linalg_matrix_norm", f"tensor self, number ord, ints dim=(-2, -1), {_rest}", _matrix_norm, rows=MIXED)
matrix(
    "linalg_matrix_norm.str_ord", f"tensor self, str ord='fro', ints dim=(-2, -1), {_rest}", _matrix_norm, rows=MIXED
)
product("cdist", "tensor x1, tensor x2, float p=2.0, int? compute_mode=None", _cdist, rows=Leading(2, 2))
product("pdist", "tensor self, float p=2.0", _pdist)
