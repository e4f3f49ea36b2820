"""The rows column of the op table is right: an op run on slices of its operands' rows gives the slices of what it gives."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
from op_cases import CASES, Args
from test_optable_meta import tensors, types

from weft.errors import WeftError
from weft.execute import kernels
from weft.ir.nodes import ViewStep
from weft.ir.optable import OPS, infer, spec_of
from weft.ir.optable import spec as table
from weft.ir.optable.follow import Followed, follow, through
from weft.ir.optable.rows import MIXED, Lie
from weft.ir.types import TensorType

SEED = 5


def flat(value: Any) -> list[torch.Tensor]:
    """The operands among arguments, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    return [each for item in value for each in flat(item)] if isinstance(value, tuple) else []


def put(value: Any, new: Iterator[torch.Tensor]) -> Any:
    """The arguments with other operands in the places of theirs."""
    if isinstance(value, torch.Tensor):
        return next(new)
    return tuple(put(item, new) for item in value) if type(value) is tuple else value


def possible(given: list[TensorType]) -> Iterator[tuple[int, tuple[Lie | None, ...]]]:
    """Batches, and where the rows may lie in each operand (None: nowhere)."""
    for batch in sorted({n for x in given for n in x.shape if n > 1} | {2}):
        choices = [
            [None, *(Lie(dim, n // batch) for dim, n in enumerate(x.shape) if n and n % batch == 0)] for x in given
        ]
        for lies in product(*choices[:4], *([None] for _ in choices[4:])):
            if any(lie is not None for lie in lies):
                yield batch, lies


def narrow(x: torch.Tensor, lie: Lie | None, first: int, last: int) -> torch.Tensor:
    return x if lie is None else x.narrow(lie.dim, first * lie.inner, (last - first) * lie.inner)


def differs(name: str, args: Args, batch: int, lies: tuple[Lie | None, ...], found: Followed, cut: int) -> str:
    """How the op's outputs on rows up to `cut` and from there, put together, differ from the whole; "" if they do not."""
    real = tensors(args, torch.Generator().manual_seed(SEED))
    whole = kernels.call(name, real)
    pieces = []
    for first, last in ((0, cut), (cut, batch)):
        given = [narrow(x, found.cuts.get(n, lies[n]), first, last) for n, x in enumerate(flat(real))]
        given = [torch.arange(last - first) if n in found.renumbered else x for n, x in enumerate(given)]
        pieces.append(kernels.call(*found.op(name, put(real, iter(given)))))
    for at, (out, lie) in enumerate(zip(whole, found.outputs, strict=True)):
        parts = [piece[at] for piece in pieces]
        joined = parts[0] if lie is None else torch.cat(parts, lie.dim)
        if joined.shape != out.shape or not torch.allclose(joined, out, 1e-4, 1e-5, equal_nan=True):
            return f"{name}{args} of {batch} rows at {lies}, cut at {cut}: output {at}"
    return ""


def followed(name: str) -> Iterator[tuple[Args, int, tuple[Lie | None, ...], Followed]]:
    """The cases of an op that its column does not call mixed."""
    for args in CASES.get(name, []):
        try:
            outputs = infer(name, types(args))
            kernels.call(name, tensors(args, torch.Generator().manual_seed(SEED)))
        except (WeftError, RuntimeError, NotImplementedError, ValueError, IndexError):
            continue
        for batch, lies in possible(table.tensors(types(args))):
            found = follow(spec_of(name), types(args), lies, batch, outputs)
            if found is not None:
                yield args, batch, lies, found


@pytest.mark.parametrize("name", sorted(name for name in OPS if OPS[name].rows != MIXED))
def test_slices_of_rows_give_slices_of_the_whole(name: str) -> None:
    tried = 0
    for args, batch, lies, found in followed(name):
        tried += 1
        assert not (wrong := differs(name, args, batch, lies, found, 1)), wrong
    assert tried or name.startswith("squeeze") or name in {"index_put"}, f"no case of {name} is ever row-wise"


def test_a_rule_that_is_not_right_would_be_noticed() -> None:
    args, lies = next((a, c) for a, b, c, d in followed("softmax.int") if b > 1)
    wrong = Followed((lies[0],))  # along the rows themselves
    dim = lies[0].dim
    assert differs("softmax.int", (args[0], dim), args[0].shape[dim] // lies[0].inner, lies, wrong, 1)


X, ROWS, PLACES = TensorType("float32", (4, 5, 3)), TensorType("int64", (4,)), TensorType("int64", (4,))


def index(numbers: int | None) -> Followed | None:
    out = infer("index.Tensor", (X, (ROWS, PLACES)))
    return follow(spec_of("index.Tensor"), (X, (ROWS, PLACES)), (Lie(0), None, None), 4, out, lambda n: numbers)


def test_an_index_that_counts_the_rows_keeps_them() -> None:
    found = index(0)
    assert found is not None
    assert (found.outputs, found.cuts, found.renumbered) == ((Lie(0),), {2: Lie(0)}, {1})


def test_an_index_of_other_rows_mixes_them() -> None:
    assert index(None) is None


def test_index_put_of_rows_at_a_place_each() -> None:
    values = TensorType("float32", (4, 3))
    args = (X, (ROWS, PLACES), values)
    out = infer("index_put", args)
    found = follow(spec_of("index_put"), args, (Lie(0), None, None, None), 4, out, lambda n: 0 if n == 1 else None)
    assert found is not None and found.outputs == (Lie(0),)
    assert found.cuts == {2: Lie(0), 3: Lie(0)} and found.renumbered == {1}


def test_merged_rows_are_followed_through_views() -> None:
    steps = (ViewStep("view", ((20, 3),)), ViewStep("unsqueeze", (0,)), ViewStep("view", ((1, 4, 15),)))
    found = through(steps, X, Lie(0), 4)
    assert found == (
        Lie(1),
        (ViewStep("view", ((-1, 3),)), ViewStep("unsqueeze", (0,)), ViewStep("view", ((1, -1, 15),))),
    )


@pytest.mark.parametrize("step", [("select.int", (0, 1)), ("slice.Tensor", (0, 1)), ("transpose.int", (0, 1))])
def test_one_of_the_rows_alone_is_mixed_and_a_turn_is_not(step: tuple[str, tuple[int, ...]]) -> None:
    found = through((ViewStep(*step),), X, Lie(0), 4)
    assert (found and found[0]) == (Lie(1) if step[0].startswith("transpose") else None)


def test_rows_that_become_the_minor_part_are_mixed() -> None:
    assert through((ViewStep("transpose.int", (0, 1)), ViewStep("reshape", ((20, 3),))), X, Lie(0), 4) is None
