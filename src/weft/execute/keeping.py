"""Values that stay: while an experiment runs a `keep` is a save like any other; at the end the two are told apart."""

from __future__ import annotations

from dataclasses import replace

from weft.ir.nodes import Experiment, Keep, Save
from weft.ir.outcome import Outcome

PREFIX = "_keep."
"""No user's name begins with an underscore."""


def as_saves(experiment: Experiment) -> Experiment:
    """The same experiment with every keep as a save."""
    if Keep not in map(type, experiment.nodes):
        return experiment
    nodes = tuple(Save(PREFIX + n.name, n.value) if isinstance(n, Keep) else n for n in experiment.nodes)
    return Experiment(nodes, experiment.locations)


def apart(outcome: Outcome) -> Outcome:
    """The outcome with what was kept under `kept`, and no longer among the values."""
    kept = {name.removeprefix(PREFIX): each for name, each in outcome.values.items() if name.startswith(PREFIX)}
    if not kept:
        return outcome
    values = {name: each for name, each in outcome.values.items() if not name.startswith(PREFIX)}
    return replace(outcome, values=values, kept=kept)
