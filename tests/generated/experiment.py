"""An experiment as source text over the public interface, and running it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from tests.generated.zoo import Which, model_of

import weft
from weft.ir.outcome import Outcome

HELPERS = '''\
def const(seed, *shape):
    """Normal numbers from a seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(DTYPE)
'''


@dataclass(frozen=True)
class Experiment:
    """`body`: statements inside the session's block. `leaves`: tensors that want a gradient, by name: (seed, shape).

    `edit`: statements inside `model.edit()`, before the session. `features`: what the draw exercised.
    """

    seed: int
    which: Which
    body: tuple[str, ...]
    leaves: dict[str, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    edit: tuple[str, ...] = ()
    features: frozenset[str] = frozenset()

    @property
    def source(self) -> str:
        """A program that can be pasted into a bug report."""
        which = f"Which({', '.join(map(repr, self.which))})"
        lines = [f"# seed {self.seed}", "import torch, weft", "from tests.generated.zoo import Which, model_of"]
        lines += [f"DTYPE = torch.{self.which.dtype}", HELPERS, f"model = model_of({which})"]
        if self.edit:
            lines += ["with model.edit() as edited:", *(f"    {line}" for line in self.edit), "model = edited"]
        lines += [f"{name} = const({seed}, *{shape}).requires_grad_()" for name, (seed, shape) in self.leaves.items()]
        lines += ["with model.session(plan=PLAN) as s:", *(f"    {line}" for line in self.body)]
        return "\n".join(lines)

    def without(self, line: int) -> Experiment:
        """The experiment with one statement left out."""
        return replace(self, body=self.body[:line] + self.body[line + 1 :])


@dataclass(frozen=True)
class Result:
    """What running gave: every saved value (hidden ones too), the gradients of leaves, and the outcome itself."""

    values: dict[str, torch.Tensor]
    outcome: Outcome


def names_of(experiment: Experiment) -> dict[str, Any]:
    """What the source may name: torch, weft, const, and fresh leaves."""
    names: dict[str, Any] = {"torch": torch, "weft": weft, "DTYPE": getattr(torch, experiment.which.dtype)}
    exec(compile(HELPERS, "<helpers>", "exec"), names)
    for name, (seed, shape) in experiment.leaves.items():
        names[name] = names["const"](seed, *shape).requires_grad_()
    return names


def closure(experiment: Experiment, names: dict[str, Any], lines: tuple[str, ...]) -> Callable[[Any], None]:
    """`write(session)`: the statements, with the session as `s`."""
    code = compile("\n".join(lines), f"<seed {experiment.seed}>", "exec")

    def write(session: Any) -> None:
        names["s"], names["model"] = session, session.model
        exec(code, names)

    return write


def run(experiment: Experiment, plan: str) -> Result:
    """The experiment under a plan; WeftError where it is not legal."""
    names, model = names_of(experiment), model_of(experiment.which)
    if experiment.edit:
        with model.edit() as edited:
            names["edited"] = edited
            exec(compile("\n".join(experiment.edit), "<edit>", "exec"), names)
        model = edited
    with model.session(plan=plan) as session:
        closure(experiment, names, experiment.body)(session)
    # Hidden names hold a node's number, which is nobody's affair here.
    hidden = sorted((name for name in session.values if name.startswith("_")), key=lambda name: int(name.split(".")[1]))
    values = dict(session.results) | {
        f"{name.split('.')[0]} {i}": session.values[name] for i, name in enumerate(hidden)
    }
    for name in experiment.leaves:
        if names[name].grad is not None:
            values[f"{name}.grad"] = names[name].grad
    assert session.outcome is not None
    return Result(values, session.outcome)
