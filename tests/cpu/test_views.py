"""Views as numbers: offsets and strides are PyTorch's own, and regions name exactly the elements a view reaches."""

from __future__ import annotations

import random
from itertools import product

import pytest
import torch

from weft.errors import OpError, ShapeError
from weft.execute import kernels
from weft.ir.nodes import ViewStep
from weft.ir.views import View, apply_chain, box, dense, overlaps, parts, step, strides


def random_step(rng: random.Random, shape: tuple[int, ...]) -> ViewStep:
    """A view that probably fits a tensor of this shape."""
    n = len(shape)
    dim = rng.randrange(-n, n) if n else 0
    length = shape[dim] if n else 1
    start, size = rng.randint(-length - 1, length + 1), rng.randint(1, max(length, 1))
    factor = next((k for k in (2, 3) if length % k == 0 and length), 1)
    order = tuple(rng.sample(range(n), n))
    merged = rng.randrange(max(n, 1))
    return rng.choice([
        ViewStep("select.int", (dim, rng.randrange(-length, length) if length else 0)),
        ViewStep("slice.Tensor", (dim, start, rng.randint(-1, length + 1), rng.randint(1, 3))),
        ViewStep("slice.Tensor", (dim, None, None, rng.randint(1, 2))),
        ViewStep("narrow", (dim, 0, size)),
        ViewStep("permute", (order,)),
        ViewStep("transpose.int", (dim, -1)),
        ViewStep("t", ()),
        ViewStep("unsqueeze", (rng.randint(-n - 1, n),)),
        ViewStep("squeeze", ()),
        ViewStep("squeeze.dim", (dim,)),
        ViewStep("expand", ((rng.randint(1, 2), *(rng.randint(1, 3) if k == 1 else -1 for k in shape)),)),
        ViewStep("unfold", (dim, size, rng.randint(1, 3))),
        ViewStep("diagonal", (rng.randint(-2, 2), 0, -1)),
        ViewStep("unflatten.int", (dim, (-1, factor))),
        ViewStep("flatten.using_ints", (merged, -1)),
        ViewStep("view", ((-1,),)),
        ViewStep("view", ((*shape[:merged], -1),)),
        ViewStep("movedim.int", (dim, 0)),
        ViewStep("alias", ()),
    ])  # fmt: skip


def random_chain(seed: int) -> tuple[torch.Tensor, tuple[int, ...], torch.Tensor, list[ViewStep]]:
    """A dense root whose elements are their own places in memory, a layout, and a chain of views that PyTorch takes."""
    rng = random.Random(seed)
    shape = tuple(rng.randint(1, 6) for _ in range(rng.randint(0, 4)))
    layout = tuple(rng.sample(range(len(shape)), len(shape))) if rng.random() < 0.3 else ()
    flat = torch.arange(torch.Size(shape).numel())
    root = x = flat.as_strided(shape, strides(shape, layout))
    chain: list[ViewStep] = []
    for _ in range(rng.randint(1, 6)):
        each = random_step(rng, tuple(x.shape))
        before = View(x.storage_offset(), tuple(x.shape), x.stride())
        try:
            found = kernels.view(x, each)
        except (RuntimeError, IndexError, ShapeError):
            with pytest.raises(ShapeError):
                step(before, each.op, each.args)
            continue
        if found.untyped_storage().data_ptr() != x.untyped_storage().data_ptr():
            continue  # flatten copied, where a chain may not
        x = found
        chain.append(each)
    return root, layout, x, chain


def steps_taken(sizes: tuple[int, ...], strides_: tuple[int, ...]) -> list[int]:
    """The strides of dimensions along which one can step at all."""
    return [stride for size, stride in zip(sizes, strides_, strict=True) if size > 1] if 0 not in sizes else []


@pytest.mark.parametrize("block", range(20))
def test_chains_have_pytorchs_offsets_and_strides(block: int) -> None:
    for seed in range(block * 100, block * 100 + 100):
        root, layout, x, chain = random_chain(seed)
        found = apply_chain(tuple(root.shape), layout, chain)
        assert (found.offset, found.sizes) == (x.storage_offset(), tuple(x.shape)), (seed, chain)
        assert steps_taken(found.sizes, found.strides) == steps_taken(x.shape, x.stride()), (seed, chain)


def elements(shape: tuple[int, ...], layout: tuple[int, ...], region: tuple) -> set[int]:
    lengths = [range(span.start, span.start + span.length * span.step, span.step) for span in region]
    places = strides(shape, layout)
    return {sum(i * s for i, s in zip(index, places, strict=True)) for index in product(*lengths)}


@pytest.mark.parametrize("block", range(20))
def test_a_box_names_exactly_the_elements_reached(block: int) -> None:
    exact = total = 0
    for seed in range(block * 100, block * 100 + 100):
        root, layout, x, chain = random_chain(seed)
        view = apply_chain(tuple(root.shape), layout, chain)
        region = box(tuple(root.shape), layout, view)
        total += 1
        if region is not None:
            exact += 1
            assert elements(tuple(root.shape), layout, region) == set(x.reshape(-1).tolist()), (seed, chain)
    assert exact / total > 0.85


def test_overlap_is_never_missed() -> None:
    for seed in range(500):
        _, _, x, _ = random_chain(seed)
        view = View(x.storage_offset(), tuple(x.shape), tuple(x.stride()))
        if len(set(x.reshape(-1).tolist())) < x.numel():
            assert overlaps(view), seed


def test_a_row_of_a_matrix() -> None:
    view = apply_chain((4, 6), (), [ViewStep("select.int", (0, 1)), ViewStep("slice.Tensor", (0, 2))])
    assert view == View(8, (4,), (1,))
    assert box((4, 6), (), view) == ((1, 1, 1), (2, 4, 1))


def test_heads_of_a_merged_dimension_are_a_box() -> None:
    """[batch, pos, 3·4] seen as heads of 4, head 1: columns 4 to 7."""
    view = apply_chain((2, 5, 12), (), [ViewStep("view", ((2, 5, 3, 4),)), ViewStep("select.int", (2, 1))])
    assert box((2, 5, 12), (), view) == ((0, 2, 1), (0, 5, 1), (4, 4, 1))


def test_a_diagonal_is_no_box() -> None:
    assert box((3, 3), (), apply_chain((3, 3), (), [ViewStep("diagonal", ())])) is None


def test_a_view_that_would_copy_is_refused() -> None:
    with pytest.raises(ShapeError, match="reshape"):
        apply_chain((2, 3), (), [ViewStep("t", ()), ViewStep("view", ((6,),))])


def test_what_is_no_view_is_refused() -> None:
    with pytest.raises(OpError, match="no view"):
        apply_chain((2, 3), (), [ViewStep("relu", ())])
    with pytest.raises(OpError, match="arguments"):
        apply_chain((2, 3), (), [ViewStep("select.int", (1,))])


@pytest.mark.parametrize(
    ("op", "args"), [("unbind.int", (1,)), ("split.Tensor", (2, 1)), ("split_with_sizes", ((1, 2), 1))]
)
def test_views_of_several_outputs_are_views_each(op: str, args: tuple) -> None:
    x = torch.arange(24).reshape(2, 3, 4)
    found = parts(op, args, (2, 3, 4))
    assert found is not None
    for each, theirs in zip(found, kernels.call(op, (x, *args)), strict=True):
        assert torch.equal(kernels.view(x, each), theirs)
        assert step(dense((2, 3, 4)), each.op, each.args).strides == theirs.stride()
