"""The op table's rules give what PyTorch gives: the same shapes and dtypes, from its real kernels, for every row."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from op_cases import CASES, Args, Given, build

from weft.errors import WeftError
from weft.execute import kernels
from weft.ir.optable import OPS, REQUIRED, infer
from weft.ir.types import TensorType
from weft.trace.lower import plain

# Arguments that mean nothing to us: where memory lies, how gradients are stored, which library is preferred.
LEFT_OUT = {"memory_format", "layout", "device", "pin_memory", "non_blocking", "copy", "sparse_grad",
            "cudnn_enable", "cudnn_enabled"}  # fmt: skip


def tensors(value: Any, generator: torch.Generator) -> Any:
    if isinstance(value, Given):
        return build(value, generator)
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(tensors(item, generator) for item in value)
    return value


def types(value: Any) -> Any:
    if isinstance(value, Given):
        return TensorType(value.dtype, value.shape)
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(map(types, value))
    return value


def type_of(tensor: torch.Tensor) -> TensorType:
    return TensorType(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))


def differs(name: str, args: Args) -> str | None:
    """What the rule and the kernel do not agree on, in words; None if they agree or neither takes this."""
    try:
        ours: Any = infer(name, types(args))
    except WeftError as error:
        ours = error
    try:
        theirs: Any = tuple(map(type_of, kernels.call(name, tensors(args, torch.Generator().manual_seed(0)))))
    except (RuntimeError, IndexError, ValueError, NotImplementedError, WeftError) as error:
        theirs = error
    refused = isinstance(ours, WeftError), isinstance(theirs, Exception)
    if refused == (True, True) or (refused == (False, False) and ours == theirs):
        return None
    if refused == (False, True) and any(each in str(theirs) for each in ("not implemented for", "ZeroDivision")):
        return None  # what this device lacks, and what the values forbid, is no shape rule's business
    return f"{name}{args}: the rule says {ours!s:.200}, PyTorch {theirs!s:.200}"


@pytest.mark.parametrize("name", sorted(OPS))
def test_the_rule_gives_what_the_kernel_gives(name: str) -> None:
    found = [words for args in CASES.get(name, []) if (words := differs(name, args)) is not None]
    assert not found, "\n".join(found[:5])


def test_every_op_has_cases_that_it_takes() -> None:
    def taken(name: str) -> bool:
        return any(not _refused(name, args) for args in CASES.get(name, []))

    assert [name for name in sorted(OPS) if not taken(name)] == []


def _refused(name: str, args: Args) -> bool:
    try:
        infer(name, types(args))
    except WeftError:
        return True
    return False


def test_a_wrong_rule_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    wrong = replace(OPS["relu"], rule=lambda x: TensorType(x.dtype, (*x.shape, 1)))
    monkeypatch.setitem(OPS, "relu", wrong)
    assert differs("relu", (Given("float32", (3,)),)) is not None


@pytest.mark.parametrize("name", sorted(OPS))
def test_the_signature_is_pytorchs_own(name: str) -> None:
    base, _, overload = name.partition(".")
    schema = getattr(getattr(torch.ops.aten, base), overload or "default")._schema
    theirs = {each.name: each for each in schema.arguments}
    ours = [param.name for param in OPS[name].params]
    assert [each for each in theirs if each in ours] == ours
    assert set(theirs) - set(ours) <= LEFT_OUT
    for param in OPS[name].params:
        given = theirs[param.name]
        if given.has_default_value() and param.default is not REQUIRED:
            assert plain(given.default_value, param) == param.default, param.name
