"""Function vectors: the few heads that carry a demonstrated function, and the direction that they write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr

import weft
from weft.methods.functions.effects import Head, indirect_effects, means, ranked
from weft.methods.functions.evaluate import Choice, choose, controlled, layers_of, sizes_of, tested
from weft.methods.functions.further import read_out, reconstruct, template_gain
from weft.methods.functions.prompts import FORM, Examples, Form, other_forms
from weft.methods.functions.steering import Steering
from weft.methods.places import heads_given, numbers
from weft.methods.result import Result


@dataclass(frozen=True, kw_only=True)
class FunctionVector(Result):
    """What `function_vector` found. `result.steering` is the vector with its layer; `result.steer(model)` puts it in.

    "aie" [layer, head] and "indirect_effect" [layer, head, prompt] · "heads" [rank, which], the heads summed ·
    "vector" [d_model] · "mean_z" [layer, head, d_head] · "search" [heads, layer], accuracy on the queries that size and
    layer were chosen by · "curve" and "probability" [vector, layer] with the vector and each control added after each layer,
    without examples · "accuracy" [condition, value]: value, low, high (19 times in 20), n · "templates" [template, value],
    the gain in other forms · "vocabulary" [rank] and "vocabulary_probability": what the unembedding reads in the vector.
    """

    method: str = "function_vector"
    layer: int
    name: str = ""

    @property
    def heads(self) -> list[Head]:
        """(layer, head) of the heads summed, the strongest first."""
        return [(int(layer), int(head)) for layer, head in self["heads"].values]

    @property
    def steering(self) -> Steering:
        """The vector, to be added to others of its kind, tried on other pairs, or put into a model."""
        if "vector" not in self.arrays:
            raise weft.errors.ProgramError(f"there is no vector yet: this search was stopped {self.stopped}")
        return Steering(torch.tensor(self["vector"].values), self.layer, self.name, tuple(self.settings["form"]))

    def steer(self, model: Any, scale: float = 1.0, layer: int | None = None) -> Any:
        """A model whose every run, and every step of a generation, has the vector at its last token."""
        steering = self.steering
        return (steering if layer is None else steering.at(layer)).steer(model, scale)

    def __add__(self, other: Any) -> Steering:
        return self.steering + other

    def __sub__(self, other: Any) -> Steering:
        return self.steering - other

    def plot(self, name: str | None = None, **options: Any) -> Any:
        from weft.plot import bars, lines

        if name in ("accuracy", "templates", "rebuilt"):
            value, low, high = (self[name].sel(value=each, drop=True) for each in ("value", "low", "high"))
            return bars(value, low=low, high=high, title=self.title(name), **options)
        if name in (None, "aie") and "heads" in self.arrays:
            options.setdefault("mark", self.heads[0])
        if name is None and "aie" not in self.arrays and "curve" in self.arrays:
            name = "curve"
        if name not in ("curve", "probability"):
            return super().plot(name, **options)
        levels = {"without a vector": float(self["accuracy"].sel(condition="zero-shot", value="value"))}
        return lines(self[name], title=self.title(name), levels=levels if name == "curve" else None, **options)


def function_vector(
    model: Any,
    task: Mapping[str, str] | str,
    *,
    shots: int = 10,
    n_heads: int | str = "auto",
    heads: Sequence[Head] | None = None,
    layer: int | str = "sweep",
    form: Form = FORM,
    templates: Sequence[Form] | None = None,
    n_means: int = 100,
    n_effects: int = 25,
    effects_on: str = "shuffled",
    n_queries: int = 100,
    held_out: float = 0.3,
    only_right: bool = True,
    controls: int = 5,
    vocabulary: int = 10,
    rebuild: int = 0,
    seed: int = 0,
    progress: bool = True,
    plan: str = "auto",
) -> FunctionVector:
    """The direction that makes the model apply a function, without an example of it; and the heads that carry it.

        found = weft.methods.function_vector(model, "capital")           # or your own {"France": "Paris", …}
        found.plot(), found.plot("curve"), found["accuracy"], found.heads
        with found.steer(model).session() as s:
            g = s.generate("Q: France\\nA:", max_new_tokens=3)

    `task`: pairs of words, or the name of one of weft's relations. `shots` examples a prompt, each written opening +
    input + middle + " " + output + closing (`form`). `n_heads`: how many heads are summed; "auto" takes the number, up
    to 15 % of all, that does best on the queries kept for that, as does layer="sweep". `heads`: sum these instead.
    `effects_on`: "shuffled", the paper's, or "zero-shot" prompts, for a model that reads the function off the outputs alone
    and so answers shuffled prompts rightly (`settings["before"]` is near 1). `held_out`: the share of pairs that is asked
    about and never shown, half of it only at the end; at most `n_queries` are asked in each half. `only_right=False` takes
    means over and asks all prompts, those that the model answers wrongly too: for a control on a model that cannot do the
    task. `n_effects=0` with `heads` measures no effects. `templates`: other forms to try the vector in (some of weft's).
    `controls`: how often each random control is drawn. `vocabulary`: how many of the tokens that the vector unembeds to are
    listed. `rebuild`: steps of training a vector that unembeds to the same likeliest tokens (0: not done; 100 is enough).

    Paper: Todd et al., ICLR 2024 (arXiv 2310.15213), sections 2 and 3, in four steps.
    1. z̄[l,h]: each head's mean output at the last token of `n_means` prompts that the model answers rightly.
    2. AIE[l,h]: mean over `n_effects` prompts whose outputs are shuffled of P(y | z[l,h] := z̄[l,h]) − P(y).
    3. v = Σ W_O^h z̄[l,h] over the heads with the largest AIE; by query head, and without the projection's bias.
    4. resid_post[l] += v at the last token, of queries without examples and of shuffled ones. Only queries that the model
       answers with examples are asked.
    Controls: as many random heads, random vectors of v's length, and no vector. An answer is right if its first token is
    the likeliest of all.

    It misleads where answers share first tokens (then a language or a letter is found, not a function); where words give
    the function away (zero-shot accuracy is high without v); where shuffled examples often stay right (few outputs); and
    where a vector just makes some outputs likelier whatever the input: see the rebuilt vector, and ask of it pairs that
    were never shown. In families with a norm after attention, v is what the heads write before that norm.
    """
    pairs, name = _pairs(task)
    summed = None if heads is None else heads_given(model, heads)
    sizes, layers = sizes_of(model, n_heads, summed), layers_of(model, layer)
    examples = Examples.of(model, pairs, shots, seed, held_out, form, n_queries)
    if summed is None and not n_effects:
        raise weft.errors.ProgramError(
            "n_effects=0 measures no head, so say which heads are summed: function_vector(…, heads=[(15, 5), …], n_effects=0)"
        )
    disturbed = examples.without("valid", n_effects, effects_on)
    known = means(model, examples.few_shot("valid", n_means), plan, only_right)
    work = _Work({"mean_z": _by_head(known.z, "d_head")}, [known.record], "")
    before = None
    if n_effects:
        effects = indirect_effects(model, disturbed, known.z, plan, progress)
        work.arrays = _found(effects.values) | work.arrays
        work.add({}, effects.records, effects.stopped)
        before = float(effects.before.mean())
    if not work.stopped:
        order: list[Head] = _order(work.arrays, summed)
        choice = choose(model, examples, known.z, order, sizes, layers, plan, progress)
        work.add(_chosen(choice), choice.records, choice.stopped, choice.layer)
        if not work.stopped:
            others, own = controlled(model, known.z, choice, controls, seed, plan)
            work.add({}, own)
            work.add(*tested(model, examples, choice, others, plan, progress, only_right))
        if not work.stopped:
            work.add(*read_out(model, choice.vector, vocabulary))
            forms = other_forms(model, form) if templates is None else templates
            work.add(*template_gain(model, examples, choice, forms, plan))
            work.add(*reconstruct(model, examples, choice, rebuild, seed, plan))
    return FunctionVector(
        model=model.card.name,
        mediator="heads: z at the last token; a direction of resid_post",
        search="exhaustive over heads, by average indirect effect" if heads is None else "heads given",
        intervention="mean output put in (heads); vector added at the last token (stream)",
        metric="P(first token of the answer); accuracy of the likeliest token",
        control=f"no vector; as many random heads and random vectors of the same length, {controls} draws each",
        seeds=(seed,),
        settings={
            "shots": shots, "n_heads": n_heads, "form": form, "n_means": n_means, "n_effects": n_effects,
            "held_out": held_out, "n_queries": n_queries, "effects_on": effects_on,
            "only_right": only_right, "right_with_examples": int(known.right.sum()),
            "of": len(known.right), "before": before,
        },
        stopped=work.stopped,
        arrays=work.arrays,
        records=tuple(work.records),
        layer=work.layer,
        name=name,
    )  # fmt: skip


def universal(found: Sequence[FunctionVector], n: int = 10) -> list[Head]:
    """The heads with the largest indirect effect on average over several functions, for `function_vector(…, heads=…)`.

    The paper's own vectors are sums over such heads, the same for all functions. ProgramError if the results are not of
    one model's heads.
    """
    if len({each["aie"].shape for each in found}) != 1:
        raise weft.errors.ProgramError("universal heads need results of at least one function, all of the same model")
    mean = torch.tensor(np.mean([each["aie"].values for each in found], axis=0))
    return ranked(mean)[:n]


@dataclass
class _Work:
    """What there is so far."""

    arrays: dict[str, xr.DataArray]
    records: list[Any]
    stopped: str
    layer: int = -1

    def add(
        self, arrays: dict[str, xr.DataArray], records: Sequence[Any] = (), stopped: str = "", layer: int | None = None
    ) -> None:
        self.arrays |= arrays
        self.records += records
        self.stopped = stopped
        self.layer = self.layer if layer is None else layer


def _pairs(task: Any) -> tuple[dict[str, str], str]:
    if isinstance(task, str):
        from weft.tasks.words.relations import RELATIONS

        if task not in RELATIONS:
            raise weft.errors.ProgramError(
                f"no relation is called {task!r}; there are {', '.join(RELATIONS)}; or give pairs: {{'France': 'Paris', …}}"
            )
        return dict(RELATIONS[task].pairs), task
    if not isinstance(task, Mapping) or not all(isinstance(word, str) for pair in task.items() for word in pair):
        raise weft.errors.ProgramError(
            f"task is pairs of words, {{'France': 'Paris', …}}, or a relation's name, not {type(task).__name__}"
        )
    return {x: y.strip() for x, y in task.items()}, "function"


def _order(arrays: Mapping[str, xr.DataArray], heads: Sequence[Head] | None) -> list[Head]:
    """The heads given; else all by their effect."""
    return ranked(torch.tensor(arrays["aie"].values)) if heads is None else list(heads)


def _found(effects: torch.Tensor) -> dict[str, xr.DataArray]:
    return {"aie": _by_head(effects.mean(-1)), "indirect_effect": _by_head(effects, "prompt")}


def _by_head(values: torch.Tensor, *dims: str) -> xr.DataArray:
    coords = {"layer": range(values.shape[0]), "head": range(values.shape[1])}
    return xr.DataArray(numbers(values), dims=("layer", "head", *dims), coords=coords)


def _chosen(choice: Choice) -> dict[str, xr.DataArray]:
    which = {"which": ["layer", "head"]}
    return {
        "heads": xr.DataArray(np.array(choice.heads), dims=("rank", "which"), coords=which),
        "vector": xr.DataArray(numbers(choice.vector), dims=("d_model",)),
        "search": choice.search,
    }
