"""Operations element by element: arithmetic, comparison, bits, activations, casts, fresh values of a given shape."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from weft.errors import DtypeError, OpError
from weft.ir.nodes import Dtype
from weft.ir.optable.promote import need_float, need_same, result_type, to_float
from weft.ir.optable.rows import FRESH, POINTWISE
from weft.ir.optable.shapes import broadcast, fits, need_sizes, one_of
from weft.ir.optable.spec import op
from weft.ir.types import DTYPES, TensorType

Operand = TensorType | bool | int | float


def _shape(*operands: Operand | None) -> tuple[int, ...]:
    return broadcast(*(each.shape for each in operands if isinstance(each, TensorType)))


def _category(operand: Operand) -> str:
    return operand.category if isinstance(operand, TensorType) else type(operand).__name__


def same(x: TensorType, *rest: object) -> TensorType:
    """One operand, and its own type back."""
    return x


def _same_but(name: str, *refused: str) -> Callable[..., TensorType]:
    """As `same`, for operations that have no meaning for some categories."""

    def rule(x: TensorType, *rest: object) -> TensorType:
        if x.category in refused:
            raise DtypeError(f"{name} is not defined for {x}; convert with .float() or .long()")
        return x

    return rule


def _floating(name: str, x: TensorType, *rest: object) -> TensorType:
    need_float(name, x)
    return x


def _to_float(x: TensorType, *rest: object) -> TensorType:
    return TensorType(to_float(x.dtype), x.shape)


def _to_bool(x: TensorType, *rest: object) -> TensorType:
    return TensorType("bool", x.shape)


def _pair(x: Operand, y: Operand, *rest: object) -> TensorType:
    return TensorType(result_type(x, y), _shape(x, y))


def _add(name: str, x: Operand, y: Operand, alpha: bool | int | float = 1) -> TensorType:
    out = _pair(x, y)
    if name != "add" and "bool" in (_category(x), _category(y)):
        raise DtypeError(f"{name} with a bool tensor is not defined; use ~ to invert a mask, or convert it first")
    if isinstance(alpha, bool) and out.dtype != "bool":
        raise DtypeError(f"{name}: alpha is a bool, but the result is {out.dtype}")
    if isinstance(alpha, float) and out.category != "float":
        raise DtypeError(f"{name}: alpha must be an integer where the operands are, was {alpha!r}")
    return out


def _divide(x: Operand, y: Operand) -> TensorType:
    out = _pair(x, y)
    return TensorType(to_float(out.dtype), out.shape)


def _divide_mode(x: Operand, y: Operand, mode: str | None) -> TensorType:
    one_of("div", "rounding_mode", mode, None, "trunc", "floor")
    return _divide(x, y) if mode is None else _numeric("div", x, y)


def _numeric(name: str, x: Operand, y: Operand, *rest: object) -> TensorType:
    out = _pair(x, y)
    if out.dtype == "bool":
        raise DtypeError(f"{name} is not defined for bools, was given {x} and {y}")
    return out


def _power(x: Operand, y: Operand) -> TensorType:
    if isinstance(x, TensorType) and x.dtype == "bool" and isinstance(y, bool):
        return x
    out = _numeric("pow", x, y)
    if out.category == "int" and not isinstance(y, TensorType) and y < 0:
        raise DtypeError("integers cannot be raised to negative powers; convert with .float()")
    return out


def _compare(x: Operand, y: Operand) -> TensorType:
    return TensorType("bool", _shape(x, y))


def _bits(name: str, x: Operand, y: Operand) -> TensorType:
    out = _pair(x, y)
    if out.category == "float":
        raise DtypeError(f"{name} works on integers and bools, was given {x} and {y}")
    return out


def _shift(name: str, x: Operand, y: Operand) -> TensorType:
    out = _bits(name, x, y)
    if out.dtype == "bool":
        raise DtypeError(f"{name} is not defined for bools")
    return out


def _pair_to_float(x: Operand, y: Operand) -> TensorType:
    return _divide(x, y)


def _floating_pair(name: str, x: TensorType, y: TensorType) -> TensorType:
    out = _pair(x, y)
    if out.category != "float":
        raise DtypeError(f"{name} works on floating tensors, was given {x} and {y}; convert with .float()")
    return out


def _where(condition: TensorType, x: Operand, y: Operand) -> TensorType:
    if condition.dtype not in ("bool", "uint8"):
        raise DtypeError(f"where needs a bool condition, was given {condition}; compare it with something first")
    return TensorType(result_type(x, y), _shape(condition, x, y))


def _clamp(x: TensorType, low: Operand | None = None, high: Operand | None = None) -> TensorType:
    bounds = [bound for bound in (low, high) if bound is not None]
    if not bounds:
        raise OpError("clamp needs at least one of min and max")
    out = TensorType(result_type(x, *bounds), _shape(x, *bounds))
    if x.dtype == "bool" and out.dtype == "bool":
        raise DtypeError("clamp is not defined for bools")
    return out


def _lerp(x: TensorType, end: TensorType, weight: Operand) -> TensorType:
    need_float("lerp", x)
    need_same("lerp", x, end, weight if isinstance(weight, TensorType) and weight.shape else None)
    if isinstance(weight, TensorType) and weight.category != "float":
        raise DtypeError(f"lerp: weight must be floating, was {weight}")
    return TensorType(x.dtype, _shape(x, end, weight))


def _fused(name: str, x: TensorType, a: TensorType, b: TensorType, value: bool | int | float = 1) -> TensorType:
    dtype = result_type(x, a, b)
    if dtype == "bool" or (name == "addcdiv" and result_type(a, b) != "bool" and DTYPES[dtype].category != "float"):
        raise DtypeError(f"{name} is not defined for {x}, {a} and {b}; convert with .float()")
    if name == "addcdiv" and DTYPES[result_type(a, b)].category != "float":
        raise DtypeError(f"addcdiv divides floating tensors, was given {a} and {b}")
    if isinstance(value, float) and DTYPES[dtype].category == "int":
        raise DtypeError(f"{name}: value must be an integer where the operands are, was {value!r}")
    return TensorType(dtype, _shape(x, a, b))


def _cast(x: TensorType, dtype: Dtype, *rest: object) -> TensorType:
    return TensorType(dtype.name, x.shape)


def _like(x: TensorType, dtype: Dtype | None = None) -> TensorType:
    return TensorType(dtype.name if dtype else x.dtype, x.shape)


def _full_like(x: TensorType, value: object, dtype: Dtype | None = None) -> TensorType:
    return _like(x, dtype)


def _new(x: TensorType, size: tuple[int, ...], dtype: Dtype | None = None) -> TensorType:
    need_sizes("a new tensor", size)
    return TensorType(dtype.name if dtype else x.dtype, size)


def _new_full(x: TensorType, size: tuple[int, ...], value: object, dtype: Dtype | None = None) -> TensorType:
    return _new(x, size, dtype)


def _fill(x: TensorType, value: Operand) -> TensorType:
    if isinstance(value, TensorType) and value.shape:
        raise OpError(f"fill takes a number or a tensor without dimensions, was given {value}")
    return x


def _copy(x: TensorType, source: TensorType, *rest: object) -> TensorType:
    fits(source.shape, x.shape, "copy: the source")
    return x


def _isclose(x: TensorType, y: TensorType, rtol: float, atol: float, equal_nan: bool) -> TensorType:
    need_same("isclose", x, y)
    if rtol < 0 or atol < 0:
        raise OpError("isclose: rtol and atol cannot be negative")
    return _compare(x, y)


def _square(x: TensorType) -> TensorType:
    return TensorType("int64" if x.dtype == "bool" else x.dtype, x.shape)


def _hardtanh(x: TensorType, low: bool | int | float, high: bool | int | float) -> TensorType:
    if x.dtype == "bool" or (x.dtype == "uint8" and (low < 0 or high < 0)):
        raise DtypeError(f"hardtanh between {low} and {high} is not defined for {x}")
    return x


def _prelu(x: TensorType, weight: TensorType) -> TensorType:
    need_float("prelu", x)
    need_same("prelu", x, weight)
    channels = x.shape[1] if len(x.shape) > 1 else 1
    if weight.numel != 1 and (weight.shape != (channels,) or len(x.shape) == 0):
        raise OpError(f"prelu: weight must hold one value or one for each of {channels} channels, was {weight}")
    if len(weight.shape) > 1:
        raise OpError(f"prelu: weight must have at most one dimension, was {weight}")
    return x


def _gelu(x: TensorType, approximate: str) -> TensorType:
    one_of("gelu", "approximate", approximate, "none", "tanh")
    return _floating("gelu", x)


def _heaviside(x: TensorType, values: TensorType) -> TensorType:
    need_same("heaviside", x, values)
    return _pair(x, values)


def _float_power(x: Operand, y: Operand) -> TensorType:
    return TensorType("float64", _shape(x, y))


def _ldexp(x: TensorType, y: TensorType) -> TensorType:
    power = y.dtype if y.category == "float" else x.dtype if x.category == "float" else to_float(x.dtype)
    return _pair(x, TensorType(power, y.shape))


one = partial(op, rows=POINTWISE)

_TO_FLOAT = (
    "acos acosh asin asinh atan atanh cos cosh deg2rad digamma erf erfc erfinv exp exp2 expm1 i0 lgamma log log10 log1p "
    "log2 rad2deg reciprocal rsqrt sigmoid sin sinc sinh special_entr special_erfcx special_ndtri sqrt tan tanh"
)
for _name in _TO_FLOAT.split():
    one(_name, "tensor self", _to_float)
for _name in ("ceil", "floor", "round", "trunc"):
    one(_name, "tensor self", _same_but(_name, "bool"))
one("square", "tensor self", _square)
for _name in ("sign", "sgn", "positive"):
    one(_name, "tensor self", _same_but(_name, *(["bool"] if _name == "positive" else [])))
for _name in ("abs", "neg", "relu", "relu6"):
    one(_name, "tensor self", _same_but(_name, *([] if _name == "abs" else ["bool"])))
for _name in ("frac", "silu", "mish", "hardsigmoid", "hardswish", "log_sigmoid", "selu"):
    one(_name, "tensor self", partial(_floating, _name))
for _name in ("isnan", "isinf", "isfinite", "isposinf", "isneginf", "logical_not", "signbit"):
    one(_name, "tensor self", _to_bool)
one("bitwise_not", "tensor self", _same_but("bitwise_not", "float"))
one("round.decimals", "tensor self, int decimals", partial(_floating, "round with decimals"))
one("logit", "tensor self, float? eps=None", _to_float)
one("nan_to_num", "tensor self, float? nan=None, float? posinf=None, float? neginf=None", same)
one("gelu", "tensor self, str approximate='none'", _gelu)
one("softplus", "tensor self, number beta=1, number threshold=20", partial(_floating, "softplus"))
one("elu", "tensor self, number alpha=1, number scale=1, number input_scale=1", partial(_floating, "elu"))
one("celu", "tensor self, number alpha=1.0", partial(_floating, "celu"))
one("leaky_relu", "tensor self, number negative_slope=0.01", partial(_floating, "leaky_relu"))
one("hardtanh", "tensor self, number min_val=-1, number max_val=1", _hardtanh)
one("threshold", "tensor self, number threshold, number value", _same_but("threshold", "bool"))
one("softshrink", "tensor self, number lambd=0.5", partial(_floating, "softshrink"))
one("hardshrink", "tensor self, number lambd=0.5", partial(_floating, "hardshrink"))
op("prelu", "tensor self, tensor weight", _prelu)

for _name in ("add", "sub", "rsub"):
    one(f"{_name}.Tensor", "tensor self, tensor other, number alpha=1", partial(_add, _name))
    one(f"{_name}.Scalar", "tensor self, number other, number alpha=1", partial(_add, _name))
one("mul.Tensor", "tensor self, tensor other", _pair)
one("mul.Scalar", "tensor self, number other", _pair)
one("div.Tensor", "tensor self, tensor other", _divide)
one("div.Scalar", "tensor self, number other", _divide)
one("div.Tensor_mode", "tensor self, tensor other, str? rounding_mode", _divide_mode)
one("div.Scalar_mode", "tensor self, number other, str? rounding_mode", _divide_mode)
one("floor_divide", "tensor self, tensor other", partial(_numeric, "floor_divide"))
one("floor_divide.Scalar", "tensor self, number other", partial(_numeric, "floor_divide"))
for _name in ("remainder", "fmod"):
    one(f"{_name}.Tensor", "tensor self, tensor other", partial(_numeric, _name))
    one(f"{_name}.Scalar", "tensor self, number other", partial(_numeric, _name))
one("remainder.Scalar_Tensor", "number self, tensor other", partial(_numeric, "remainder"))
one("pow.Tensor_Tensor", "tensor self, tensor exponent", _power)
one("pow.Tensor_Scalar", "tensor self, number exponent", _power)
one("pow.Scalar", "number self, tensor exponent", _power)
one("float_power.Tensor_Tensor", "tensor self, tensor exponent", _float_power)
one("float_power.Tensor_Scalar", "tensor self, number exponent", _float_power)
one("float_power.Scalar", "number self, tensor exponent", _float_power)
for _name in ("maximum", "minimum", "fmax", "fmin"):
    one(_name, "tensor self, tensor other", _pair)
for _name in ("atan2", "xlogy.Tensor", "copysign.Tensor"):
    one(_name, "tensor self, tensor other", _pair_to_float)
one("xlogy.Scalar_Other", "tensor self, number other", _pair_to_float)
one("xlogy.Scalar_Self", "number self, tensor other", _pair_to_float)
one("copysign.Scalar", "tensor self, number other", _pair_to_float)
for _name in ("hypot", "logaddexp", "logaddexp2"):
    one(_name, "tensor self, tensor other", partial(_floating_pair, _name))
for _name in ("gcd", "lcm"):
    one(_name, "tensor self, tensor other", partial(_shift, _name))
one("nextafter", "tensor self, tensor other", partial(_floating_pair, "nextafter"))
one("heaviside", "tensor self, tensor values", _heaviside)
one("ldexp.Tensor", "tensor self, tensor other", _ldexp)
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    one(f"{_name}.Tensor", "tensor self, tensor other", _compare)
    one(f"{_name}.Scalar", "tensor self, number other", _compare)
for _name in ("logical_and", "logical_or", "logical_xor"):
    one(_name, "tensor self, tensor other", _compare)
one("isclose", "tensor self, tensor other, float rtol=1e-05, float atol=1e-08, bool equal_nan=False", _isclose)
for _name in ("bitwise_and", "bitwise_or", "bitwise_xor"):
    one(f"{_name}.Tensor", "tensor self, tensor other", partial(_bits, _name))
    one(f"{_name}.Scalar", "tensor self, number other", partial(_bits, _name))
for _name in ("bitwise_left_shift", "bitwise_right_shift"):
    one(f"{_name}.Tensor", "tensor self, tensor other", partial(_shift, _name))
    one(f"{_name}.Tensor_Scalar", "tensor self, number other", partial(_shift, _name))

one("where.self", "tensor condition, tensor self, tensor other", _where)
one("where.ScalarOther", "tensor condition, tensor self, number other", _where)
one("where.ScalarSelf", "tensor condition, number self, tensor other", _where)
one("where.Scalar", "tensor condition, number self, number other", _where)
one("clamp", "tensor self, number? min=None, number? max=None", _clamp)
one("clamp.Tensor", "tensor self, tensor? min=None, tensor? max=None", _clamp)
one("lerp.Scalar", "tensor self, tensor end, number weight", _lerp)
one("lerp.Tensor", "tensor self, tensor end, tensor weight", _lerp)
one("addcmul", "tensor self, tensor tensor1, tensor tensor2, number value=1", partial(_fused, "addcmul"))
one("addcdiv", "tensor self, tensor tensor1, tensor tensor2, number value=1", partial(_fused, "addcdiv"))

one("to.dtype", "tensor self, dtype dtype", _cast, alias="view")
one("clone", "tensor self", same)
one("contiguous", "tensor self", same, alias="view")
one("zeros_like", "tensor self, dtype? dtype=None", _like)
one("ones_like", "tensor self, dtype? dtype=None", _like)
one("full_like", "tensor self, number fill_value, dtype? dtype=None", _full_like)
op("new_zeros", "tensor self, ints size, dtype? dtype=None", _new, rows=FRESH)
op("new_ones", "tensor self, ints size, dtype? dtype=None", _new, rows=FRESH)
op("new_full", "tensor self, ints size, number fill_value, dtype? dtype=None", _new_full, rows=FRESH)
one("fill.Scalar", "tensor self, number value", _fill)
one("fill.Tensor", "tensor self, tensor value", _fill)
one("copy", "tensor self, tensor src", _copy)
