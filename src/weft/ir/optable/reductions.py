"""Operations that work along dimensions: sums, means, extremes, norms, running sums, order."""

from __future__ import annotations

from functools import partial
from typing import Any

from weft.errors import DtypeError, OpError, ShapeError
from weft.ir.nodes import Dtype
from weft.ir.optable.promote import need_float, to_float, to_sum
from weft.ir.optable.rows import MIXED, Along
from weft.ir.optable.shapes import need_nonempty, one_of, reduced, with_length, without, wrap, wrap_all
from weft.ir.optable.spec import op
from weft.ir.types import DTYPES, TensorType

Dims = tuple[int, ...] | None
INDICES = "int64"


def _reduce(x: TensorType, dim: Dims, keepdim: bool, dtype: str) -> TensorType:
    return TensorType(dtype, reduced(x.shape, wrap_all(dim, len(x.shape)), keepdim))


def _sum(x: TensorType, dim: Dims = None, keepdim: bool = False, dtype: Dtype | None = None) -> TensorType:
    return _reduce(x, dim, keepdim, dtype.name if dtype else to_sum(x.dtype))


def _sum_all(x: TensorType, dtype: Dtype | None = None) -> TensorType:
    return _sum(x, None, False, dtype)


def _prod_dim(x: TensorType, dim: int, keepdim: bool, dtype: Dtype | None) -> TensorType:
    return _sum(x, (dim,), keepdim, dtype)


def _mean(x: TensorType, dim: Dims = None, keepdim: bool = False, dtype: Dtype | None = None) -> TensorType:
    out = dtype.name if dtype else x.dtype
    if DTYPES[out].category != "float":
        raise DtypeError(f"mean needs a floating tensor, was given {x}; convert with .float()")
    return _reduce(x, dim, keepdim, out)


def _nanmean(x: TensorType, dim: Dims, keepdim: bool, dtype: Dtype | None) -> TensorType:
    need_float("nanmean", x)
    return _mean(x, dim, keepdim, dtype)


def _mean_all(x: TensorType, dtype: Dtype | None = None) -> TensorType:
    return _mean(x, None, False, dtype)


def _var(name: str, x: TensorType, dim: Dims, correction: object, keepdim: bool) -> TensorType:
    need_float(name, x)
    return _reduce(x, dim, keepdim, x.dtype)


def _var_pair(name: str, x: TensorType, dim: Dims, correction: object, keepdim: bool) -> tuple[TensorType, ...]:
    return (_var(name, x, dim, correction, keepdim),) * 2


def _extreme(name: str, x: TensorType, dim: Dims = (), keepdim: bool = False) -> TensorType:
    need_nonempty(name, x, wrap_all(dim, len(x.shape)))
    return _reduce(x, dim, keepdim, x.dtype)


def _extreme_dim(name: str, x: TensorType, dim: int, keepdim: bool = False) -> tuple[TensorType, TensorType]:
    if name in ("median", "nanmedian") and x.dtype == "bool":
        raise DtypeError(f"{name} is not defined for bools")
    values = _extreme(name, x, (dim,), keepdim)
    return values, TensorType(INDICES, values.shape)


def _extreme_both(x: TensorType, dim: int | None, keepdim: bool) -> tuple[TensorType, TensorType]:
    found = _extreme("aminmax", x, None if dim is None else (dim,), keepdim)
    return found, found


def _median(x: TensorType) -> TensorType:
    if x.dtype == "bool":
        raise DtypeError("median is not defined for bools")
    return TensorType(x.dtype, ())


def _place(name: str, x: TensorType, dim: int | None, keepdim: bool) -> TensorType:
    if x.dtype == "bool":
        raise DtypeError(f"{name} is not defined for bools; convert with .long()")
    return TensorType(INDICES, _extreme(name, x, None if dim is None else (dim,), keepdim).shape)


def _truth(x: TensorType, dim: Dims = None, keepdim: bool = False) -> TensorType:
    return _reduce(x, dim, keepdim, "uint8" if x.dtype == "uint8" else "bool")


def _truth_dim(x: TensorType, dim: int, keepdim: bool = False) -> TensorType:
    return _truth(x, (dim,), keepdim)


def _truth_dims(x: TensorType, dim: Dims = None, keepdim: bool = False) -> TensorType:
    # Unlike everywhere else, an empty list means no dimension here, not all of them.
    out = _truth(x, None, False)
    dims = () if dim == () else wrap_all(dim, len(x.shape))
    return TensorType(out.dtype, reduced(x.shape, dims, keepdim))


def _count(x: TensorType, dim: Dims | int = None) -> TensorType:
    return _reduce(x, (dim,) if isinstance(dim, int) else dim, False, INDICES)


def vector_norm(x: TensorType, order: Any, dim: Dims, keepdim: bool, dtype: Dtype | None) -> TensorType:
    """The rule of linalg_vector_norm."""
    need_float("a norm", x)
    if dtype and (DTYPES[dtype.name].category != "float" or DTYPES[dtype.name].itemsize < DTYPES[x.dtype].itemsize):
        raise DtypeError(f"a norm of {x} cannot be taken in {dtype.name}, which holds less")
    out = dtype.name if dtype else x.dtype
    if isinstance(order, bool):
        raise OpError("a norm's order must be a number")
    if order is not None and (order < 0 or order == float("inf")):
        need_nonempty("this norm", x, wrap_all(dim, len(x.shape)))
    return _reduce(x, dim, keepdim, out)


def _norm(x: TensorType, p: object, dim: Dims = None, keepdim: bool = False) -> TensorType:
    return vector_norm(x, 2 if p is None else p, dim, keepdim, None)


def _logsumexp(x: TensorType, dim: Dims, keepdim: bool) -> TensorType:
    return _reduce(x, dim, keepdim, to_float(x.dtype))


def _running_sum(x: TensorType, dim: int, dtype: Dtype | None = None) -> TensorType:
    wrap(dim, len(x.shape))
    return TensorType(dtype.name if dtype else to_sum(x.dtype), x.shape)


def _running_logsumexp(x: TensorType, dim: int) -> TensorType:
    need_float("logcumsumexp", x)
    wrap(dim, len(x.shape))
    return x


def _running_extreme(x: TensorType, dim: int) -> tuple[TensorType, TensorType]:
    wrap(dim, len(x.shape))
    return x, TensorType(INDICES, x.shape)


def _sort(x: TensorType, dim: int, *rest: object) -> tuple[TensorType, TensorType]:
    wrap(dim, len(x.shape))
    return x, TensorType(INDICES, x.shape)


def _sort_stable(x: TensorType, stable: object, dim: int, descending: bool) -> tuple[TensorType, TensorType]:
    return _sort(x, dim)


def _argsort(x: TensorType, dim: int, *rest: object) -> TensorType:
    return _sort(x, dim)[1]


def _argsort_stable(x: TensorType, stable: object, dim: int, descending: bool) -> TensorType:
    return _sort(x, dim)[1]


def _topk(x: TensorType, k: int, dim: int, *rest: object) -> tuple[TensorType, TensorType]:
    place = wrap(dim, len(x.shape))
    length = x.shape[place] if x.shape else 1
    if not 0 <= k <= length:
        raise ShapeError(f"topk: k is {k}, but dimension {place} of {x} has {length}")
    if x.dtype == "bool":
        raise DtypeError("topk is not defined for bools")
    values = TensorType(x.dtype, with_length(x.shape, place, k) if x.shape else ())
    return values, TensorType(INDICES, values.shape)


def _kth(x: TensorType, k: int, dim: int, keepdim: bool) -> tuple[TensorType, TensorType]:
    place = wrap(dim, len(x.shape))
    length = x.shape[place] if x.shape else 1
    if not 1 <= k <= length:
        raise ShapeError(f"kthvalue: k is {k}, but dimension {place} of {x} has {length}")
    if x.dtype == "bool":
        raise DtypeError("kthvalue is not defined for bools")
    return _extreme_dim("kthvalue", x, dim, keepdim)


def quantile_shape(x: TensorType, q: tuple[int, ...], dim: int | None, keepdim: bool) -> TensorType:
    """The type of quantiles: those of `q` in front of the reduced shape."""
    dims = wrap_all(None if dim is None else (dim,), len(x.shape))
    if x.numel == 0:
        raise ShapeError(f"quantile of an empty tensor: {x}")
    if x.dtype not in ("float32", "float64"):
        raise DtypeError(f"quantile works on float32 and float64, was given {x}")
    return TensorType(x.dtype, q + reduced(x.shape, dims, keepdim))


def _quantile(x: TensorType, q: TensorType, dim: int | None, keepdim: bool, way: str) -> TensorType:
    one_of("quantile", "interpolation", way, "linear", "lower", "higher", "midpoint", "nearest")
    if q.dtype != x.dtype or len(q.shape) > 1:
        raise DtypeError(f"quantile: q must be of dtype {x.dtype} with at most one dimension, was {q}")
    return quantile_shape(x, q.shape, dim, keepdim)


def _quantile_scalar(x: TensorType, q: float, dim: int | None, keepdim: bool, way: str) -> TensorType:
    one_of("quantile", "interpolation", way, "linear", "lower", "higher", "midpoint", "nearest")
    if not 0 <= q <= 1:
        raise OpError(f"quantile: q must be between 0 and 1, was {q}")
    return quantile_shape(x, (), dim, keepdim)


def softmax(name: str, x: TensorType, dim: int, dtype: Dtype | None = None) -> TensorType:
    wrap(dim, len(x.shape))
    out = dtype.name if dtype else x.dtype
    if DTYPES[out].category != "float":
        raise DtypeError(f"{name} needs a floating tensor, was given {x}; convert with .float()")
    return TensorType(out, x.shape)


def _flip(x: TensorType, dims: tuple[int, ...]) -> TensorType:
    if dims:
        wrap_all(dims, len(x.shape))
    return x


def _roll(x: TensorType, shifts: tuple[int, ...], dims: tuple[int, ...]) -> TensorType:
    if len(shifts) != len(dims) and not (len(shifts) == 1 and not dims):
        raise ShapeError(f"roll: shifts {shifts} and dims {dims} must be equally many")
    for dim in dims:
        wrap(dim, len(x.shape))
        if not x.shape:
            raise ShapeError("roll: a tensor without dimensions has none to roll")
    return x


def _diff(x: TensorType, n: int, dim: int, prepend: TensorType | None, append: TensorType | None) -> TensorType:
    if not x.shape:
        raise ShapeError("diff needs at least one dimension")
    place = wrap(dim, len(x.shape))
    length = x.shape[place]
    for extra in (prepend, append):
        if extra is not None:
            if extra.dtype != x.dtype or len(extra.shape) != len(x.shape):
                raise ShapeError(f"diff: what is put before or after must look like {x}, was {extra}")
            if without(extra.shape, place) != without(x.shape, place):
                raise ShapeError(f"diff: {extra} does not fit {x} along dimension {place}")
            length += extra.shape[place]
    if n < 0:
        raise OpError(f"diff: n must not be negative, was {n}")
    if n == 0:
        return x  # as it is, without what was to be put before and after
    return TensorType(x.dtype, with_length(x.shape, place, max(length - n, 0)))


ALONG = Along("dim")
op("sum", "tensor self, dtype? dtype=None", _sum_all)
op("sum.dim_IntList", "tensor self, ints? dim, bool keepdim=False, dtype? dtype=None", _sum, rows=ALONG)
op("nansum", "tensor self, ints? dim=None, bool keepdim=False, dtype? dtype=None", _sum, rows=ALONG)
op("prod", "tensor self, dtype? dtype=None", _sum_all)
op("prod.dim_int", "tensor self, int dim, bool keepdim=False, dtype? dtype=None", _prod_dim, rows=ALONG)
op("mean", "tensor self, dtype? dtype=None", _mean_all)
op("mean.dim", "tensor self, ints? dim, bool keepdim=False, dtype? dtype=None", _mean, rows=ALONG)
op("nanmean", "tensor self, ints? dim=None, bool keepdim=False, dtype? dtype=None", _nanmean, rows=ALONG)
for _name in ("var", "std"):
    _signature = "tensor self, ints? dim=None, number? correction=None, bool keepdim=False"
    op(f"{_name}.correction", _signature, partial(_var, _name), rows=ALONG)
    op(f"{_name}_mean.correction", _signature, partial(_var_pair, _name), outputs=2, rows=ALONG)
for _name in ("amax", "amin"):
    op(_name, "tensor self, ints dim=(), bool keepdim=False", partial(_extreme, _name), rows=ALONG)
for _name in ("max", "min"):
    op(_name, "tensor self", partial(_extreme, _name))
    op(f"{_name}.dim", "tensor self, int dim, bool keepdim=False", partial(_extreme_dim, _name), outputs=2, rows=ALONG)
op("aminmax", "tensor self, int? dim=None, bool keepdim=False", _extreme_both, outputs=2, rows=ALONG)
for _name in ("median", "nanmedian"):
    op(_name, "tensor self", _median)
    op(f"{_name}.dim", "tensor self, int dim, bool keepdim=False", partial(_extreme_dim, _name), outputs=2, rows=ALONG)
op("mode", "tensor self, int dim=-1, bool keepdim=False", partial(_extreme_dim, "mode"), outputs=2, rows=ALONG)
for _name in ("argmax", "argmin"):
    op(_name, "tensor self, int? dim=None, bool keepdim=False", partial(_place, _name), rows=ALONG)
for _name in ("any", "all"):
    op(_name, "tensor self", _truth)
    op(f"{_name}.dim", "tensor self, int dim, bool keepdim=False", _truth_dim, rows=ALONG)
    op(f"{_name}.dims", "tensor self, ints? dim=None, bool keepdim=False", _truth_dims, rows=ALONG)
op("count_nonzero", "tensor self, int? dim=None", _count, rows=ALONG)
op("count_nonzero.dim_IntList", "tensor self, ints dim", _count, rows=ALONG)
_signature = "tensor self, number ord=2, ints? dim=None, bool keepdim=False, dtype? dtype=None"
op("linalg_vector_norm", _signature, vector_norm, rows=ALONG)
op("norm.Scalar", "tensor self, number p=2", _norm)
op("norm.ScalarOpt_dim", "tensor self, number? p, ints dim, bool keepdim=False", _norm, rows=ALONG)
op("logsumexp", "tensor self, ints dim, bool keepdim=False", _logsumexp, rows=ALONG)
op("cumsum", "tensor self, int dim, dtype? dtype=None", _running_sum, rows=ALONG)
op("cumprod", "tensor self, int dim, dtype? dtype=None", _running_sum, rows=ALONG)
op("logcumsumexp", "tensor self, int dim", _running_logsumexp, rows=ALONG)
op("cummax", "tensor self, int dim", _running_extreme, outputs=2, rows=ALONG)
op("cummin", "tensor self, int dim", _running_extreme, outputs=2, rows=ALONG)
op("sort", "tensor self, int dim=-1, bool descending=False", _sort, outputs=2, rows=ALONG)
_signature = "tensor self, bool? stable, int dim=-1, bool descending=False"
op("sort.stable", _signature, _sort_stable, outputs=2, rows=ALONG)
op("argsort", "tensor self, int dim=-1, bool descending=False", _argsort, rows=ALONG)
op("argsort.stable", "tensor self, bool stable, int dim=-1, bool descending=False", _argsort_stable, rows=ALONG)
_signature = "tensor self, int k, int dim=-1, bool largest=True, bool sorted=True"
op("topk", _signature, _topk, outputs=2, rows=ALONG)
op("kthvalue", "tensor self, int k, int dim=-1, bool keepdim=False", _kth, outputs=2, rows=ALONG)
_signature = "int? dim=None, bool keepdim=False, str interpolation='linear'"
op("quantile", f"tensor self, tensor q, {_signature}", _quantile, rows=MIXED)
op("quantile.scalar", f"tensor self, float q, {_signature}", _quantile_scalar, rows=ALONG)
for _name in ("softmax", "log_softmax"):
    op(f"{_name}.int", "tensor self, int dim, dtype? dtype=None", partial(softmax, _name), rows=ALONG)
op("flip", "tensor self, ints dims", _flip, rows=Along("dims"))
op("roll", "tensor self, ints shifts, ints dims=()", _roll, rows=Along("dims"))
op("diff", "tensor self, int n=1, int dim=-1, tensor? prepend=None, tensor? append=None", _diff)
