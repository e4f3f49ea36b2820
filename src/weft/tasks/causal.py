"""A causal model: what each variable of a task is computed from, so that no expected answer is written by hand.

model.run(inputs)["answer"]                                        # the right answer
model.run(inputs, {"pointer": 1})["answer"]                        # had the pointer been 1
model.interchange(base, source, ["pointer"])["answer"]             # with the pointer that another prompt gives
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import weft

Inputs = Mapping[str, Any]
Values = dict[str, Any]
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Variable(NamedTuple):
    """One variable: computed by `of` from the values of its `parents` (inputs, or variables before it)."""

    name: str
    parents: tuple[str, ...]
    of: Callable[..., Any]


@dataclass(frozen=True)
class CausalModel:
    """Variables in the order in which they are computed; the last one is "answer"."""

    inputs: tuple[str, ...]
    computed: tuple[Variable, ...]

    def __post_init__(self) -> None:
        known = set(self.inputs)
        for name, parents, _ in self.computed:
            if missing := set(parents) - known:
                raise weft.errors.ProgramError(f"variable {name!r} needs {sorted(missing)}, computed later or never")
            known.add(name)

    @property
    def variables(self) -> tuple[str, ...]:
        """All that can be intervened on: the inputs and what is computed from them."""
        return (*self.inputs, *(each.name for each in self.computed))

    def run(self, inputs: Inputs, interventions: Mapping[str, Any] = _NOTHING) -> Values:
        """The value of every variable; those in `interventions` keep the value they are given there."""
        if unknown := set(interventions) - set(self.variables):
            raise weft.errors.ProgramError(
                f"no variable {sorted(unknown)} in this causal model; it has {', '.join(self.variables)}"
            )
        values = {name: interventions.get(name, inputs[name]) for name in self.inputs}
        for name, parents, of in self.computed:
            fixed = name in interventions
            values[name] = interventions[name] if fixed else of(*(values[parent] for parent in parents))
        return values

    def interchange(self, base: Inputs, source: Inputs, variables: Iterable[str], keep: Iterable[str] = ()) -> Values:
        """The base's values when `variables` are as in the source, and those in `keep` frozen as they are in the base."""
        ours, theirs = self.run(base), self.run(source)
        return self.run(base, {name: theirs[name] for name in variables} | {name: ours[name] for name in keep})
