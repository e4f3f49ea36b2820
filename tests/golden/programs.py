"""Experiments whose text, canonical bytes and hash are kept as files: whoever changes these changes the schema."""

from __future__ import annotations

from fakes import Builder, floats, ints
from weft.ir.nodes import (
    EACH,
    Apply,
    Dtype,
    Experiment,
    Grad,
    Loop,
    Op,
    Param,
    Read,
    Ref,
    Run,
    Site,
    Slot,
    Update,
    ViewStep,
    Write,
)

LAST = ViewStep("select.int", (1, -1))


def patching() -> Experiment:
    """One head's z at the last position, from a clean run into a corrupted one, and the logit difference."""
    b = Builder()
    clean, corrupt = b.run([[1, 2, 3]]), b.run([[4, 2, 3]])
    head = b.add(Op("select.int", (b.add(Op("select.int", (b.read(clean, "z", 1), 1, -1))), 1, 2)))
    b.add(Write(b.read(corrupt, "z", 1), (LAST, ViewStep("select.int", (1, 2))), head))
    last = b.add(Op("select.int", (b.read(corrupt, "logits"), 1, -1)))
    right, wrong = (b.add(Op("select.int", (last, 1, token))) for token in (5, 7))
    b.save("diff", b.add(Op("sub.Tensor", (right, wrong))))
    return b.experiment()


def generation() -> Experiment:
    """Steering at one step and at each, sampled from a seed, rows of different lengths."""
    b = Builder()
    inputs = ("tokens", b.const(ints([[0, 1, 2], [3, 4, 5]]))), ("start", b.const(ints([1, 0])))
    stop = ((0,), (1, 2))
    options = ("max_new_tokens", 4), ("seed", 7), ("stop", stop), ("temperature", 0.5), ("top_p", 0.9)
    run = b.add(Run("generate", inputs, options)).node
    vector = b.const(floats(12, fill=0.5))
    for layer, step in ((0, 0), (1, EACH)):
        site = b.read(run, "resid_post", layer, step)
        b.add(Write(site, (), b.add(Op("add.Tensor", (site, vector)))))
    b.save("tokens", b.read(run, "tokens"))
    return b.experiment()


def parts_and_gradients() -> Experiment:
    """Weights, parts, a change in place of a tensor of the user's own, gradients, every kind of argument."""
    b = Builder()
    run = b.run([[1, 2]])
    site = b.read(run, "resid_post", 0)
    lens = b.add(Apply("unembed", site))
    shadow = b.add(Op("matmul", (site, b.add(Param("W_U")))))
    gap = b.add(Op("sub.Tensor", (b.add(Op("detach", (lens,), nograd=True)), shadow)))
    total = b.add(Op("sum.dim_IntList", (gap, (0, 1, 2), False, Dtype("float64"))))
    b.save("slope of the gap", b.add(Grad(total, (site,))))
    masked = b.add(Op("clamp", (gap, float("-inf"), None)))
    grid = b.const(floats(2, 3))
    row = b.add(Op("select.int", (b.add(Op("sum.dim_IntList", (masked, (0, 1)))), 0, 0)))
    cell = ViewStep("select.int", (0, 1)), ViewStep("select.int", (0, 2))
    b.save("grid", b.add(Update(grid, cell, row, (1, 0))))
    return b.experiment()


def raw_module() -> Experiment:
    """A model that is no language model: keyword tensors in, modules by path."""
    b = Builder()
    run = b.add(Run("tensors", (("image", b.const(floats(1, 3, 2, 2))),))).node
    hidden = b.add(Read(run, Site("module.output", path="features.0")))
    b.add(
        Write(hidden, (ViewStep("slice.Tensor", (1, 0, None, 2)),), b.add(Op("slice.Tensor", (hidden, 1, 1, None, 2))))
    )
    b.save("second call", b.add(Read(run, Site("module.input", path="norm", call=1, item="x"))))
    return b.experiment()


def training() -> Experiment:
    """A basis trained by batches of a table: what it swaps, its loss and a metric, made orthogonal after each step."""
    body, after, b = Builder(), Builder(), Builder()
    basis, tokens, answers = (body.add(Slot(kind, n)) for kind, n in (("carried", 0), ("batch", 0), ("batch", 1)))
    run = body.add(Run("tokens", (("tokens", tokens),))).node
    site = body.read(run, "resid_post", 0)
    last = body.add(Op("select.int", (site, 1, -1)))
    inside = body.add(Op("mm", (body.add(Op("mm", (last, basis))), body.add(Op("permute", (basis, (1, 0)))))))
    body.add(Write(site, (LAST,), body.add(Op("sub.Tensor", (last, inside)))))
    final = body.add(Op("select.int", (body.read(run, "logits"), 1, -1)))
    loss = body.add(Op("cross_entropy_loss", (final, answers)))
    size = body.add(Op("linalg_vector_norm", (basis,)))
    qr = after.add(Op("linalg_qr", (after.add(Slot("carried", 0)),)))
    tables = b.const(ints([[1, 2, 3], [4, 5, 6], [7, 8, 9]])), b.const(ints([5, 6, 7]))
    options = ("every", 10), ("lr", 0.05), ("optimiser", "adam"), ("schedule", "cosine")
    loop = b.add(
        Loop(
            tuple(body.nodes), (loss, size), tuple(after.nodes), (qr,), (b.const(floats(12, 2, fill=0.1)),), (), tables,
            (b.const(ints([[0, 1], [2, 0], [1, 2]])),), 0, 100, options,
        )
    )  # fmt: skip
    b.save("basis", loop)
    b.save("history", Ref(loop.node, 4))
    return b.experiment()


PROGRAMS = {make.__name__: make for make in (patching, generation, parts_and_gradients, raw_module, training)}
