"""What dispatch records, lowered to a public op and run by its kernel, gives the numbers that the recorded op gave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from weft.errors import OpError
from weft.execute import kernels
from weft.trace.lower import functional_of, lower

aten = torch.ops.aten


class Compare(TorchDispatchMode):
    """Holds every op that reaches dispatch against its lowered form."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operands = [each for each in args if isinstance(each, torch.Tensor | list | tuple)]
        fills = func in (aten.empty_like.default, aten.new_empty.default)  # ours are zeros
        if not any(_holds_tensor(each) for each in operands) or fills or func is aten.copy_.default:
            return func(*args, **kwargs)
        pure = functional_of(func) if func._schema.is_mutable else func
        assert pure is not None, func
        lowered = lower(pure, args, kwargs)
        ours = kernels.call(lowered.name, lowered.args) if lowered.name else None
        theirs = func(*args, **kwargs)
        if ours is not None:
            self.names.append(lowered.name)
            given = [theirs] if isinstance(theirs, torch.Tensor) else list(theirs)
            for place, output in zip(lowered.outputs or range(len(given)), given, strict=True):
                if place is not None:
                    torch.testing.assert_close(ours[place], output, rtol=1e-5, atol=1e-6, equal_nan=True)
        return theirs


def _holds_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor) or (isinstance(value, list | tuple) and any(map(_holds_tensor, value)))


def x(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def spd(n: int) -> torch.Tensor:
    return x(n, n) @ x(n, n).T + torch.eye(n)


Q = (2, 4, 5, 8)
CALLS: dict[str, Callable[[], Any]] = {
    "softmax.int": lambda: x(3, 4).softmax(-1),
    "log_softmax.int": lambda: x(3, 4).log_softmax(-1),
    "to.dtype": lambda: x(3).double(),
    "add.Scalar": lambda: torch.add(2, x(3)),
    "rsub.Scalar": lambda: torch.sub(2, x(3)),
    "div.Tensor": lambda: torch.div(2, x(3)),
    "pow.Tensor_Scalar": lambda: x(3).pow_(2),
    "bitwise_left_shift.Tensor_Scalar": lambda: torch.arange(3) << 1,
    "clamp": lambda: x(3).clamp_min(0),
    "zeros_like": lambda: x(3).zero_(),
    "fill.Scalar": lambda: x(3).fill_(2),
    "slice.Tensor": lambda: x(3, 4)[:, 1:],
    "index.Tensor": lambda: x(3, 4)[torch.tensor([True, False, True])],
    "index_put": lambda: x(3, 4).index_put_((torch.tensor([0, 2]),), torch.tensor(1.0)),
    "reshape": lambda: x(2, 3, 4).transpose(0, 1).reshape(3, 8),
    "layer_norm": lambda: F.layer_norm(x(2, 5), (5,), x(5), x(5)),
    "group_norm": lambda: F.group_norm(x(2, 4, 3), 2),
    "batch_norm": lambda: nn.BatchNorm2d(3).eval()(x(2, 3, 4, 5)),
    "scaled_dot_product_attention": lambda: F.scaled_dot_product_attention(x(*Q), x(*Q), x(*Q), is_causal=True),
    "log_sigmoid": lambda: F.logsigmoid(x(3)),
    "elu": lambda: F.selu(x(3)),
    "conv2d": lambda: F.conv2d(x(2, 3, 6, 5), x(4, 3, 2, 2), padding=1, stride=2),
    "conv_transpose2d.input": lambda: F.conv_transpose2d(x(2, 3, 4, 5), x(3, 4, 2, 2), stride=2),
    "max_pool2d": lambda: F.max_pool2d(x(2, 3, 4, 5), 2),
    "adaptive_avg_pool2d": lambda: F.adaptive_avg_pool2d(x(2, 3, 4, 5), 2),
    "pad": lambda: F.pad(x(2, 3, 4, 5), (1, 1, 1, 1), mode="reflect"),
    "upsample_bilinear2d": lambda: F.interpolate(x(2, 3, 4, 5), size=(8, 8), mode="bilinear"),
    "nll_loss_nd": lambda: F.cross_entropy(x(3, 5), torch.tensor([0, 4, 2]), label_smoothing=0.1),
    "cdist": lambda: torch.cdist(x(3, 4), x(5, 4)),
    "linalg_svd": lambda: torch.linalg.svd(x(3, 4)),
    "linalg_svdvals": lambda: aten._linalg_svd.default(x(3, 4), False, False),
    "linalg_eigh": lambda: torch.linalg.eigh(spd(3)),
    "linalg_inv": lambda: torch.linalg.inv(spd(3)),
    "linalg_solve": lambda: torch.linalg.solve(spd(3), x(3, 2)),
    "linalg_det": lambda: torch.linalg.det(spd(3)),
    "linalg_slogdet": lambda: torch.linalg.slogdet(spd(3)),
    "linalg_cholesky": lambda: torch.linalg.cholesky(spd(3)),
    "linalg_pinv.atol_rtol_float": lambda: torch.linalg.pinv(x(3, 4)),
    "bmm": lambda: torch.einsum("bqhd,bkhd->bhqk", x(2, 3, 4, 5), x(2, 3, 4, 5)),
}


@pytest.mark.parametrize("name", sorted(CALLS))
def test_the_lowered_op_gives_the_same(name: str) -> None:
    with torch.no_grad(), Compare() as compare:
        CALLS[name]()
    assert name in compare.names


@pytest.mark.parametrize(
    ("func", "args", "words"),
    [
        (aten.bernoulli.default, (x(3),), "random"),
        (aten.nonzero.default, (x(3),), "values"),
        (aten.as_strided.default, (x(3), [1], [1]), "layout"),
        (aten.native_batch_norm.default, (x(2, 3), None, None, x(3), x(3), True, 0.1, 1e-5), "eval"),
        (aten._local_scalar_dense.default, (x(1),), "now"),
    ],
)
def test_what_is_never_legal_says_why(func: Any, args: tuple, words: str) -> None:
    with pytest.raises(OpError, match=words):
        lower(func, args, {})


@pytest.mark.parametrize("func", [aten.copy_.default, aten.t_.default, aten.normal_.default, aten.resize_.default])
def test_these_have_no_functional_form(func: Any) -> None:
    assert functional_of(func) is None
