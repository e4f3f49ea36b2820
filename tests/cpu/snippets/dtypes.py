"""Promotion, casts, numbers and tensors of no dimension."""

import torch

from snippets import randn, snippet
from weft.errors import DtypeError, OpError

ZERO_DIM64 = torch.tensor(2.0, dtype=torch.float64)
VECTOR64 = randn(12, seed=17).double()
INTS = torch.arange(12)
HALF = randn(12, seed=18).bfloat16()
FLAGS = INTS % 2 == 0


@snippet
def python_numbers(h):
    return h + 1, h * 2.5, h + True, 3 - h, h / 2, h.detach() // 2, h**2, 2 * h.argmax(-1), h.argmax(-1) / 2


@snippet
def numbers_with_ints(h):
    i = h.argmax(-1)
    return i + 1, i + 1.5, i * True, i / 3, i // 2, i % 3, i**2, -i, i == 2, i > 1.5, 7 - i, 7 // (i + 1)


@snippet
def numbers_with_bools(h):
    b = h > 0
    return b + 1, b * 2.0, b & True, b | (h > 1), b ^ FLAGS, b + b, b.sum(), b.float().mean(), b * b, ~b


@snippet
def zero_dim_tensors_do_not_promote(h):
    return (
        h * ZERO_DIM64,
        h + torch.tensor(3),
        ZERO_DIM64 - h,
        h.sum() * ZERO_DIM64,
        h.sum() + VECTOR64,
        h.argmax() + torch.tensor(1.5),
    )


@snippet
def vectors_promote(h):
    return h * VECTOR64, h + INTS, h * HALF, h.argmax(-1) + torch.tensor([[1.5]]), h * FLAGS, VECTOR64 @ h[0].double().T


@snippet
def casts(h):
    return (
        h.double(),
        h.half().float(),
        h.bfloat16(),
        h.long(),
        h.int(),
        h.bool(),
        h.to(torch.float16),
        h.type(torch.float64),
    )


@snippet
def casts_by_example(h):
    return h.to(VECTOR64), h.type_as(HALF), h.to(dtype=torch.int32), h.to("cpu"), h.cpu(), h.to("cpu", torch.float64)


@snippet(tolerance=1e-2)  # of gradients: they are summed in another order
def arithmetic_in_bfloat16(h):
    x = h.bfloat16()
    return x + 1, x * HALF, (x @ x.mT).float(), x.softmax(-1), x.sum(-1), x.mean()


@snippet
def double_precision_path(h):
    x = h.double()
    return (x - x.mean(-1, keepdim=True)).pow(2).mean(-1).sqrt().float(), x @ VECTOR64


@snippet
def integer_reductions(h):
    i = h.argmax(-1)
    return (
        i.sum(),
        i.float().mean(),
        i.max(),
        i.cumsum(-1),
        i.prod(),
        (i == 3).sum(0),
        i.bool().all(),
        i.sum(dtype=torch.float32),
    )


@snippet
def reductions_with_dtype(h):
    return (
        h.sum(dtype=torch.float64),
        h.mean(-1, dtype=torch.float64),
        h.cumsum(1, dtype=torch.float64),
        h.prod(0, dtype=torch.float64),
    )


@snippet
def in_place_keeps_dtype(h):
    h += 1.5
    h *= torch.tensor(2, dtype=torch.float64)
    h[:, 0] = VECTOR64
    h[:, 1] = INTS
    h[:, 2] = FLAGS


@snippet
def in_place_on_ints(h):
    i = h.argmax(-1)
    i += 2
    i *= i
    i[0] = 3.7
    return i


@snippet
def bitwise(h):
    i = h.argmax(-1)
    return i & 1, i | 8, i ^ 3, i << 1, i >> 1, ~i, torch.bitwise_and(i, INTS[:5])


@snippet
def result_queries(h):
    return (
        h.dtype,
        h.is_floating_point(),
        (h > 0).dtype,
        h.argmax(-1).dtype,
        torch.result_type(h, 1.0),
        torch.is_tensor(h),
    )


@snippet
def device_queries(h):
    return h.device.type, h.is_cuda, h.layout, h.element_size(), h.dim(), h.nelement()


@snippet
def default_dtype_of_factories(h):
    return (
        torch.arange(12) * h,
        torch.ones(12, dtype=torch.float64) * h,
        torch.full((12,), 2) * h,
        torch.tensor([1, 2])[0] * h,
    )


@snippet
def division_modes(h):
    return (
        torch.div(h, 0.3, rounding_mode="floor"),
        torch.div(h, 0.3, rounding_mode="trunc"),
        torch.remainder(h, 0.7),
        torch.fmod(h, 0.7),
    )


@snippet
def special_numbers(h):
    return h.clamp(max=float("inf")), torch.full_like(h, float("nan")).isnan() & (h > 0), h * float("inf")


@snippet(raises=DtypeError, says="as an expression")
def integers_in_place_by_floats(h):
    i = h.argmax(-1)
    i += 0.5  # here


@snippet(raises=DtypeError, says="dtype")
def matmul_of_two_dtypes(h):
    return h @ VECTOR64  # here


@snippet(raises=OpError, says="complex")
def complex_numbers(h):
    return torch.fft.fft(h)  # here


@snippet(raises=OpError, says=".to(dtype)")
def view_as_dtype(h):
    return h.view(torch.int32)  # here
