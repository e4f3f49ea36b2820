"""What a gradient may be asked of, and with respect to what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from weft.errors import GradientError
from weft.ir.nodes import Ref, ViewStep
from weft.trace.location import where
from weft.trace.run import Layers, contiguous
from weft.trace.tensor import Signature, Traced

if TYPE_CHECKING:
    from weft.trace.session import Session

Wanted = tuple[Ref, tuple[Signature, Signature, int], tuple[ViewStep, ...]]
"""A target's node, its storage's and its own signature (and offset), and the views from one to the other."""


def grad(scalar: Any, targets: Any) -> Any:
    """The gradient of `scalar` with respect to sites or your own tensors, at the edited values.

        g = weft.grad(loss, run.z[5])                   # a traced value shaped like the site
        ga, gb = weft.grad(loss, [run.embed, probe])    # several at once

    `scalar` is a traced value with one element. Gradients are complete: they go through everything in between, the
    model included. GradientError if that is impossible (a node recorded under no_grad, a target that it does not
    depend on).
    """
    if not isinstance(scalar, Traced):
        raise GradientError("weft.grad wants a value of the session; use torch.autograd.grad for others", where=where())
    several = isinstance(targets, list | tuple | Layers)
    asked = list(targets) if several else [targets]
    result = scalar._st.owner.grad(scalar, asked)
    return result if several else result[0]


def check_gradient(scalar: Traced) -> None:
    """GradientError unless `scalar` is one floating-point number."""
    if scalar.numel() != 1:
        raise GradientError(
            f"a gradient is taken of one number, not of {scalar.tensor_type}; sum or average it first", where=where()
        )
    if not scalar.dtype.is_floating_point:
        raise GradientError(
            f"a gradient is taken of a floating-point value, not of {scalar.tensor_type}", where=where()
        )


def wanted(session: Session, target: Any) -> Wanted:
    """The node that a target stands for."""
    if isinstance(target, Traced):
        store = target._st
        if store.graph is not session.graph:
            raise GradientError("the target belongs to another session", where=where())
        base = store.read(())
        if not target.dtype.is_floating_point:
            raise GradientError(f"{target.tensor_type} has no gradient: it is not floating point", where=where())
        size = _storage_size(target)
        root: Signature = (target.dtype, size, contiguous(size)) if size != tuple(target.shape) else target._sig
        return base, (root, target._sig, int(target.storage_offset())), target._chain
    if isinstance(target, torch.Tensor):
        signature: Signature = (target.dtype, tuple(target.shape), contiguous(tuple(target.shape)))
        return session.graph.constant(target), (signature, signature, 0), ()
    raise GradientError(f"a gradient is taken with respect to a tensor, not {type(target).__name__}", where=where())


def check_complete(session: Session, targets: list[torch.Tensor]) -> None:
    """GradientError for the model's own weights, and what is made of them: the model uses them in every run."""
    loaded = getattr(session.model.backend, "loaded", None)
    own = {p.untyped_storage().data_ptr() for p in loaded.module.parameters()} if loaded is not None else set()
    for tensor in targets:
        if any(leaf.untyped_storage().data_ptr() in own for leaf in _leaves_of(tensor)):
            raise GradientError(
                "a tensor that requires grad is one of the model's own weights, or made of one: its gradient would miss "
                "what the model does with it. Use it detached, e.g. model.W_U or weight.detach()",
                where=where(),
            )


def check_apart(session: Session, scalar: Traced, targets: list[Any]) -> None:
    """GradientError if `scalar` also depends on a tensor that was computed, outside the experiment, from a target."""
    reached = session.graph.ancestors([scalar.ref])
    computed = [t for t, ref in session.graph.leaves() if ref.node in reached and not t.is_leaf]
    for target in targets:
        if isinstance(target, Traced) or not isinstance(target, torch.Tensor):
            continue
        if any(other is not target and _comes_from(other, target) for other in computed):
            raise GradientError(
                "this value also depends on a tensor that PyTorch computed from the target by itself, which this gradient "
                "would miss; use .backward(), whose gradients are complete, or a target that is used directly",
                where=where(),
            )


def _history(tensor: torch.Tensor) -> set[Any]:
    """The nodes of autograd's graph that `tensor` was computed by."""
    seen: set[Any] = set()
    stack: list[Any] = [tensor.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            stack.extend(following for following, _ in node.next_functions)
    return seen


def _leaves_of(tensor: torch.Tensor) -> list[torch.Tensor]:
    if tensor.is_leaf:
        return [tensor] if tensor.requires_grad else []
    found = (getattr(node, "variable", None) for node in _history(tensor))
    return [leaf for leaf in found if isinstance(leaf, torch.Tensor)]


def _comes_from(tensor: torch.Tensor, target: torch.Tensor) -> bool:
    if target.grad_fn is not None:
        return target.grad_fn in _history(tensor)
    return any(leaf is target for leaf in _leaves_of(tensor))


def _storage_size(target: Traced) -> tuple[int, ...]:
    """The size of the whole that `target` is a view of."""
    if not target._chain:
        return tuple(target.shape)
    return target._st.root_size


__all__ = ["check_apart", "check_complete", "check_gradient", "grad", "wanted"]
