"""Where in the prompt the answer is decided, layer by layer: the stream patched at every role of a task."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import weft
from weft import tasks
from weft.atlas.part import Context, Figure, Part, Skip, can, task_of
from weft.methods import Patching, Result, activation_patching
from weft.methods.places import answer_ids

ASKED = ("ioi", "binding", "belief", "facts", "repeated")
"""Tasks tried in this order; the first that the model is good at is looked into."""
ROWS = 24
LEAST = 6


def patch(context: Context) -> Patching:
    name = _chosen(context)
    batch = _clear(context.model, task_of(context.model, name), context)
    in_order = sorted(batch.roles, key=lambda role: batch.roles[role][0].start)
    found = activation_patching(
        context.model, batch, site="resid_post", position=in_order, heads=None,
        metric="logit_diff", progress=context.progress,
    )  # fmt: skip
    return _noted(found, name)


def _noted(found: Patching, task: str) -> Patching:
    from dataclasses import replace

    return replace(found, settings={**found.settings, "task": task})


def _chosen(context: Context) -> str:
    reasons = []
    for name in ASKED:
        try:
            can(context, name, 0.7)
            return name
        except Skip as why:
            reasons.append(str(why))
    raise Skip("; ".join(reasons))


def _clear(model: Any, task: Any, context: Context) -> Any:
    """Pairs answered rightly on both sides, whose two answers begin with different tokens."""
    batch = tasks.correct_pairs(model, task.sample(2 * ROWS, context.seed), task.measure)
    kept = [row for row in range(len(batch)) if _differ(model, batch, row)][:ROWS]
    if len(kept) < LEAST:
        raise Skip(
            f"of {2 * ROWS} pairs of {task.name} only {len(kept)} are right on both sides with answers that begin differently"
        )
    return batch.take(kept)


def _differ(model: Any, batch: Any, row: int) -> bool:
    """Whether both answers have a first token, and not the same one."""
    prompts = [batch.prompts[row]] * 2
    try:
        mine, theirs = answer_ids(model, prompts, [batch.answers[row], batch.counterfactual.answers[row]]).tolist()
    except weft.errors.TokenError:
        return False
    return mine != theirs


def says(found: Result) -> Iterable[str]:
    effect = found["effect"]
    best = effect.isel(effect.argmax(list(effect.dims)))  # type: ignore[arg-type]
    yield f"Task: {found.settings['task']}; {found.settings['rows']} pairs that the model gets right on both sides."
    for role in effect.coords["position"].values.tolist():
        column = effect.sel(position=role)
        if float(column.max()) >= 0.5:
            layers = [str(layer) for layer in column.coords["layer"].values[(column >= 0.5).values]]
            yield f"At “{role}” the stream decides more than half of the answer after layer {', '.join(layers)}."
    role, layer = (best.coords[each].item() for each in ("position", "layer"))
    yield f"The largest effect is {float(best):.2f}, at “{role}” after layer {layer}."


def figures(found: Result) -> Sequence[Figure]:
    caption = (
        "How far the other prompt's stream, put in at one place after one layer, brings its answer: 0 not, 1 wholly."
    )
    return [Figure(caption, found.plot())]


PART = Part(
    name="stream",
    title="Where the answer is decided",
    asks="Two prompts that differ in what decides the answer. Take the stream of the one at one place after one layer, put it "
    "into the other, and see whose answer comes out. High at a word in low layers and at the end in high ones: between "
    "them the answer has travelled.",
    misleads="The stream at one place holds all that was gathered there, so a high value does not say what it is; and what "
    "goes by several places at once shows at none of them.",
    run=patch, says=says, figures=figures, tables=("effect",),
)  # fmt: skip
