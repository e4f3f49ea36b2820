"""Predicates in an atlas: the heads that hold "is a fruit" while the list is searched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import weft
from weft import tasks
from weft.atlas.part import Context, Figure, Part, Skip, can
from weft.methods import FilterHeads, Result, filter_heads

PARTS = ("grid", "mask", "sets", "same_answer", "necessity", "question_first", "predicates", "transfer")


def find(context: Context) -> FilterHeads:
    can(context, "select_one")
    if why := context.model.support("q"):
        raise Skip(f"its queries cannot be patched: {why}")
    try:
        return filter_heads(
            context.model, tasks.SelectOne(), pairs=context.n // 2, train_pairs=2 * context.n, parts=PARTS, random_sets=3,
            seed=context.seed, progress=context.progress,
        )  # fmt: skip
    except weft.errors.ProgramError as error:
        raise Skip(error.message) from None


def says(found: Result) -> Iterable[str]:
    assert isinstance(found, FilterHeads)
    heads = ", ".join(f"L{layer}H{head}" for layer, head in found.heads)
    size = found["causality"].size if "causality" in found.arrays else 0
    yield f"The learned mask keeps {len(found.heads)} of {size} heads: {heads or 'none'}."
    if "sets" in found.arrays:
        sets = found["sets"]
        for name in sets.coords["set"].values:
            value, low, high = (float(sets.sel(set=name, measure=each)) for each in ("causality", "low", "high"))
            yield f"{name}: the other question decides in {value:.2f} ({low:.2f} to {high:.2f}) of the pairs."
    for part, why in found.left_out.items():
        yield f"{part} could not be had: {why}"


def figures(found: Result) -> Sequence[Figure]:
    shown = [
        ("causality", "How often the other question's category decides, each head's query patched alone."),
        ("mask", "What is left of the learned mask: a head near 1 is needed."),
        ("transfer", "Predicates read from the prompts of one task, put into those of another."),
    ]
    return [Figure(caption, found.plot(name)) for name, caption in shown if name in found.arrays]


PART = Part(
    name="predicates",
    title="Predicates",
    asks="“Which of these is a fruit?” To pick the word, some heads must hold “is a fruit” while they look back over the "
    "list. Put in their queries from a question about another category: if that question is then answered, of this list, "
    "the predicate was there.",
    misleads="Where items are flagged as they are read, no query matters. The same-answer control and random heads must do "
    "nothing.",
    run=find, says=says, figures=figures, tables=("sets", "necessity"),
)  # fmt: skip
