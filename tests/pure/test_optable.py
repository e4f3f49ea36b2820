"""The op table without torch: what it takes, what it gives, what it refuses, and in which words."""

from __future__ import annotations

import subprocess
import sys

import pytest

from weft.errors import DtypeError, LimitError, OpError, ShapeError, WeftError
from weft.ir.nodes import Dtype
from weft.ir.optable import OPS, canonical, flops, infer, spec_of
from weft.ir.types import TensorType


def f(*shape: int) -> TensorType:
    return TensorType("float32", shape)


def i(*shape: int) -> TensorType:
    return TensorType("int64", shape)


def test_the_table_needs_no_torch() -> None:
    code = "import sys, weft.ir.optable, weft.ir.views; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_softmax_keeps_the_shape() -> None:
    assert infer("softmax.int", (f(2, 5), -1)) == (f(2, 5),)


def test_a_number_does_not_widen_but_a_float_beside_integers_does() -> None:
    assert infer("add.Scalar", (TensorType("float16", (3,)), 2.5)) == (TensorType("float16", (3,)),)
    assert infer("add.Scalar", (i(3), 2.5)) == (f(3),)


def test_dividing_integers_gives_floats() -> None:
    assert infer("div.Tensor", (i(3), i(3))) == (f(3),)


def test_a_tensor_without_dimensions_decides_only_by_category() -> None:
    assert infer("mul.Tensor", (f(3), TensorType("float64", ()))) == (f(3),)
    assert infer("mul.Tensor", (i(3), TensorType("float16", ()))) == (TensorType("float16", (3,)),)


def test_matmul_says_which_lengths_do_not_fit() -> None:
    with pytest.raises(ShapeError, match="5 columns against 4 rows"):
        infer("matmul", (f(3, 5), f(4, 2)))


def test_softmax_of_integers_names_the_way_out() -> None:
    with pytest.raises(DtypeError, match=r"\.float\(\)"):
        infer("softmax.int", (i(3), 0))


def test_an_unknown_op_names_its_neighbours() -> None:
    with pytest.raises(OpError, match=r"softmax\.int"):
        spec_of("softmax.itn")


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("relu", ()),
        ("relu", (f(3), 1)),
        ("relu", (3,)),
        ("softmax.int", (f(3), "0")),
        ("softmax.int", (f(3), True)),
        ("softmax.int", (f(3), 2**63)),
        ("reshape", (f(3), [3])),
        ("to.dtype", (f(3), "float64")),
        ("to.dtype", (f(3), Dtype("complex64"))),
        ("cat", ((f(3), None), 0)),
    ],
)
def test_arguments_of_another_kind_are_refused(name: str, args: tuple) -> None:
    with pytest.raises(OpError):
        infer(name, args)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("new_zeros", (f(1), (2**20, 2**20, 2**20))),
        ("expand", (f(1), (2**60,))),
        ("repeat", (f(4), (2**62,))),
        ("one_hot", (i(4), 2**62)),
        ("new_zeros", (f(1), (2**62,) * 1000)),
    ],
)
def test_huge_shapes_are_refused_before_anything_is_made(name: str, args: tuple) -> None:
    with pytest.raises(LimitError, match="limit"):
        infer(name, args)


def test_unbinding_a_million_rows_is_refused() -> None:
    with pytest.raises(WeftError, match="10000"):
        infer("unbind.int", (f(10**6, 2),))


def test_a_mask_as_an_index_is_refused() -> None:
    with pytest.raises(OpError, match="where"):
        infer("index.Tensor", (f(3), (TensorType("bool", (3,)),)))


def test_batch_norm_in_training_would_change_the_model() -> None:
    with pytest.raises(OpError, match="eval"):
        infer("batch_norm", (f(4, 3), None, None, f(3), f(3), True, 0.1, 1e-5, False))


def test_attention_with_dropout_is_refused() -> None:
    q = f(1, 2, 3, 4)
    with pytest.raises(OpError, match="dropout"):
        infer("scaled_dot_product_attention", (q, q, q, None, 0.1))


def test_trailing_defaults_are_dropped_but_true_is_not_one() -> None:
    assert canonical("add.Tensor", (f(1), f(1), 1)) == (f(1), f(1))
    assert canonical("add.Tensor", (f(1), f(1), True)) == (f(1), f(1), True)


def test_a_product_costs_two_operations_for_each_multiplication() -> None:
    assert flops("mm", (f(3, 5), f(5, 2)), (f(3, 2),)) == 2 * 3 * 5 * 2
    assert flops("einsum", ("ij,jk->ik", (f(3, 5), f(5, 2))), (f(3, 2),)) == 2 * 3 * 5 * 2


def test_views_cost_nothing() -> None:
    assert flops("transpose.int", (f(3, 5), 0, 1), (f(5, 3),)) == 0


@pytest.mark.parametrize("name", sorted(OPS))
def test_every_row_has_a_public_name(name: str) -> None:
    base = name.partition(".")[0]
    assert not base.startswith(("_", "native_", "empty", "resize", "as_strided", "set_"))
    assert not base.endswith(("_", "_backward", "_out"))


@pytest.mark.parametrize("name", "rand randn bernoulli multinomial normal dropout nonzero masked_select unique".split())
def test_what_is_random_or_data_dependent_is_not_there(name: str) -> None:
    assert not [each for each in OPS if each.partition(".")[0] == name]


def test_rules_raise_only_wefts_own_errors_whatever_they_are_given() -> None:
    """Every row, with arguments of the right kinds but senseless values."""
    sample = {
        "tensor": (f(), f(0), f(2, 3), i(2), TensorType("bool", (3, 1, 2))), "int": (-(2**63), -1, 0, 2, 2**62),
        "ints": ((), (0,), (-1, 1), (2**62, 2**62), (3, 3, 3)), "float": (float("nan"), -1.0, 0.5),
        "number": (True, -1, float("inf")), "bool": (True, False), "str": ("", "sum", "ij,jk->ik", "..."),
        "tensors": ((), (f(2, 3),), (f(), i(2))), "dtype": (Dtype("int8"), Dtype("float64")),
    }  # fmt: skip
    for name, spec in OPS.items():
        for turn in range(60):
            args = tuple(_pick(sample, param.kind, turn * 7 + at * 3) for at, param in enumerate(spec.params))
            try:
                out = infer(name, args)
            except WeftError:
                continue
            assert flops(name, args, out) >= 0


def _pick(sample: dict[str, tuple], kind: str, turn: int) -> object:
    if kind.endswith("?") and turn % 3 == 0:
        return (None, f(2)) if kind == "tensors?" else None
    values = sample[kind.rstrip("?")]
    return values[turn % len(values)]
