"""Normalisation, attention, convolution, pooling, padding, resizing."""

from __future__ import annotations

from functools import partial
from typing import Any

from weft.errors import DtypeError, OpError, ShapeError
from weft.ir.optable.promote import need_float, need_same
from weft.ir.optable.rows import MIXED, Along, Leading
from weft.ir.optable.shapes import broadcast, need_dims, one_of, with_length, wrap
from weft.ir.optable.spec import op
from weft.ir.types import TensorType

Ints = tuple[int, ...]


def _norm_over(name: str, x: TensorType, shape: Ints, *gains: TensorType | None) -> TensorType:
    need_float(name, x)
    need_same(name, x, *gains)
    if not shape or x.shape[len(x.shape) - len(shape) :] != shape or len(shape) > len(x.shape):
        raise ShapeError(f"{name}: the last dimensions of {x} must be {list(shape)}")
    for gain in gains:
        if gain is not None and gain.shape != shape:
            raise ShapeError(f"{name}: gain and bias must have shape {list(shape)}, was {gain}")
    return x


def _layer_norm(
    x: TensorType, shape: Ints, weight: TensorType | None, bias: TensorType | None, eps: float
) -> TensorType:
    return _norm_over("layer_norm", x, shape, weight, bias)


def _rms_norm(x: TensorType, shape: Ints, weight: TensorType | None, eps: float | None) -> TensorType:
    return _norm_over("rms_norm", x, shape, weight)


def _channels(name: str, x: TensorType, *gains: TensorType | None) -> int:
    need_float(name, x)
    if len(x.shape) < 2:
        raise ShapeError(f"{name} needs a batch and channels, was given {x}")
    for gain in gains:
        if gain is not None and gain.shape != (x.shape[1],):
            raise ShapeError(f"{name}: gains, biases and statistics must have shape [{x.shape[1]}], was {gain}")
    need_same(name, x, *gains)
    return x.shape[1]


def _group_norm(
    x: TensorType, groups: int, weight: TensorType | None, bias: TensorType | None, eps: float
) -> TensorType:
    channels = _channels("group_norm", x, weight, bias)
    if groups <= 0 or channels % groups:
        raise ShapeError(f"group_norm: {channels} channels cannot be cut into {groups} groups")
    if x.numel == 0 or x.numel // (x.shape[0] * groups) <= 1:
        raise ShapeError(f"group_norm of {x}: a group needs more than one value")
    return x


def _batch_norm(
    x: TensorType,
    weight: TensorType | None,
    bias: TensorType | None,
    mean: TensorType | None,
    var: TensorType | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn: bool,
) -> TensorType:
    _channels("batch_norm", x, weight, bias, mean, var)
    if training and (mean is not None or var is not None):
        raise OpError(
            "batch_norm in training mode changes its running statistics; put the module in eval mode with .eval(), "
            "or give track_running_stats=False"
        )
    if not training and (mean is None or var is None):
        raise OpError("batch_norm in eval mode needs its running mean and variance")
    if training and x.numel // x.shape[1] <= 1 if x.numel else True:
        raise ShapeError(f"batch_norm over {x}: a channel needs more than one value")
    return x


def _instance_norm(
    x: TensorType,
    weight: TensorType | None,
    bias: TensorType | None,
    mean: TensorType | None,
    var: TensorType | None,
    use_input: bool,
    *rest: object,
) -> TensorType:
    _channels("instance_norm", x, weight, bias)
    if mean is not None or var is not None or not use_input:
        raise OpError("instance_norm with running statistics would change them; use track_running_stats=False")
    if x.numel == 0 or x.numel // (x.shape[0] * x.shape[1]) <= 1:
        raise ShapeError(f"instance_norm of {x}: an instance needs more than one value")
    return x


def _attention(
    q: TensorType,
    k: TensorType,
    v: TensorType,
    mask: TensorType | None,
    dropout: float,
    causal: bool,
    scale: float | None,
    gqa: bool,
) -> TensorType:
    name = "scaled_dot_product_attention"
    need_float(name, q)
    need_same(name, q, k, v)
    if dropout:
        raise OpError(f"{name}: dropout draws random numbers; use dropout_p=0 (module.eval())")
    if causal and mask is not None:
        raise OpError(f"{name}: give attn_mask or is_causal, not both")
    if min(len(q.shape), len(k.shape), len(v.shape)) < 2:
        raise ShapeError(f"{name}: {q}, {k} and {v} need at least two dimensions each")
    k_batch, v_batch = k.shape[:-2], v.shape[:-2]
    if gqa:
        if not (len(q.shape) == len(k.shape) == len(v.shape) and len(q.shape) >= 3):
            raise ShapeError(f"{name}: with enable_gqa, {q}, {k} and {v} need heads")
        if 0 in (k.shape[-3], v.shape[-3]) or q.shape[-3] % k.shape[-3] or q.shape[-3] % v.shape[-3]:
            raise ShapeError(f"{name}: {q.shape[-3]} heads are no multiple of those of {k} and {v}")
        k_batch, v_batch = k_batch[:-1] + q.shape[-3:-2], v_batch[:-1] + q.shape[-3:-2]
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ShapeError(f"{name}: {q}, {k} and {v} do not fit")
    batch = broadcast(q.shape[:-2], k_batch, v_batch)
    if mask is not None:
        _attention_mask(name, q, mask, batch + (q.shape[-2], k.shape[-2]))
    return TensorType(q.dtype, batch + (q.shape[-2], v.shape[-1]))


def _attention_mask(name: str, q: TensorType, mask: TensorType, scores: Ints) -> None:
    if mask.dtype not in ("bool", q.dtype):
        raise DtypeError(f"{name}: attn_mask must be bool or {q.dtype}, was {mask}")
    if len(mask.shape) < 2 or broadcast(mask.shape, scores) != scores:
        raise ShapeError(f"{name}: attn_mask {mask} does not stretch to the scores {list(scores)}")


def _attention_cost(args: tuple[Any, ...], outputs: tuple[TensorType, ...]) -> int:
    q, k = args[0], args[1]
    return 2 * outputs[0].numel * k.shape[-2] + 2 * outputs[0].numel // max(outputs[0].shape[-1], 1) * (
        q.shape[-1] * k.shape[-2]
    )


def _each(name: str, values: Ints, n: int) -> Ints:
    """One value for each of `n` dimensions; one value stands for all."""
    if len(values) not in (1, n):
        raise OpError(f"{name}: one number or {n} are needed, was given {list(values)}")
    return values * n if len(values) == 1 else values


def _conv(n: int, x: TensorType, weight: TensorType, bias: TensorType | None, *settings: Any) -> TensorType:
    name = f"conv{n}d"
    stride, padding, dilation, groups = settings
    need_float(name, x)
    need_same(name, x, weight, bias)
    need_dims(name, x, n + 1, n + 2)
    need_dims(name, weight, n + 2, name="weight")
    stride, dilation = _each(name, stride, n), _each(name, dilation, n)
    if min(stride) <= 0 or min(dilation) <= 0 or groups <= 0:
        raise OpError(f"{name}: stride, dilation and groups must be positive")
    channels, lengths = x.shape[-n - 1], x.shape[-n:]
    if weight.shape[1] * groups != channels or weight.shape[0] % groups or not weight.shape[0]:
        raise ShapeError(f"{name}: {x} has {channels} channels, the weight {weight} in {groups} groups needs others")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"{name}: bias must have shape [{weight.shape[0]}], was {bias}")
    pads = _conv_padding(name, n, padding, weight.shape[2:], dilation, stride)
    out = tuple(
        _window(name, length + pad, kernel, step, spread)
        for length, pad, kernel, step, spread in zip(lengths, pads, weight.shape[2:], stride, dilation, strict=True)
    )
    return TensorType(x.dtype, x.shape[: -n - 1] + (weight.shape[0],) + out)


def _conv_padding(name: str, n: int, padding: Any, kernel: Ints, dilation: Ints, stride: Ints) -> Ints:
    """How much is added to each dimension, both sides together."""
    if isinstance(padding, str):
        one_of(name, "padding", padding, "valid", "same")
        if padding == "same" and max(stride) > 1:
            raise OpError(f"{name}: padding='same' needs stride 1")
        return tuple(d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True))
    given = _each(name, padding, n)
    if min(given) < 0:
        raise OpError(f"{name}: padding cannot be negative")
    return tuple(2 * each for each in given)


def _window(name: str, length: int, kernel: int, stride: int, dilation: int = 1) -> int:
    """How many windows fit."""
    reach = dilation * (kernel - 1) + 1
    if kernel <= 0 or length < reach:
        raise ShapeError(f"{name}: a window of {reach} does not fit a length of {length}")
    return (length - reach) // stride + 1


def _conv_cost(args: tuple[Any, ...], outputs: tuple[TensorType, ...]) -> int:
    weight = args[1]
    return 2 * outputs[0].numel * (weight.numel // max(weight.shape[0], 1))


def _conv_transpose(n: int, x: TensorType, weight: TensorType, bias: TensorType | None, *settings: Any) -> TensorType:
    name = f"conv_transpose{n}d"
    stride, padding, extra, groups, dilation = settings
    need_float(name, x)
    need_same(name, x, weight, bias)
    need_dims(name, x, n + 1, n + 2)
    need_dims(name, weight, n + 2, name="weight")
    stride, padding, extra, dilation = (_each(name, each, n) for each in (stride, padding, extra, dilation))
    if min(stride) <= 0 or min(dilation) <= 0 or min(padding) < 0 or min(extra) < 0 or groups <= 0:
        raise OpError(f"{name}: stride, dilation and groups must be positive, paddings not negative")
    if weight.shape[0] != x.shape[-n - 1] or weight.shape[0] % groups or not weight.numel:
        raise ShapeError(f"{name}: {x} and the weight {weight} do not fit")
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise OpError(f"{name}: output_padding must be smaller than stride or dilation")
    channels = weight.shape[1] * groups
    if bias is not None and bias.shape != (channels,):
        raise ShapeError(f"{name}: bias must have shape [{channels}], was {bias}")
    zipped = zip(x.shape[-n:], stride, padding, dilation, weight.shape[2:], extra, strict=True)
    out = tuple((length - 1) * s - 2 * p + d * (k - 1) + e + 1 for length, s, p, d, k, e in zipped)
    if min(out) <= 0:
        raise ShapeError(f"{name}: nothing is left of {x}")
    return TensorType(x.dtype, x.shape[: -n - 1] + (channels,) + out)


def _pool(
    name: str, n: int, x: TensorType, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil: bool
) -> TensorType:
    need_float(name, x)
    need_dims(name, x, n + 1, n + 2)
    kernel = _each(name, kernel, n)
    stride = _each(name, stride, n) if stride else kernel
    padding, dilation = _each(name, padding, n), _each(name, dilation, n)
    if min(kernel) <= 0 or min(stride) <= 0 or min(dilation) <= 0:
        raise OpError(f"{name}: kernel, stride and dilation must be positive")
    if any(p < 0 or 2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise OpError(f"{name}: padding must be at most half the kernel, was {list(padding)} for {list(kernel)}")
    if 0 in x.shape[-n - 1 :]:
        raise ShapeError(f"{name} of an empty tensor: {x}")
    out = tuple(
        _pooled(name, *each, ceil) for each in zip(x.shape[-n:], kernel, stride, padding, dilation, strict=True)
    )
    return TensorType(x.dtype, x.shape[:-n] + out)


def _pooled(name: str, length: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool) -> int:
    room = length + 2 * padding - dilation * (kernel - 1) - 1
    found = (room + (stride - 1 if ceil else 0)) // stride + 1
    if ceil and (found - 1) * stride >= length + padding:
        found -= 1  # a window may not begin in the padding at the end
    if found <= 0:
        raise ShapeError(f"{name}: a window of {kernel} does not fit a length of {length}")
    return found


def _max_pool(
    n: int, x: TensorType, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil: bool
) -> TensorType:
    return _pool(f"max_pool{n}d", n, x, kernel, stride, padding, dilation, ceil)


def _avg_pool(
    n: int, x: TensorType, kernel: Ints, stride: Ints, padding: Ints, ceil: bool, *rest: object
) -> TensorType:
    if len(rest) > 1 and rest[1] == 0:
        raise OpError("avg_pool: divisor_override cannot be 0")
    return _pool(f"avg_pool{n}d", n, x, kernel, stride, padding, (1,), ceil)


def _adaptive(n: int, x: TensorType, size: Ints) -> TensorType:
    name = f"adaptive_avg_pool{n}d"
    need_float(name, x)
    need_dims(name, x, n + 1, n + 2)
    if len(size) != n or min(size) < 0 or 0 in x.shape[-n - 1 :]:
        raise ShapeError(f"{name}: {x} cannot be pooled to {list(size)}")
    return TensorType(x.dtype, x.shape[:-n] + size)


def _pad(x: TensorType, pad: Ints, mode: str, value: float | None) -> TensorType:
    one_of("pad", "mode", mode, "constant", "reflect", "replicate", "circular")
    if len(pad) % 2 or len(pad) > 2 * len(x.shape):
        raise ShapeError(f"pad: {list(pad)} must hold two numbers for each of the last dimensions of {x}")
    if mode == "constant":
        return _padded(x, pad)
    if value:
        raise OpError(f"pad: mode {mode!r} takes no value")
    n = len(pad) // 2
    need_float("pad", x)
    if n not in (1, 2, 3) or len(x.shape) not in (n + 1, n + 2) or 0 in x.shape:
        raise ShapeError(f"pad: mode {mode!r} pads the last 1 to 3 of one or two more dimensions, was given {x}")
    for at in range(n):
        before, after, length = pad[2 * at], pad[2 * at + 1], x.shape[-1 - at]
        longest = {"reflect": length - 1, "replicate": max(before, after), "circular": length}[mode]
        if max(before, after) > longest or min(before, after) < 0:
            raise ShapeError(
                f"pad: mode {mode!r} can add 0 to {longest} to a length of {length}, not {before}, {after}"
            )
    return _padded(x, pad)


def _pad_constant(x: TensorType, pad: Ints, value: object) -> TensorType:
    return _pad(x, pad, "constant", None)


def _padded(x: TensorType, pad: Ints) -> TensorType:
    shape = list(x.shape)
    for at in range(len(pad) // 2):
        before, after = pad[2 * at], pad[2 * at + 1]
        shape[-1 - at] += before + after
        if shape[-1 - at] < 0 or min(before, 0) + min(after, 0) + x.shape[-1 - at] < 0:
            raise ShapeError(f"pad: {before} and {after} cut more than dimension {len(shape) - 1 - at} of {x} has")
    return TensorType(x.dtype, tuple(shape))


def _resize(name: str, n: int, x: TensorType, size: Ints, *rest: object) -> TensorType:
    if x.category != "float":
        raise DtypeError(f"{name} works on floating tensors, was given {x}")
    need_dims(name, x, n + 2)
    if len(size) != n or min(size) <= 0 or 0 in x.shape[1:]:
        raise ShapeError(f"{name}: {x} cannot be resized to {list(size)}")
    return TensorType(x.dtype, x.shape[:2] + size)


def _glu(x: TensorType, dim: int) -> TensorType:
    need_float("glu", x)
    at = wrap(dim, len(x.shape))
    if not x.shape or x.shape[at] % 2:
        raise ShapeError(f"glu halves dimension {at} of {x}, whose length must be even")
    return TensorType(x.dtype, with_length(x.shape, at, x.shape[at] // 2))


def _pixel_shuffle(x: TensorType, factor: int) -> TensorType:
    if len(x.shape) < 3 or factor <= 0 or not x.numel or x.shape[-3] % (factor * factor):
        raise ShapeError(f"pixel_shuffle by {factor} does not fit {x}")
    *batch, channels, height, width = x.shape
    return TensorType(x.dtype, (*batch, channels // factor**2, height * factor, width * factor))


def _pixel_unshuffle(x: TensorType, factor: int) -> TensorType:
    if len(x.shape) < 3 or factor <= 0 or not x.numel or x.shape[-1] % factor or x.shape[-2] % factor:
        raise ShapeError(f"pixel_unshuffle by {factor} does not fit {x}")
    *batch, channels, height, width = x.shape
    return TensorType(x.dtype, (*batch, channels * factor**2, height // factor, width // factor))


_gains = "tensor? weight=None, tensor? bias=None, float eps=1e-05"
op("layer_norm", f"tensor input, ints normalized_shape, {_gains}", _layer_norm,
   rows=Leading("normalized_shape", "normalized_shape", "normalized_shape"))  # fmt: skip
_signature = "tensor input, ints normalized_shape, tensor? weight=None, float? eps=None"
op("rms_norm", _signature, _rms_norm, rows=Leading("normalized_shape", "normalized_shape"))
op("group_norm", f"tensor input, int num_groups, {_gains}", _group_norm)
_stats = "tensor? weight, tensor? bias, tensor? running_mean, tensor? running_var"
_tail = "float momentum, float eps, bool cudnn_enabled"
op("batch_norm", f"tensor input, {_stats}, bool training, {_tail}", _batch_norm)
op("instance_norm", f"tensor input, {_stats}, bool use_input_stats, {_tail}", _instance_norm)
op("glu", "tensor self, int dim=-1", _glu, rows=Along("dim"))
op("scaled_dot_product_attention",
   "tensor query, tensor key, tensor value, tensor? attn_mask=None, float dropout_p=0.0, bool is_causal=False, "
   "float? scale=None, bool enable_gqa=False",
   _attention, cost=_attention_cost, rows=Leading(2, 2, 2, 2))  # fmt: skip

for _n in (1, 2, 3):
    _ones, _zeros = f"({'1, ' * _n})", f"({'0, ' * _n})"
    _head = f"tensor input, tensor weight, tensor? bias=None, ints stride={_ones}"
    _rest = f"ints dilation={_ones}, int groups=1"
    op(f"conv{_n}d", f"{_head}, ints padding={_zeros}, {_rest}", partial(_conv, _n), cost=_conv_cost)
    op(f"conv{_n}d.padding", f"{_head}, str padding='valid', {_rest}", partial(_conv, _n), cost=_conv_cost)
    _rest = f"ints padding={_zeros}, ints output_padding={_zeros}, int groups=1, ints dilation={_ones}"
    if _n < 3:
        _name = "conv_transpose1d" if _n == 1 else "conv_transpose2d.input"
        op(_name, f"{_head}, {_rest}", partial(_conv_transpose, _n), cost=_conv_cost)
    _window_args = f"tensor self, ints kernel_size, ints stride=(), ints padding={_zeros}"
    if _n < 3:
        op(f"max_pool{_n}d", f"{_window_args}, ints dilation={_ones}, bool ceil_mode=False", partial(_max_pool, _n))
        _last = ", int? divisor_override=None" if _n > 1 else ""
        op(f"avg_pool{_n}d", f"{_window_args}, bool ceil_mode=False, bool count_include_pad=True{_last}",
           partial(_avg_pool, _n))  # fmt: skip
        op(f"adaptive_avg_pool{_n}d", "tensor self, ints output_size", partial(_adaptive, _n))
op("pad", "tensor self, ints pad, str mode='constant', float? value=None", _pad, rows=MIXED)
op("constant_pad_nd", "tensor self, ints pad, number value=0", _pad_constant)
op("upsample_nearest1d", "tensor self, ints output_size, float? scales=None", partial(_resize, "interpolate", 1))
op("upsample_nearest2d", "tensor self, ints output_size, float? scales_h=None, float? scales_w=None",
   partial(_resize, "interpolate", 2))  # fmt: skip
op("upsample_linear1d", "tensor self, ints output_size, bool align_corners, float? scales=None",
   partial(_resize, "interpolate", 1))  # fmt: skip
for _name in ("upsample_bilinear2d", "upsample_bicubic2d"):
    op(_name, "tensor self, ints output_size, bool align_corners, float? scales_h=None, float? scales_w=None",
       partial(_resize, "interpolate", 2))  # fmt: skip
op("pixel_unshuffle", "tensor self, int downscale_factor", _pixel_unshuffle)
op("pixel_shuffle", "tensor self, int upscale_factor", _pixel_shuffle)
