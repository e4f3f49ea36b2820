"""Functions in an atlas: which relations examples make the model apply, and the vector of each of the clearest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import xarray as xr

import weft
from weft import tasks
from weft.atlas.part import Context, Figure, Part, Skip, can
from weft.methods import FunctionVector, Result, function_vector
from weft.methods.places import answer_ids
from weft.tasks.words.relations import RELATIONS

SHOTS = 5
EACH = 16
"""Prompts by which a relation is judged."""
MOST = 3
"""Relations whose vector is looked for."""
SAID = 0.5
"""Below this share of right answers on shuffled examples the paper's effect has room."""


@dataclass(frozen=True, kw_only=True)
class Shown(Result):
    """ "accuracy" [relation, condition]: "with examples", "without", "shuffled"."""

    method: str = "shown"

    def clear(self) -> list[str]:
        """Relations that the examples, and not the word alone, make it apply; of each kind of word the clearest."""
        first: dict[str, str] = {}
        for _, name in sorted(self.gains(), reverse=True):
            first.setdefault(RELATIONS[name].domain, name)
        return list(first.values())

    def gains(self) -> Iterator[tuple[float, str]]:
        """Of each relation that the examples decide, by how much they do."""
        for name in self["accuracy"].coords["relation"].values.tolist():
            shown, bare = (
                float(self["accuracy"].sel(relation=name, condition=c)) for c in ("with examples", "without")
            )
            if shown >= 0.7 and shown - bare >= 0.3:
                yield shown - bare, name


def screen(context: Context) -> Shown:
    can(context, "functions", 0.3)
    rows: dict[str, list[float]] = {}
    for name in RELATIONS:
        asked = _asked(name, context.seed)
        if asked is not None:
            rows[name] = [_begun(context.model, each) for each in asked]
    return Shown(
        model=context.model.card.name, mediator="none: the model as it is", search="every relation of weft.tasks",
        intervention="none", metric="share of prompts after which the answer's first token is the likeliest",
        control="the same words without examples, and with the examples' outputs in other places",
        seeds=(context.seed,), settings={"shots": SHOTS, "prompts": EACH},
        arrays={"accuracy": xr.DataArray(list(rows.values()), dims=("relation", "condition"), coords={
            "relation": list(rows), "condition": ["with examples", "without", "shuffled"]})},
    )  # fmt: skip


def _begun(model: Any, prompts: Any) -> float:
    """How often the likeliest token is the one that the answer begins with, as the vectors are judged too."""
    with model.session() as s:
        best = s.run(list(prompts.prompts)).logits[:, -1].argmax(-1).save("best")
    return float((best.value == answer_ids(model, prompts.prompts, prompts.answers)).float().mean())


def _asked(relation: str, seed: int) -> tuple[Any, Any, Any] | None:
    """The same queries with examples, without, and with shuffled ones; None if the relation shares its words with no other."""
    task = tasks.InContextFunctions(shots=SHOTS)
    shown = [each for number in range(40) for each in _of(task, relation, seed + number)][:EACH]
    if not shown:
        return None
    prompts = task.prompts(shown)
    turned = task.prompts({**each, "examples": _turned(each["examples"])} for each in shown)
    return prompts, task.bare(prompts), replace(turned, answers=prompts.answers, options=prompts.options)


def _of(task: Any, relation: str, seed: int) -> list[Any]:
    return [each for each in task.sample(64, seed).inputs if each["relation"] == relation]


def _turned(examples: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    outputs = [y for _, y in examples]
    return tuple((x, y) for (x, _), y in zip(examples, outputs[1:] + outputs[:1], strict=True))


def says(found: Result) -> Iterable[str]:
    assert isinstance(found, Shown)
    clear = found.clear()
    yield f"Relations that examples make it apply: {', '.join(name for _, name in found.gains()) or 'none clearly'}."
    if clear:
        yield f"The vectors of {', '.join(clear[:MOST])} are looked for below."


def figures(found: Result) -> Sequence[Figure]:
    from weft.plot import heatmap

    figure = heatmap(
        found["accuracy"].rename("accuracy"), title="With examples, without, and with shuffled ones"
    ).plotly()
    return [
        Figure(
            "Share of right answers by relation. The first column high and the second low: the examples decide.", figure
        )
    ]


SCREEN = Part(
    name="functions",
    title="Functions that examples show",
    asks="Give a few pairs (cat → cats, dog → dogs) and one more word. The word alone does not say what to do with it, so a "
    "right answer means that the examples' function was found and applied.",
    misleads="Where shuffled examples are answered rightly too, the outputs alone give the function away.",
    run=screen, says=says, figures=figures, tables=("accuracy",),
)  # fmt: skip


def vectors(shown: Result) -> list[Part]:
    """A part for each of the clearest relations."""
    assert isinstance(shown, Shown)
    return [
        _vector(name, float(shown["accuracy"].sel(relation=name, condition="shuffled")))
        for name in shown.clear()[:MOST]
    ]


def _vector(relation: str, shuffled: float) -> Part:
    on = "shuffled" if shuffled < SAID else "zero-shot"
    return Part(
        name=f"functions/{relation}",
        title=f"The function “{relation}”",
        asks="A few heads carry the function from the examples to the last word. Their mean outputs are put into prompts that "
        f"{'show shuffled examples' if on == 'shuffled' else 'show no example'}; what each does to the answer is its effect. "
        "The sum of the strongest heads' outputs is a vector: added to a bare word's stream, it should make the model apply "
        "the function.",
        misleads="If random vectors of the same length do as well, nothing was found. And the vector may only make some words "
        "likelier, whatever they stand for.",
        run=partial(_find, relation, on), says=_vector_says, figures=_vector_figures, tables=("accuracy",),
    )  # fmt: skip


def _find(relation: str, on: str, context: Context) -> FunctionVector:
    try:
        return function_vector(
            context.model, relation, shots=SHOTS, n_means=context.n // 2, n_effects=EACH, effects_on=on,
            n_queries=context.n // 2, controls=3, seed=context.seed, progress=context.progress,
        )  # fmt: skip
    except weft.WeftError as error:
        raise Skip(error.message) from None


def _vector_says(found: Result) -> Iterable[str]:
    assert isinstance(found, FunctionVector)
    heads = ", ".join(f"L{layer}H{head}" for layer, head in found.heads)
    yield f"{len(found.heads)} of {found['aie'].size} heads: {heads}; the vector is added after layer {found.layer}."
    values = {str(each): found["accuracy"].sel(condition=each) for each in found["accuracy"].coords["condition"].values}
    for name in ("zero-shot", "zero-shot, function vector", "zero-shot, random heads", "zero-shot, random vectors"):
        each = values[name]
        value, low, high = (float(each.sel(value=part)) for part in ("value", "low", "high"))
        yield f"{name}: {value:.2f} ({low:.2f} to {high:.2f}, 19 times in 20)."


def _vector_figures(found: Result) -> Sequence[Figure]:
    return [
        Figure(
            "What each head's mean output does to the answer's probability (average indirect effect).",
            found.plot("aie"),
        ),
        Figure("Accuracy without examples, the vector (or a control) added after each layer.", found.plot("curve")),
        Figure("Accuracy at the layer chosen, on queries that nothing was chosen by.", found.plot("accuracy")),
    ]
