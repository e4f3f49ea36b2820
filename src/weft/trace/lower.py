"""What dispatch records, rewritten to the public operations of the table.

    lower(aten._softmax.default, (x, -1, False), {})      → Lowered("softmax.int", (x, -1))

PyTorch decomposes what the user called before a tensor subclass sees it, partly into internal operations that trust
their arguments. Those never enter a program: each has a rule here that names the public operation it came from, or a
reason why there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch._ops import OpOverload

from weft.errors import OpError
from weft.ir.nodes import Dtype
from weft.ir.optable import OPS, canonical
from weft.ir.optable.promote import result_type
from weft.ir.optable.spec import Param
from weft.ir.types import TensorType
from weft.trace.refused import why_refused

aten = torch.ops.aten
LAST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Lowered:
    """A public operation with its arguments in order; "" as a name means that there is nothing to record.

    `outputs` says of each output of the recorded op which output of the public one it is: None where it has none, so
    that using it must be an error. `outputs` itself is None where they are the same. `view` tells whether the recorded
    op gives a view of its first argument.
    """

    name: str
    args: tuple
    outputs: tuple[int | None, ...] | None = None
    view: bool = False


class _Plan:
    """How one overload's arguments become those of its row: worked out once."""

    __slots__ = ("name", "rule", "steps", "view")

    def __init__(self, func: OpOverload) -> None:
        self.name = table_name(func)
        self.rule = RULES.get(self.name)
        self.view = any(each.alias_info is not None and not each.alias_info.is_write for each in func._schema.returns)
        if self.rule is None and self.name not in OPS:
            raise OpError(why_refused(self.name))
        given = {each.name: (place, each) for place, each in enumerate(func._schema.arguments)}
        if self.rule is not None:
            self.steps = [(place, each.name, _default(each), None) for place, each in given.values()]
            return
        self.steps = []
        for param in OPS[self.name].params:
            place, each = given[param.name]
            self.steps.append((place, each.name, _default(each), param))

    def arguments(self, args: tuple, kwargs: dict[str, Any]) -> list[Any]:
        n, out = len(args), []
        for place, name, default, param in self.steps:
            value = args[place] if place < n else kwargs.get(name, default)
            out.append(value if param is None else plain(value, param))
        return out


def table_name(func: OpOverload) -> str:
    """The name an overload has in the table, were it in it."""
    namespace, _, name = func._schema.name.partition("::")
    prefix = "" if namespace == "aten" else f"{namespace}::"
    overload = func._overloadname
    return prefix + (name if overload == "default" else f"{name}.{overload}")


def _default(argument: Any) -> Any:
    return argument.default_value if argument.has_default_value() else None


def plain(value: Any, param: Param) -> Any:
    """An argument in the form that programs hold: tuples for lists, our dtypes, floats where floats are meant."""
    kind = param.kind.rstrip("?")
    if isinstance(value, torch.Tensor):
        return value
    if value is None:
        # A number in a schema may have no None but a default of ours instead (`stable=None`).
        return None
    if kind == "ints":
        return (value,) if isinstance(value, int) else tuple(value)
    if kind == "tensors":
        return tuple(value)
    if kind == "dtype":
        return our_dtype(value)
    if kind == "float":
        return float(value)
    if kind == "number" and isinstance(value, complex):
        raise OpError(f"complex numbers are not supported, was given {value}")
    return value


def our_dtype(dtype: torch.dtype) -> Dtype:
    return Dtype(str(dtype).removeprefix("torch."))


@cache
def _plan(func: OpOverload) -> _Plan:
    return _Plan(func)


def lower(func: OpOverload, args: tuple, kwargs: dict[str, Any] | None = None) -> Lowered:
    """The public form of what dispatch recorded; OpError, with the way out, for what is never legal.

    Tensors stay in place as they were given. In-place overloads are not handled here: see `functional_of`.
    """
    plan = _plan(func)
    values = plan.arguments(args, kwargs or {})
    if plan.rule is not None:
        return _finish(plan.rule(*values), plan.view)
    if plan.name in SPECIAL:
        return _finish(SPECIAL[plan.name](*values), plan.view)
    for place, value in enumerate(values):
        if isinstance(value, int | float) and OPS[plan.name].params[place].kind == "tensor":
            return _finish(_with_number(plan.name, values, place), plan.view)
    return Lowered(plan.name, canonical(plan.name, tuple(values)), None, plan.view)


def _finish(found: Lowered, view: bool) -> Lowered:
    if not found.name:
        return found
    params = OPS[found.name].params
    args = tuple(plain(value, param) for value, param in zip(found.args, params, strict=False))
    return Lowered(found.name, canonical(found.name, args), found.outputs, view)


@cache
def functional_of(func: OpOverload) -> OpOverload | None:
    """The op that gives as a new value what `func` writes in place (`add_.Tensor` → `add.Tensor`); None if there is none.

    `copy_` has none on purpose: the tracer writes its value as it is. Those that change shape and those that draw
    random numbers have none either.
    """
    name = func._schema.name.removeprefix("aten::")
    if not name.endswith("_") or (name.endswith("__") and not name.startswith("__i")) or name in NOT_FUNCTIONAL:
        return None
    base = {"_index_put_impl_": "index_put", "zero_": "zeros_like"}.get(name, name[:-1])
    if name.startswith("__i"):
        base = "__" + name[3:]
    packet = getattr(aten, base, None)
    overload = IN_PLACE.get(f"{name}.{func._overloadname}", func._overloadname)
    if packet is None or overload not in packet.overloads():
        return None
    found = getattr(packet, overload)
    lowered = table_name(found)
    return found if lowered in OPS or lowered in RULES else None


# Overloads of in-place forms that are called otherwise than those of the functional ones.
IN_PLACE = {
    "pow_.Scalar": "Tensor_Scalar",
    "pow_.Tensor": "Tensor_Tensor",
    "float_power_.Scalar": "Tensor_Scalar",
    "float_power_.Tensor": "Tensor_Tensor",
}

NOT_FUNCTIONAL = frozenset(
    "copy_ squeeze_ unsqueeze_ t_ transpose_ swapaxes_ swapdims_ resize_ resize_as_ set_ as_strided_ detach_ "
    "requires_grad_ rename_ bernoulli_ normal_ uniform_ random_ exponential_ geometric_ cauchy_ log_normal_ "
    "dropout_ alpha_dropout_ feature_dropout_ rrelu_ fill_diagonal_".split()
)


# -- numbers where the schema has a tensor -------------------------------------------------------------------------------

SCALAR = {
    "add.Tensor": "add.Scalar",
    "sub.Tensor": "sub.Scalar",
    "rsub.Tensor": "rsub.Scalar",
    "mul.Tensor": "mul.Scalar",
    "div.Tensor": "div.Scalar",
    "div.Tensor_mode": "div.Scalar_mode",
    "floor_divide": "floor_divide.Scalar",
    "remainder.Tensor": "remainder.Scalar",
    "fmod.Tensor": "fmod.Scalar",
    "pow.Tensor_Tensor": "pow.Tensor_Scalar",
    "xlogy.Tensor": "xlogy.Scalar_Other",
    "copysign.Tensor": "copysign.Scalar",
    **{f"{name}.Tensor": f"{name}.Scalar" for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    **{f"bitwise_{name}.Tensor": f"bitwise_{name}.Scalar" for name in ("and", "or", "xor")},
}


def _with_number(name: str, values: list[Any], place: int) -> Lowered:
    if place == 1 and name in SCALAR:
        return Lowered(SCALAR[name], tuple(values))
    if place == 0 and isinstance(values[1], torch.Tensor):
        number, other = values[0], values[1]
        if name in ("add.Tensor", "mul.Tensor") and values[2:] in ([], [1]):
            return Lowered(SCALAR[name], (other, number))
        if name == "sub.Tensor" and values[2] == 1:
            return Lowered("rsub.Scalar", (other, number))
    tensor = next(each for each in values if isinstance(each, torch.Tensor))
    # In the dtype that the number would have taken beside that tensor, so that it changes nothing else.
    beside = TensorType(our_dtype(tensor.dtype).name, tuple(tensor.shape))
    constant = torch.tensor(values[place], dtype=getattr(torch, result_type(beside, values[place])))
    return Lowered(name, tuple(constant if at == place else value for at, value in enumerate(values)))


# -- masks as indices ---------------------------------------------------------------------------------------------------

MASK = "a mask with no value yet gives a shape that depends on its values: use torch.where(mask, x, other)"


def _is_constant(value: torch.Tensor) -> bool:
    """Whether a tensor is an ordinary one, whose values are there now."""
    return type(value) in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer) and value.device.type != "meta"


def _places(indices: tuple) -> tuple:
    """Indices with each constant mask replaced by the places where it is true."""
    out: list[torch.Tensor | None] = []
    for index in indices:
        if index is None or index.dtype not in (torch.bool, torch.uint8):
            out.append(index if index is None or index.dtype in (torch.int64, torch.int32) else index.long())
        elif _is_constant(index):
            out.extend(index.nonzero(as_tuple=True))
        else:
            raise OpError(MASK)
    while out and out[-1] is None:
        out.pop()
    return tuple(out)


def _index(x: torch.Tensor, indices: tuple) -> Lowered:
    return Lowered("index.Tensor", (x, _places(indices)))


def _index_put(x: torch.Tensor, indices: tuple, values: torch.Tensor, accumulate: bool = False, *rest: Any) -> Lowered:
    masks = [index for index in indices if index is not None and index.dtype == torch.bool]
    if masks and not _is_constant(masks[0]):
        if len(indices) == 1 and not accumulate and not values.shape and masks[0].dim() == x.dim():
            return Lowered("masked_fill.Tensor", (x, masks[0], values))
        raise OpError(MASK)
    return Lowered("index_put", (x, _places(indices), values, accumulate))


def _slice(x: torch.Tensor, dim: int, start: int | None, end: int | None, step: int) -> Lowered:
    return Lowered("slice.Tensor", (x, dim, None if start == 0 else start, None if end == LAST else end, step))


SPECIAL: dict[str, Callable[..., Lowered]] = {"index.Tensor": _index, "index_put": _index_put, "slice.Tensor": _slice}


# -- internal operations ------------------------------------------------------------------------------------------------


def _renamed(name: str, *outputs: int | None, take: int | None = None) -> Callable[..., Lowered]:
    """The same arguments (the first `take` of them) under another name."""

    def rule(*args: Any) -> Lowered:
        return Lowered(name, args[:take], outputs or None)

    return rule


def _softmax(name: str) -> Callable[..., Lowered]:
    def rule(x: torch.Tensor, dim: int, to_float: bool) -> Lowered:
        return Lowered(name, (x, dim, torch.float32) if to_float else (x, dim))

    return rule


def _to_copy(x: torch.Tensor, dtype: torch.dtype | None, *rest: Any) -> Lowered:
    return Lowered("clone", (x,)) if dtype in (None, x.dtype) else Lowered("to.dtype", (x, dtype))


def _fresh(name: str, at: int) -> Callable[..., Lowered]:
    """empty_like and its kin: fresh memory holds other people's data, so it is zeros."""

    def rule(*args: Any) -> Lowered:
        return Lowered(name, args[: at + 1])

    return rule


def _attention(outputs: int) -> Callable[..., Lowered]:
    def rule(q: Any, k: Any, v: Any, dropout: float, causal: bool, mask: Any = None, scale: Any = None) -> Lowered:
        grouped = q.dim() >= 3 and k.shape[-3] != q.shape[-3]
        args = (q, k, v, mask, dropout, causal, scale, grouped)
        return Lowered("scaled_dot_product_attention", args, (0,) + (None,) * (outputs - 1))

    return rule


def _group_norm(x: Any, weight: Any, bias: Any, n: int, c: int, rest: int, group: int, eps: float) -> Lowered:
    return Lowered("group_norm", (x, group, weight, bias, eps), (0, None, None))


def _batch_norm(x: Any, weight: Any, bias: Any, mean: Any, var: Any, training: bool, *tail: float) -> Lowered:
    if training and mean is not None:
        raise OpError("batch_norm in training mode changes its running statistics: put the module in .eval() first")
    return Lowered("batch_norm", (x, weight, bias, mean, var, training, *tail, False), (0, None, None))


def _batch_norm_no_stats(x: Any, weight: Any, bias: Any, training: bool, *tail: float) -> Lowered:
    return Lowered("batch_norm", (x, weight, bias, None, None, training, *tail, False), (0, None, None))


def _batch_norm_eval(x: Any, weight: Any, bias: Any, mean: Any, var: Any, *tail: float) -> Lowered:
    return Lowered("batch_norm", (x, weight, bias, mean, var, False, *tail, False), (0, None, None))


def _convolution(
    x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, extra: Any, groups: int
) -> Lowered:
    n = weight.dim() - 2
    if transposed:
        name = {1: "conv_transpose1d", 2: "conv_transpose2d.input"}.get(n, "conv_transpose3d")
        if name not in OPS:
            raise OpError(why_refused(name))
        return Lowered(name, (x, weight, bias, stride, padding, extra, groups, dilation))
    return Lowered(f"conv{n}d", (x, weight, bias, stride, padding, dilation, groups))


def _svd(x: Any, full: bool, vectors: bool, driver: str | None) -> Lowered:
    if vectors:
        return Lowered("linalg_svd", (x, full, driver))
    return Lowered("linalg_svdvals", (x, driver), (None, 0, None))


def _eigh(x: Any, triangle: str, vectors: bool) -> Lowered:
    if vectors:
        return Lowered("linalg_eigh", (x, triangle))
    return Lowered("linalg_eigvalsh", (x, triangle), (0, None))


def _pinv(x: Any, atol: Any, rtol: Any, hermitian: bool) -> Lowered:
    if atol is not None or rtol is not None:
        raise OpError("linalg.pinv: give atol and rtol as numbers, not as tensors")
    return Lowered("linalg_pinv.atol_rtol_float", (x, None, None, hermitian))


def _rrelu(x: Any, noise: Any, lower_: float, upper: float, training: bool, *rest: Any) -> Lowered:
    if training:
        raise OpError(why_refused("rrelu"))
    return Lowered("leaky_relu", (x, (lower_ + upper) / 2))


def _padding(mode: str) -> Callable[..., Lowered]:
    def rule(x: Any, pad: Any) -> Lowered:
        return Lowered("pad", (x, pad, mode))

    return rule


def _safe_softmax(*args: Any) -> Lowered:
    # Unlike softmax it gives 0 where a whole row is masked, so softmax may not stand in for it.
    raise OpError(
        "attention fell apart into steps that have no public operation: call "
        "torch.nn.functional.scaled_dot_product_attention directly, without dropout"
    )


RULES: dict[str, Callable[..., Lowered]] = {
    "_softmax": _softmax("softmax.int"),
    "_log_softmax": _softmax("log_softmax.int"),
    "_safe_softmax": _safe_softmax,
    "_to_copy": _to_copy,
    "_unsafe_view": _renamed("reshape"),
    "_reshape_alias": _renamed("view", take=2),
    "_unsafe_index.Tensor": lambda x, indices: _index(x, tuple(indices)),
    "_index_put_impl": lambda x, indices, *rest: _index_put(x, tuple(indices), *rest),
    "unsafe_split.Tensor": _renamed("split.Tensor"),
    "unsafe_split_with_sizes": _renamed("split_with_sizes"),
    "unsafe_chunk": lambda x, n, dim: Lowered("split.Tensor", (x, -(-x.shape[dim] // n), dim)),
    "diagonal_copy": _renamed("diagonal"),
    "lift_fresh": _renamed("alias"),
    "lift_fresh_copy": _renamed("clone"),
    "zero": _renamed("zeros_like"),
    "empty_like": _fresh("zeros_like", 1),
    "new_empty": _fresh("new_zeros", 2),
    "clamp_min": lambda x, low: Lowered("clamp", (x, low, None)),
    "clamp_max": lambda x, high: Lowered("clamp", (x, None, high)),
    "clamp_min.Tensor": lambda x, low: Lowered("clamp.Tensor", (x, low, None)),
    "clamp_max.Tensor": lambda x, high: Lowered("clamp.Tensor", (x, None, high)),
    "max.other": _renamed("maximum"),
    "min.other": _renamed("minimum"),
    "__lshift__.Scalar": _renamed("bitwise_left_shift.Tensor_Scalar"),
    "__lshift__.Tensor": _renamed("bitwise_left_shift.Tensor"),
    "__rshift__.Scalar": _renamed("bitwise_right_shift.Tensor_Scalar"),
    "__rshift__.Tensor": _renamed("bitwise_right_shift.Tensor"),
    "native_layer_norm": _renamed("layer_norm", 0, None, None),
    "_fused_rms_norm": _renamed("rms_norm", 0, None),
    "native_group_norm": _group_norm,
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit": _batch_norm,
    "_native_batch_norm_legit.no_stats": _batch_norm_no_stats,
    "_native_batch_norm_legit_no_training": _batch_norm_eval,
    "_scaled_dot_product_flash_attention_for_cpu": _attention(2),
    "log_sigmoid_forward": _renamed("log_sigmoid", 0, None),
    "rrelu_with_noise": _rrelu,
    "convolution": _convolution,
    "max_pool2d_with_indices": _renamed("max_pool2d", 0, None),
    "_adaptive_avg_pool2d": _renamed("adaptive_avg_pool2d"),
    "reflection_pad1d": _padding("reflect"),
    "reflection_pad2d": _padding("reflect"),
    "replication_pad1d": _padding("replicate"),
    "replication_pad2d": _padding("replicate"),
    "nll_loss_forward": _renamed("nll_loss_nd", 0, None),
    "nll_loss2d_forward": _renamed("nll_loss_nd", 0, None),
    "_cdist_forward": _renamed("cdist"),
    "_pdist_forward": _renamed("pdist"),
    "_linalg_svd": _svd,
    "_linalg_eigh": _eigh,
    "_linalg_det": _renamed("linalg_det", 0, None, None),
    "_linalg_slogdet": _renamed("linalg_slogdet", 0, 1, None, None),
    "_linalg_solve_ex": _renamed("linalg_solve", 0, None, None, None, take=3),
    "linalg_inv_ex": _renamed("linalg_inv", 0, None, take=1),
    "linalg_cholesky_ex": _renamed("linalg_cholesky", 0, None, take=2),
    "linalg_pinv.atol_rtol_tensor": _pinv,
    # The public forms check for themselves.
    "_linalg_check_errors": lambda *args: Lowered("", (None,)),
}

WHOLE: dict[Callable[..., Any], OpOverload] = {
    F.scaled_dot_product_attention: aten.scaled_dot_product_attention.default,
    torch.prelu: aten.prelu.default,
    torch.Tensor.prelu: aten.prelu.default,
}
"""Functions to catch before they decompose (at `__torch_function__`): what comes after has no public form."""
