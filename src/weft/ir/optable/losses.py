"""Losses and distances between tensors. `reduction`: 0 gives one value an element, 1 the mean, 2 the sum."""

from __future__ import annotations

from functools import partial

from weft.errors import DtypeError, OpError, ShapeError
from weft.ir.optable.promote import need_float, need_same, result_type
from weft.ir.optable.rows import rule
from weft.ir.optable.shapes import broadcast, fits, one_of, without, wrap
from weft.ir.optable.spec import Index, op
from weft.ir.types import DTYPES, TensorType


def _reduced(name: str, dtype: str, shape: tuple[int, ...], reduction: int) -> TensorType:
    one_of(name, "reduction", reduction, 0, 1, 2)
    return TensorType(dtype, () if reduction else shape)


def _pair(name: str, x: TensorType, target: TensorType, reduction: int, *rest: object) -> TensorType:
    dtype = result_type(x, target)
    if DTYPES[dtype].category != "float":
        raise DtypeError(f"{name} needs floating tensors, was given {x} and {target}; convert with .float()")
    return _reduced(name, dtype, broadcast(x.shape, target.shape), reduction)


def _smooth(name: str, x: TensorType, target: TensorType, reduction: int, width: float) -> TensorType:
    if width < 0 or (name == "huber_loss" and width == 0):
        raise OpError(f"{name}: its width must be positive, was {width}")
    need_same(name, x, target)
    return _pair(name, x, target, reduction)


def _nll(
    name: str, x: TensorType, target: TensorType, weight: TensorType | None, reduction: int, ignore: int
) -> TensorType:
    need_float(name, x)
    need_same(name, x, weight)
    if target.dtype != "int64":
        raise DtypeError(f"{name}: classes must be int64, were {target}; convert with .long()")
    if not x.shape:
        raise ShapeError(f"{name} needs a dimension of classes, was given {x}")
    classes = x.shape[0] if len(x.shape) == 1 else x.shape[1]
    expected = () if len(x.shape) == 1 else without(x.shape, 1)
    if target.shape != expected or len(x.shape) > 5:
        raise ShapeError(f"{name}: for {x} the target must have shape {list(expected)}, was {target}")
    if weight is not None and weight.shape != (classes,):
        raise ShapeError(f"{name}: weight must have shape [{classes}], was {weight}")
    if classes == 0:
        raise ShapeError(f"{name} needs at least one class, was given {x}")
    return _reduced(name, x.dtype, target.shape, reduction)


def _cross_entropy(
    x: TensorType, target: TensorType, weight: TensorType | None, reduction: int, ignore: int, smoothing: float
) -> TensorType:
    name = "cross_entropy_loss"
    if not 0 <= smoothing <= 1:
        raise OpError(f"{name}: label_smoothing must be between 0 and 1, was {smoothing}")
    if target.shape != x.shape or not x.shape:
        return _nll(name, x, target, weight, reduction, ignore)
    need_float(name, x, target)
    need_same(name, x, target, weight)
    classes = x.shape[0] if len(x.shape) == 1 else x.shape[1]
    if weight is not None and weight.shape != (classes,):
        raise ShapeError(f"{name}: weight must have shape [{classes}], was {weight}")
    if ignore >= 0:
        raise OpError(f"{name}: ignore_index has no meaning for probabilities")
    shape = () if len(x.shape) == 1 else without(x.shape, 1)
    return _reduced(name, x.dtype, shape, reduction)


def _kl(x: TensorType, target: TensorType, reduction: int, log_target: bool) -> TensorType:
    need_float("kl_div", x, target)
    return _pair("kl_div", x, target, reduction)


def _bce(x: TensorType, target: TensorType, weight: TensorType | None, reduction: int) -> TensorType:
    need_float("binary_cross_entropy", x)
    need_same("binary_cross_entropy", x, target, weight)
    if x.shape != target.shape:
        raise ShapeError(f"binary_cross_entropy: {x} and {target} must have one shape")
    if weight is not None:
        fits(weight.shape, x.shape, "binary_cross_entropy: weight")
    return _reduced("binary_cross_entropy", x.dtype, x.shape, reduction)


def _bce_logits(
    x: TensorType, target: TensorType, weight: TensorType | None, positive: TensorType | None, reduction: int
) -> TensorType:
    name = "binary_cross_entropy_with_logits"
    need_float(name, x)
    need_same(name, x, target, weight, positive)
    if x.shape != target.shape:
        raise ShapeError(f"{name}: {x} and {target} must have one shape")
    for each in (weight, positive):
        if each is not None:
            fits(each.shape, x.shape, f"{name}: weights")
    return _reduced(name, x.dtype, x.shape, reduction)


def _cosine(a: TensorType, b: TensorType, dim: int, eps: float) -> TensorType:
    need_float("cosine_similarity", a, b)
    need_same("cosine_similarity", a, b)
    shape = broadcast(a.shape, b.shape)
    at = wrap(dim, len(shape))
    return TensorType(a.dtype, without(shape, at))


def _distance(a: TensorType, b: TensorType, p: float, eps: float, keepdim: bool) -> TensorType:
    need_float("pairwise_distance", a, b)
    shape = broadcast(a.shape, b.shape)
    if not shape:
        raise ShapeError("pairwise_distance needs at least one dimension")
    return TensorType(result_type(a, b), shape[:-1] + ((1,) if keepdim else ()))


def _dist(a: TensorType, b: TensorType, p: object) -> TensorType:
    need_float("dist", a, b)
    broadcast(a.shape, b.shape)
    return TensorType(result_type(a, b), ())


def _cosine_embedding(a: TensorType, b: TensorType, target: TensorType, margin: float, reduction: int) -> TensorType:
    name = "cosine_embedding_loss"
    need_float(name, a, b, target)
    need_same(name, a, b, target)
    ndim = len(target.shape) + 1
    if ndim not in (1, 2) or len(a.shape) != ndim or len(b.shape) != ndim:
        raise ShapeError(f"{name}: {a}, {b} and {target} do not fit")
    shape = broadcast(a.shape, b.shape)[:-1]
    return _reduced(name, a.dtype, broadcast(shape, target.shape), reduction)


def _ranking(a: TensorType, b: TensorType, target: TensorType, margin: float, reduction: int) -> TensorType:
    name = "margin_ranking_loss"
    need_float(name, a, b, target)
    need_same(name, a, b, target)
    if not len(a.shape) == len(b.shape) == len(target.shape):
        raise ShapeError(f"{name}: {a}, {b} and {target} must have equally many dimensions")
    return _reduced(name, a.dtype, broadcast(a.shape, b.shape, target.shape), reduction)


def _hinge(x: TensorType, target: TensorType, margin: float, reduction: int) -> TensorType:
    need_same("hinge_embedding_loss", x, target)
    return _pair("hinge_embedding_loss", x, target, reduction)


def _soft_margin(x: TensorType, target: TensorType, reduction: int) -> TensorType:
    need_same("soft_margin_loss", x, target)
    return _pair("soft_margin_loss", x, target, reduction)


CLASS = (Index("target", dim="class", ignore="ignore_index"),)
_classes = "tensor self, tensor target, tensor? weight=None, int reduction=1, int ignore_index=-100"
op("cross_entropy_loss", f"{_classes}, float label_smoothing=0.0", _cross_entropy, index=CLASS, rows=rule("classes"))
op("nll_loss_nd", _classes, partial(_nll, "nll_loss_nd"), index=CLASS, rows=rule("classes"))
for _name in ("mse_loss", "l1_loss"):
    op(_name, "tensor self, tensor target, int reduction=1", partial(_pair, _name), rows=rule("unreduced"))
_signature = "tensor self, tensor target, int reduction=1"
op("smooth_l1_loss", f"{_signature}, float beta=1.0", partial(_smooth, "smooth_l1_loss"), rows=rule("unreduced"))
op("huber_loss", f"{_signature}, float delta=1.0", partial(_smooth, "huber_loss"), rows=rule("unreduced"))
op("kl_div", "tensor self, tensor target, int reduction=1, bool log_target=False", _kl, rows=rule("unreduced"))
op("binary_cross_entropy", "tensor self, tensor target, tensor? weight=None, int reduction=1", _bce)
op("binary_cross_entropy_with_logits",
   "tensor self, tensor target, tensor? weight=None, tensor? pos_weight=None, int reduction=1", _bce_logits)  # fmt: skip
op("cosine_similarity", "tensor x1, tensor x2, int dim=1, float eps=1e-08", _cosine, rows=rule("similarity"))
op("pairwise_distance", "tensor x1, tensor x2, float p=2.0, float eps=1e-06, bool keepdim=False", _distance)
op("dist", "tensor self, tensor other, number p=2", _dist)
_signature = "tensor input1, tensor input2, tensor target, float margin=0.0, int reduction=1"
op("cosine_embedding_loss", _signature, _cosine_embedding)
op("margin_ranking_loss", _signature, _ranking)
op("hinge_embedding_loss", "tensor self, tensor target, float margin=1.0, int reduction=1", _hinge)
op("soft_margin_loss", "tensor self, tensor target, int reduction=1", _soft_margin)
