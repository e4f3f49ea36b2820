"""Filter heads: where a model keeps "is a fruit" while it looks for the word of a list that is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

import weft
from weft import tasks as all_tasks
from weft.methods.filtering.bench import Bench
from weft.methods.filtering.mask import Training
from weft.methods.filtering.pairs import mode_of, right_pairs
from weft.methods.filtering.patch import Head
from weft.methods.filtering.predicate import Predicate, mean
from weft.methods.filtering.sheet import Place
from weft.methods.filtering.stages import PARTS, parts_of, run_parts
from weft.methods.filtering.state import State
from weft.methods.places import heads_given
from weft.methods.result import Result


@dataclass(frozen=True, kw_only=True)
class FilterHeads(Result):
    """What `filter_heads` found. `heads` are those the mask kept (or those given); arrays say in their axes what they are of.

    "causality", "delta" [layer, head]: every head's query patched alone. "mask", "attention" [layer, head]: the other two
    ways to find them. "sets" [set, measure]: the three found sets and random heads, on pairs that none was found on.
    "same_answer" [set], "necessity" [set, measure], "looks" [when, item], "rank" [head], "predicates" [category, head,
    place, direction], "union" [query, measure], "transfer" [from, to], "residual_swap" [format, layer], "format"
    [format, measure], "probe" [head, measure]. `scored` is "first_token" or "answer". `left_out` has the reason for each
    part that could not be had.
    """

    method: str = "filter_heads"
    heads: tuple[Head, ...] = ()
    at: tuple[Place, ...] = (-1,)
    scored: str = "first_token"
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "heads", tuple((int(layer), int(head)) for layer, head in self.heads))
        object.__setattr__(self, "at", tuple(self.at))

    def predicate(self, category: str) -> Predicate:
        """The predicate of a category: the kept heads' mean queries over prompts that ask for it."""
        if "predicates" not in self.arrays:
            raise KeyError(f"no predicates were read out: {self.left_out.get('predicates', self.stopped)}")
        known = self["predicates"].coords["category"].values.tolist()
        if category not in known:
            raise KeyError(f"no predicate {category!r}; there are {', '.join(known)}")
        vectors = torch.tensor(self["predicates"].sel(category=category).values)
        return Predicate(category, self.heads, vectors, self.at, self.scored)

    def combine(self, *categories: str, centred: bool = False) -> Predicate:
        """The union of categories: the sum of their predicates; `centred` counts what all categories share but once."""
        first, *others = [self.predicate(category) for category in categories]
        known = self["predicates"].coords["category"].values.tolist()
        return first.combine(*others, centre=mean([self.predicate(name) for name in known]) if centred else None)

    def apply(self, model: Any, prompts: Any, predicate: str | Predicate) -> tuple[str, ...]:
        """The option that the model chooses in each of a task's prompts with this predicate (or category) put in."""
        given = self.predicate(predicate) if isinstance(predicate, str) else predicate
        return given.apply(model, prompts)


def filter_heads(
    model: Any,
    task: Any,
    *,
    heads: Sequence[Head] | None = None,
    pairs: int = 128,
    train_pairs: int = 512,
    epochs: int = 10,
    batch_size: int = 16,
    penalty: float = 2e-2,
    keep: float = 0.5,
    at: Sequence[Place] = (-1,),
    evaluate_at: Sequence[Place] = (-1, -2, "question_mark"),
    score: str = "auto",
    only_right: bool = True,
    random_sets: int = 5,
    tasks: Mapping[str, Any] | None = None,
    parts: Iterable[str] = PARTS,
    seed: int = 0,
    progress: bool = True,
) -> FilterHeads:
    """Which heads hold the predicate in their queries, how far it carries, and what else could have explained it.

        found = weft.methods.filter_heads(model, weft.tasks.SelectOne())
        found.heads, found["sets"], found.plot("mask")
        fruit = found.predicate("fruit"); found.apply(model, batch, fruit.combine(found.predicate("tool")))
        filter_heads(model, {"fruit": ["apple", …], "tool": ["saw", …], …})     # categories of your own

    Sen Sharma et al., "LLMs process lists with general filter heads" (arXiv 2510.26784). `task`: a `SelectOne` (or
    `SelectFirst`, `SelectLast`) of weft.tasks, or categories. A pair is two lists and two categories; kept are pairs that
    the model gets right on both and on the counterfactual's question about the prompt's list.

    Queries (before rotary) are carried from the counterfactual to the prompt: q[l, h, t] ← q_src[l, h, t] at `at`.
    causality = share of pairs in which the option that the counterfactual's question would pick scores highest among the
    options; delta = mean rise of its score. The mask m[layer, head] is learned on `train_pairs` (q ← q + m(q_src − q), loss
    −score[target] + mean score[others] + λ‖m‖₁, λ = `penalty` · 5120 / (layers · heads)), and m > `keep` are the heads. All
    sets are then measured on `pairs` others, at `evaluate_at`, with queries averaged over copies of the source with its
    answer in every position. Places are counted from the prompt's end, or are roles of the task. `score`: "first_token"
    (pairs in whose lists two words begin alike are not used), "answer" (whole answers), or "auto", which takes the first
    where it can; the result's `scored` says which. `heads`: test these (layer, head) and learn no mask. `only_right=False`
    keeps pairs that the model gets wrong too: a control on a model that cannot do the task, not the paper's method.

    Controls, on by default: as many random heads (`random_sets` draws); the same-answer control (a source that asks the
    prompt's own question of another list must change nothing); knock-out of attention against that of random heads; the
    sum of two predicates against one; random directions of equal rank; question-first lists, in which items may be flagged
    as they are read and no query matters. `tasks`: those of the transfer matrix by name; the task and its kin by default.
    `parts` names what to do, of `weft.methods.filtering.stages.PARTS`. Ctrl-C ends it and keeps what there is.

    It misleads where a backup head acts once these are knocked out (no loss of accuracy, yet they carry the predicate);
    where the task is done by flags on items (causality 0: look at "residual_swap"); where `train_pairs` are so few that the
    mask learns their words; and where λ, rescaled, outweighs a mechanism spread over many heads: then "mask" is empty
    though "causality" of "single" or "attention" is not; give a smaller `penalty`.
    """
    task, chosen = _task(task), parts_of(parts)
    if model.tokens is None:
        raise weft.errors.TokenError(
            "filter_heads asks in words and this model has no tokenizer; give one to weft.load"
        )
    given = [] if heads is None else sorted(heads_given(model, heads))
    chosen = [part for part in chosen if part != "mask" or not given]
    bench = Bench(model, progress, only_right)
    mode = mode_of(bench, task, seed, score)
    learns = not {"mask", "subspace"}.isdisjoint(chosen)
    train = right_pairs(bench, task, train_pairs if learns else pairs, seed, mode)
    held = right_pairs(bench, task, pairs, seed + 1, mode)
    kin = _kin(task) if tasks is None else dict(tasks)
    how = Training(epochs, batch_size, penalty)
    state = State(
        bench, task, mode, train, held, tuple(at), tuple(evaluate_at), how, keep, random_sets, kin, pairs, seed,
        heads=given, called="given" if given else "mask",
    )  # fmt: skip
    run_parts(state, chosen)
    if not state.arrays:
        reasons = "; ".join(f"{part}: {reason}" for part, reason in state.left_out.items())
        raise weft.errors.ProgramError(f"none of the parts asked for could be had: {reasons}")
    return FilterHeads(
        model=model.card.name, mediator="attention heads (their queries)",
        search="heads given" if given else "learned mask (DCM); beside it each head alone, and attention to the answer",
        intervention=f"query patching at {', '.join(map(str, at))}, from a counterfactual to the prompt",
        metric=f"causality = 1[argmax over options = target]; delta = rise of the target's {_unit(mode)}",
        control="as many random heads; a source with the same answer; question-first lists",
        seeds=(seed, seed + 1), stopped=bench.stopped, arrays=state.arrays, records=tuple(bench.records),
        heads=tuple(state.heads), at=tuple(at), scored=mode, left_out=state.left_out,
        settings={
            "task": task.name, "pairs": len(held), "train_pairs": len(train), "drawn": train.drawn, "epochs": epochs,
            "batch_size": batch_size, "penalty": penalty, "keep": keep, "evaluate_at": list(evaluate_at),
            "random_sets": random_sets, "only_right": only_right,
            "question_first": task.question_first, "distractors": task.distractors,
        },
    )  # fmt: skip


def _unit(mode: str) -> str:
    return "first token's logit" if mode == "first_token" else "log-probability, all its tokens"


def _task(task: Any) -> Any:
    if isinstance(task, Mapping):
        task = all_tasks.SelectOne(categories=task, distractors=min(4, len(task) - 1))
    if not hasattr(task, "copies") or "index" not in task.causal_model.variables:
        raise weft.errors.ProgramError(
            f"filter heads are found on a task whose answer is a word of its list, not on {getattr(task, 'name', task)!r}: "
            "filter_heads(model, weft.tasks.SelectOne()), or categories {name: [words]}; other tasks belong into tasks={…}"
        )
    return task


def _kin(task: Any) -> dict[str, Any]:
    """The task, the same with the question first (or last), and the others about the same categories."""
    turned = f"{task.name}, {'list' if task.question_first else 'question'} first"
    found = {task.name: task, turned: replace(task, question_first=not task.question_first)}
    for kind in (all_tasks.SelectOne, all_tasks.SelectFirst, all_tasks.SelectLast, all_tasks.Count, all_tasks.Exists):
        if kind.name not in found:
            found[kind.name] = kind(distractors=task.distractors, categories=task.categories, split=task.split)
    return found
