"""What is done to parameters after each step, traced once as the loss is.

project ::= how | {name: how}
how     ::= "orthogonal" | "unit" | ("clamp", low, high) | a function of the parameter that gives its new value
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from weft.errors import ProgramError, ShapeError
from weft.ir.nodes import Node, Ref
from weft.trace.fitbody import BodySession
from weft.trace.location import where
from weft.trace.tensor import Traced

if TYPE_CHECKING:
    from weft.trace.model import Model

How = Callable[[Any], Any]


def projection(
    model: Model, learned: dict[str, torch.Tensor], project: Any
) -> tuple[tuple[Node, ...], tuple[Ref, ...]]:
    """The nodes of the projection and each parameter's new value; nothing if there is none."""
    if project is None:
        return (), ()
    ways = _ways(learned, project)
    session = BodySession(model, list(learned.values()), fixed=False)
    refs = session.trace(lambda: [_new(name, slot, ways) for name, slot in zip(learned, session.carried, strict=True)])
    return session.close(), tuple(refs)


def _ways(learned: dict[str, torch.Tensor], project: Any) -> dict[str, How]:
    given = project if isinstance(project, Mapping) else dict.fromkeys(learned, project)
    unknown = sorted(str(name) for name in given if name not in learned)
    if unknown:
        raise ProgramError(f"project names {unknown[0]!r}; the parameters are {', '.join(learned)}", where=where())
    return {str(name): _way(str(name), how, learned[str(name)]) for name, how in given.items()}


def _way(name: str, how: Any, value: torch.Tensor) -> How:
    if callable(how):
        return how
    if how == "orthogonal":
        if value.dim() != 2:
            raise ShapeError(f"{name} {tuple(value.shape)} is no matrix and cannot be made orthogonal", where=where())
        return orthogonal
    if how == "unit":
        return lambda x: x / x.norm(dim=-1, keepdim=True)
    match how:
        case ("clamp", low, high):
            return lambda x: x.clamp(low, high)
        case _:
            raise ProgramError(
                f'{how!r} is no projection: use "orthogonal", "unit", ("clamp", low, high) or a function', where=where()
            )


def orthogonal(x: torch.Tensor) -> torch.Tensor:
    """The nearest basis by Gram and Schmidt: orthonormal columns (or rows, where there are fewer of those)."""
    if x.shape[0] < x.shape[1]:
        return orthogonal(x.T).T
    q, r = torch.linalg.qr(x)
    return q * torch.where(torch.diagonal(r) < 0, -1.0, 1.0).to(q.dtype)


def _new(name: str, slot: Traced, ways: dict[str, How]) -> Ref:
    if name not in ways:
        return slot.ref
    found = ways[name](slot)
    new = slot if found is None else found
    if not isinstance(new, Traced) or new.shape != slot.shape or new.dtype != slot.dtype:
        shown = new.tensor_type if isinstance(new, Traced) else type(new).__name__
        raise ShapeError(f"the projection of {name} gives {shown}, not {slot.tensor_type}", where=where())
    return new.ref


__all__ = ["projection"]
