"""Standing edits: written once on a run of no particular size, and done again at the start of every run.

The block is traced on a template with an unlikely number of rows and positions. To put the edit into a run its nodes are
traced again, with those numbers replaced by the run's own; whatever else depends on the template's size is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from weft.errors import ProgramError
from weft.ir.nodes import Apply, Const, Dtype, Keep, Node, Op, Param, Read, Ref, Save, Update, Write
from weft.ir.nodes import Run as RunNode
from weft.trace.constants import DTYPES
from weft.trace.location import where

if TYPE_CHECKING:
    from weft.trace.model import Model
    from weft.trace.run import Run
    from weft.trace.tensor import Traced

BATCH, POS = 1009, 1013
"""The template's size: primes that no model's own sizes are."""


class Template:
    """The block in which an edit is written."""

    def __init__(self, model: Model) -> None:
        from weft.trace.session import Session

        self.session = Session(model)
        self.run: Run

    def __enter__(self) -> Template:
        self.session.__enter__()
        tokens = torch.zeros(BATCH, POS, dtype=torch.long)
        self.run = self.session._add_run("tokens", {"tokens": tokens}, ())
        return self

    def __exit__(self, *error: Any) -> None:
        self.session._mode.__exit__(*error)
        self.session.model.sessions.remove(self.session)
        self.session.state = "failed" if error[0] is not None else "done"

    def has(self, name: str) -> bool:
        """Whether `name` is a site."""
        return (
            name in self.run.card.layers_of
            or name == "resid_pre"
            or any(spec.site.name == name and not spec.site.path for spec in self.run.card.sites)
        )

    def finish(self) -> Edit:
        nodes = tuple(self.session.graph.nodes)
        for index, node in enumerate(nodes):
            if isinstance(node, Save | Keep):
                raise ProgramError(
                    "a standing edit saves nothing; save in the sessions of the edited model",
                    where=self.session.graph.location(Ref(index)),
                )
            if isinstance(node, Op):
                _own_size(node.args, 1, 1, self.session.graph.location(Ref(index)))
        if not any(isinstance(node, Write) for node in nodes):
            raise ProgramError("this edit writes to no site", where=where())
        return Edit(nodes)


@dataclass(frozen=True)
class Edit:
    """The nodes of a standing edit."""

    nodes: tuple[Node, ...]

    def replay(self, target: Any) -> None:
        """Trace the edit again, into a run, or into every step of a generation."""
        from weft.trace.generation import Generation

        if isinstance(target, Generation):
            for step in range(int(target.options["max_new_tokens"])):
                _replay(self.nodes, target.step(step))
        else:
            _replay(self.nodes, target)


def _replay(nodes: tuple[Node, ...], run: Run) -> None:
    values: dict[Ref, Any] = {}
    for index, node in enumerate(nodes):
        outputs = _again(node, values, run)
        for out, value in enumerate(outputs):
            values[Ref(index, out)] = value


def _again(node: Node, values: dict[Ref, Any], run: Run) -> tuple[Any, ...]:
    match node:
        case RunNode():
            return ()
        case Const(data):
            return (_again_constant(data),)
        case Read(_, site):
            return (run.site(site),)
        case Param(name):
            return (run.session.model._param(name),)
        case Apply(part, arg):
            return (run.session.model._apply(part, values[arg]),)
        case Op(name, args, nograd):
            with torch.set_grad_enabled(torch.is_grad_enabled() and not nograd):
                found = _call(name, _filled(args, values, run))
            return tuple(found) if isinstance(found, list | tuple) else (found,)
        case Write(prev, view, value):
            return (_written(values[prev], view, values[value], run),)
        case Update(base, view, value):
            copied: Traced = values[base].clone()
            return (_written(copied, view, values[value], run),)
    raise ProgramError(
        f"a standing edit cannot hold {type(node).__name__.lower()}; it changes sites only", where=where()
    )


def _again_constant(data: Any) -> torch.Tensor:
    """The numbers that the edit was written with; where they want a gradient, the tensor that they are of."""
    if not data.source.requires_grad:
        return data.tensor
    if not data.is_still(data.source):
        raise ProgramError(
            "a tensor that requires grad was changed after a standing edit was written with it; write the edit again",
            where=where(),
        )
    return data.source


def _written(x: Traced, view: Any, value: Any, run: Run) -> Traced:
    part: Any = x
    for step in view:
        part = _call(step.op, (part, *_filled(step.args, {}, run)))
    part.copy_(value)
    return x


def _call(name: str, args: tuple[Any, ...]) -> Any:
    base, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, base), overload or "default")(*args)


def _filled(args: Any, values: dict[Ref, Any], run: Run) -> Any:
    if isinstance(args, Ref):
        return values[args]
    if isinstance(args, Dtype):
        return DTYPES[args.name]
    if isinstance(args, tuple):
        return tuple(_filled(arg, values, run) for arg in args)
    return _own_size(args, run.batch, run.pos, None)


def _own_size(arg: Any, batch: int, pos: int, line: Any) -> Any:
    """A size of the template as the run's; an error for a number that only resembles one."""
    if isinstance(arg, tuple) and not isinstance(arg, Ref):
        return tuple(_own_size(item, batch, pos, line) for item in arg)
    if type(arg) is not int or abs(arg) >= 1 << 62 or arg == 0:
        return arg
    rest, own = arg, 1
    for size, number in ((BATCH, batch), (POS, pos)):
        if rest % size == 0:
            rest, own = rest // size, own * number
    if own == 1 and rest == arg:
        return arg
    return rest * own


__all__ = ["BATCH", "POS", "Edit", "Template"]
