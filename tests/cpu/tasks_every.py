"""Every task in every variant, for tests that hold for all of them."""

from __future__ import annotations

from weft import tasks
from weft.tasks import belief, binding, facts, ioi, visibility
from weft.tasks.words.english import RHYMES
from weft.tasks.words.languages import categories

FILTERS = [tasks.SelectOne, tasks.SelectFirst, tasks.SelectLast, tasks.Count, tasks.Exists]
VARIANTS = [
    *(each(distractors=n, question_first=before) for each in FILTERS for n in (2, 7) for before in (False, True)),
    tasks.SelectOne(categories=RHYMES, question="Which of these rhymes with {}?"),
    tasks.SelectOne(categories=categories("tavi")),
    *(tasks.InContextFunctions(kind=kind) for kind in ("function", "shuffled")),
    *(tasks.Translation(kind=kind) for kind in ("concept", "language")),
    *(tasks.VerbatimLists(language=language) for language in ("any", "nonsense")),
    tasks.RepeatedTokens(),
    *(tasks.BeliefTracking(kind=kind) for kind in belief.SWAPS),
    *(tasks.BeliefTracking(kind=kind, layout="crossed", characters=3) for kind in belief.SWAPS),
    *(tasks.BeliefTracking(kind=kind, layout="listed", characters=3) for kind in belief.SWAPS),
    *(tasks.BeliefTracking(kind=kind, layout="numbered", characters=3) for kind in belief.SWAPS),
    *(tasks.Visibility(kind=kind) for kind in visibility.SWAPS),
    *(tasks.EntityBinding(kind=kind, entities=n) for kind in binding.SWAPS for n in (2, 4)),
    *(tasks.IndirectObject(kind=kind) for kind in ioi.SWAPS),
    *(tasks.Facts(kind=kind) for kind in facts.SWAPS),
    tasks.GreaterThan(),
]


def named(task: tasks.Task) -> str:
    """A short name for a test's parameter."""
    kind = [
        str(getattr(task, each)) for each in ("kind", "layout", "distractors", "question_first") if hasattr(task, each)
    ]
    return " ".join([task.name, *kind])
