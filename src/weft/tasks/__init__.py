"""Prompts with answers, counterfactual pairs, token roles and causal models: `from weft import tasks`.

task = tasks.SelectOne(distractors=4)
batch = task.sample(64, seed=0)
task.evaluate(model, n=100)
tasks.correct_pairs(model, batch)                      # only the pairs that the model gets right
"""

from __future__ import annotations

from weft.tasks.accuracy import Accuracy, accuracy, correct_pairs, option_scores
from weft.tasks.batch import Batch, Prompts, Span, Text, write
from weft.tasks.belief import BeliefTracking
from weft.tasks.binding import EntityBinding
from weft.tasks.causal import CausalModel, Variable
from weft.tasks.facts import Facts
from weft.tasks.filtering import Count, Exists, SelectFirst, SelectLast, SelectOne
from weft.tasks.functions import InContextFunctions
from weft.tasks.greater_than import GreaterThan
from weft.tasks.ioi import IndirectObject
from weft.tasks.repeated import RepeatedTokens
from weft.tasks.split import held_out
from weft.tasks.tables import Table, own_tables, read_tables
from weft.tasks.task import Pair, Swap, Task
from weft.tasks.translation import Translation
from weft.tasks.verbatim import VerbatimLists
from weft.tasks.visibility import Visibility

TASKS: dict[str, type[Task]] = {
    each.name: each
    for each in (
        InContextFunctions, SelectOne, SelectFirst, SelectLast, Count, Exists, Translation, VerbatimLists, RepeatedTokens,
        BeliefTracking, Visibility, EntityBinding, IndirectObject, Facts, GreaterThan,
    )
}  # fmt: skip
"""Every task by name."""

__all__ = [
    "TASKS", "Accuracy", "Batch", "BeliefTracking", "CausalModel", "Count", "EntityBinding", "Exists", "Facts", "GreaterThan",
    "InContextFunctions", "IndirectObject", "Pair", "Prompts", "RepeatedTokens", "SelectFirst", "SelectLast", "SelectOne",
    "Span", "Swap", "Table", "Task", "Text", "Translation", "Variable", "VerbatimLists", "Visibility", "accuracy",
    "correct_pairs", "held_out", "option_scores", "own_tables", "read_tables", "write",
]  # fmt: skip
