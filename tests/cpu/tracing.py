"""Running a snippet twice: on the numbers with plain hooks and autograd, and traced."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from snippets import Snippet

import weft
from tiny import tiny_gpt2
from weft.errors import GradientError, WeftError
from weft.trace import Traced

PROMPTS = torch.tensor([[1, 5, 3, 8, 2], [4, 4, 16, 0, 9]])

# Snippets are given resid_post[0] of one run, and as a second argument attn_out[0] of another, both
# [batch 2, pos 5, d_model 12].


@cache
def model() -> Any:
    return weft.load(tiny_gpt2())


@dataclass
class Result:
    """What a snippet gave (tensors and Python values, flattened) and how it lay in memory, what it left in its sites,
    and the gradients."""

    values: list[Any]
    strides: list[Any]
    sites: list[torch.Tensor]
    logits: torch.Tensor
    gradients: list[torch.Tensor | None] = field(default_factory=list)
    no_gradient: str = ""


def flat(value: Any) -> list[Any]:
    """Nested results as one list."""
    if isinstance(value, torch.Tensor) or not isinstance(value, list | tuple) or isinstance(value, torch.Size):
        return [value]
    return [item for each in value for item in flat(each)]


def strides(values: list[Any]) -> list[Any]:
    """How far apart in memory neighbours are, where there are neighbours: what shares memory later depends on it."""
    tensors = [x if isinstance(x, torch.Tensor) and x.numel() else torch.zeros(()) for x in values]
    return [tuple(step for step, size in zip(x.stride(), x.shape, strict=True) if size > 1) for x in tensors]


def leaves(function: Callable[..., Any]) -> list[torch.Tensor]:
    """The tensors of a snippet's module that require grad, and the parameters of the modules that it names."""
    found: list[torch.Tensor] = []
    for name, x in function.__globals__.items():
        if isinstance(x, torch.Tensor) and x.is_leaf and x.requires_grad:
            found.append(x)
        elif isinstance(x, torch.nn.Module) and name in function.__code__.co_names:
            found.extend(x.parameters())
    return found


def weighted(values: list[Any]) -> Any:
    """One number that depends on every floating-point value, each entry with a weight of its own."""
    total: Any = 0
    for value in values:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            weights = torch.linspace(0.5, 1.5, max(value.numel(), 1), dtype=torch.float64)[: value.numel()]
            total = total + (value.double() * weights.reshape(value.shape)).sum()
    return total


@contextmanager
def hooked(block: Any, change: Callable[..., Any]) -> Any:
    handle = block.register_forward_hook(change)
    try:
        yield
    finally:
        handle.remove()


@cache
@torch.no_grad()
def other() -> torch.Tensor:
    """The second argument's numbers."""
    module = model().backend.loaded.module
    found: list[torch.Tensor] = []
    with hooked(module.transformer.h[0].attn, lambda _, __, out: found.append(out[0].clone())):
        module(PROMPTS)
    return found[0]


def eager(function: Callable[..., Any]) -> Result:
    """With plain hooks on the transformers model; without gradients where PyTorch itself has none to give."""
    try:
        return _eager(function)
    except RuntimeError:
        with torch.no_grad():
            return _eager(function)


def _eager(function: Callable[..., Any]) -> Result:
    module = model().backend.loaded.module
    shift = torch.zeros(12, requires_grad=True)
    count = len(inspect.signature(function).parameters)
    found: dict[str, Any] = {}
    second = other().clone()

    def embedded(_: Any, args: Any, kwargs: Any) -> Any:
        return (args[0] + shift, *args[1:]), kwargs

    def ended(_: Any, __: Any, out: Any) -> Any:
        h = (out[0] if isinstance(out, tuple) else out).clone()
        sites = [h, second][:count]
        torch.manual_seed(0)
        returned = flat(function(*sites))
        found["strides"] = strides(returned)
        found["values"] = [x.clone() if isinstance(x, torch.Tensor) else x for x in returned]
        found["sites"] = sites
        return (h, *out[1:]) if isinstance(out, tuple) else h

    layer = module.transformer.h[0]
    handle = layer.register_forward_pre_hook(embedded, with_kwargs=True)
    try:
        with hooked(layer, ended):
            logits = module(PROMPTS).logits
    finally:
        handle.remove()
    result = Result(found["values"], found["strides"], found["sites"], logits)
    own = [shift, *leaves(function)]
    if not torch.is_grad_enabled():
        return result
    loss = weighted([*result.values, result.sites[0]]) + weighted([logits])
    result.gradients = list(torch.autograd.grad(loss, own, allow_unused=True))
    return result


def traced(function: Callable[..., Any]) -> Result:
    """In a session."""
    count = len(inspect.signature(function).parameters)
    shift = torch.zeros(12, requires_grad=True)
    own = leaves(function)
    for leaf in own:
        leaf.grad = None
    with model().session() as s:
        run = s.run(PROMPTS)
        run.embed += shift
        sites = [run.resid_post[0], s.run(PROMPTS).attn_out[0]][:count]
        torch.manual_seed(0)
        returned = flat(function(*sites))
        lay = strides(returned)
        values = [x.save(f"value {i}") if isinstance(x, Traced) else x for i, x in enumerate(returned)]
        for i, site in enumerate(sites):
            site.save(f"site {i}")
        run.logits.save("logits")
        total = weighted([*values, sites[0]]) + weighted([run.logits])
        stopped = ""
        try:
            total.backward()
        except GradientError as error:
            stopped = str(error)
    numbers = [s.results[f"value {i}"] if isinstance(x, Traced) else x for i, x in enumerate(values)]
    after = [s.results[f"site {i}"] for i in range(count)]
    gradients = [x.grad for x in (shift, *own)]
    return Result(numbers, lay, after, s.results["logits"], gradients, stopped)


def same(given: Any, expected: Any, tolerance: float = 1e-6) -> bool:
    """Equal in kind, shape, dtype and numbers (to `tolerance` of the largest)."""
    if not isinstance(expected, torch.Tensor):
        return type(given) is type(expected) and bool(given == expected)
    if not isinstance(given, torch.Tensor) or given.shape != expected.shape or given.dtype != expected.dtype:
        return False
    if not expected.is_floating_point():
        return torch.equal(given, expected)
    scale = float(expected.detach().double().nan_to_num(0, 0, 0).abs().max()) if expected.numel() else 0.0
    return torch.allclose(given.double(), expected.double(), rtol=0, atol=tolerance * max(scale, 1.0), equal_nan=True)


def compare(each: Snippet) -> None:
    """Raise AssertionError where tracing and eager PyTorch differ."""
    expected, given = eager(each.function), traced(each.function)
    assert len(given.values) == len(expected.values)
    for i, (a, b) in enumerate(zip(given.values, expected.values, strict=True)):
        assert same(a, b, each.tolerance / 10), f"value {i}: traced {a!r}, eager {b!r}"
    assert given.strides == expected.strides, f"laid out as {given.strides}, not {expected.strides}"
    for i, (a, b) in enumerate(zip(given.sites, expected.sites, strict=True)):
        assert same(a, b), f"site {i}: traced {a!r}, eager {b!r}"
    assert same(given.logits, expected.logits), "the model did not go on with what was written"
    if each.gradient is False:
        assert given.no_gradient, "a gradient was expected to be refused"
        return
    if not expected.gradients or each.gradient is None:
        return
    assert not given.no_gradient, given.no_gradient
    for i, (a, b) in enumerate(zip(given.gradients, expected.gradients, strict=True)):
        if b is None:
            assert a is None or not a.any(), f"gradient {i} should be none"
        else:
            scale = max(float(b.nan_to_num(0, 0, 0).abs().max()), 1.0)
            assert a is not None and torch.allclose(a, b, rtol=0, atol=each.tolerance * scale, equal_nan=True), (
                f"gradient {i}: {a} for {b}"
            )


def refused(each: Snippet) -> WeftError:
    """The error that tracing the snippet raises; it must point at the line marked "# here" and name the way out."""
    assert each.raises is not None
    try:
        traced(each.function)
    except WeftError as error:
        assert isinstance(error, each.raises), f"{type(error).__name__}: {error}"
        assert each.says in error.message, f"{each.says!r} is not in {error.message!r}"
        lines, first = inspect.getsourcelines(each.function)
        line = first + next(i for i, text in enumerate(lines) if "# here" in text)
        where = error.where
        assert where is not None, "the error points nowhere"
        assert (where.file, where.line) == (each.function.__code__.co_filename, line), f"it points at {where}"
        return error
    raise AssertionError("it was not refused")
