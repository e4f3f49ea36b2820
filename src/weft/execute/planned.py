"""The best way there is: what the engine can do it does, the rest is run as the reference runs it.

Both work on one dataflow, so values may flow between them; which run went where, and why, is told in the notes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch

from weft.execute import reference, sliced, straight
from weft.execute.arithmetic import Known
from weft.execute.collector import young_only
from weft.execute.engine import Engine
from weft.execute.needed import Uses
from weft.execute.reference import Interpreter, Progress, frozen
from weft.execute.straight import ALONE
from weft.execute.trial import distrust
from weft.execute.turns import take_turns
from weft.ir.nodes import Const, Experiment, Run
from weft.ir.outcome import Outcome
from weft.plan.compiled import stages
from weft.plan.cost import Prices, most_tokens
from weft.plan.forks import Asked, asked
from weft.plan.memory import COPIES, DEFAULT, Limits, bytes_per_token
from weft.plan.pieces import Plan
from weft.plan.share import worth_sharing
from weft.plan.show import operations, told


def run(
    loaded: Any,
    experiment: Experiment,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    memory: int | None = None,
    known: Known | None = None,
) -> Outcome:
    """Run an experiment in the least work that gives the same numbers as the reference, in `memory` bytes above the model
    (None: a share of what is free). `known` is told of saved values as they come, unless the rows are run in slices."""
    if straight.fits(loaded, experiment):
        return straight.run(loaded, experiment, cancelled)
    reason = unplanned(loaded, experiment) or distrust(loaded, _trusted, reference.run)

    def whole(part: Experiment, limits: Limits, tell: Progress, applied: set[int]) -> Outcome:
        told = known if part is experiment else None  # the values of a part are some rows, or nobody's
        return _run(loaded, part, reason, tell, cancelled, limits, applied, told)

    with young_only():
        return sliced.run(loaded, experiment, whole, memory, progress)


def _trusted(loaded: Any, experiment: Experiment) -> Outcome:
    return _run(loaded, experiment, "", None, None)


def _run(
    loaded: Any,
    experiment: Experiment,
    reason: str,
    progress: Progress | None,
    cancelled: Callable[[], bool] | None,
    limits: Limits = DEFAULT,
    applied: set[int] | None = None,
    known: Known | None = None,
) -> Outcome:
    started = time.perf_counter()
    if reason:
        order = None
    else:
        by_site = loaded.card.by_site
        order = lambda _, site: found[0] if (found := by_site.get(site)) else None  # noqa: E731
    uses = Uses(experiment, order)
    with frozen(loaded.module) if uses.with_grad else nullcontext():
        interpreter = Interpreter(loaded, experiment, uses, progress, cancelled)
        interpreter.lean = order is not None
        interpreter.flow.known = known
        found = plan_of(loaded, experiment, uses, reason)
        interpreter.flow.start()
        notes = _run_engine(loaded, experiment, uses, interpreter, found, limits) if found.forks else ()
        decoded, left = ((), found.left) if reason else take_turns(interpreter, found.left)
        if reason:
            interpreter.advance(list(found.left))
        if applied is not None:
            applied |= interpreter.applied
        kind = "planned" if found.forks or decoded else "reference"
        return interpreter.outcome(kind, time.perf_counter() - started, (*notes, *decoded, *notes_of(left)))


def unplanned(loaded: Any, experiment: Experiment | None = None) -> str:
    """Why no run of this experiment (None: of any) on this model can be planned; "" if they can."""
    if loaded.kind != "decoder":
        return "it is no decoder of tokens, so what an edit leaves as it was is not known"
    if loaded.plain and loaded.family is not None and loaded.family.o == "-":
        return "it has no keys and values, so nothing can be computed from them"
    if loaded.family is None:
        return "weft has no table for this model"
    if loaded.plain:
        return "it takes whole rows of tokens alone, so nothing can be computed from keys and values"
    config = loaded.module.config
    if config._attn_implementation not in ("sdpa", "eager"):
        return f"its attention is {config._attn_implementation}"
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    for each in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        if each.get("rope_type") in ("dynamic", "longrope"):
            until = int(each.get("original_max_position_embeddings") or config.max_position_embeddings)
            if (_longest(experiment) if experiment else config.max_position_embeddings) > until:
                return f"beyond {until} positions its rotary angles hang on a row's length, and rows share a pass"
    return ""


def _longest(experiment: Experiment) -> int:
    """The most positions that a row of any run may come to have."""
    longest = 0
    for node in experiment.nodes:
        if isinstance(node, Run):
            tokens = dict(node.inputs).get("tokens")
            constant = None if tokens is None else experiment.nodes[tokens.node]
            more = dict(node.options).get("max_new_tokens")
            if isinstance(constant, Const):
                longest = max(longest, constant.data.type.shape[-1] + (more if isinstance(more, int) else 0))
    return longest


def plan_of(loaded: Any, experiment: Experiment, uses: Uses, reason: str) -> Asked:
    """The runs that the engine would do, and why it would not do the others."""
    runs = uses.runs()
    if reason or (len(runs) == 1 and _one_row(experiment, runs[0])):
        return Asked((), dict.fromkeys(runs, reason or ALONE))
    found = asked(experiment.nodes, runs, uses, loaded.card)
    if len(found.forks) == len(runs) == 1 and not worth_sharing(found.forks[0].tokens):
        return Asked((), {runs[0]: ALONE})
    return found


def _one_row(experiment: Experiment, run: int) -> bool:
    node = experiment.nodes[run]
    constant = experiment.nodes[node.inputs[0][1].node] if isinstance(node, Run) else None
    return isinstance(constant, Const) and constant.data.type.shape[:1] == (1,)


def _run_engine(
    loaded: Any, experiment: Experiment, uses: Uses, interpreter: Interpreter, found: Asked, limits: Limits
) -> tuple[str, ...]:
    with torch.no_grad():
        made = stages(found.forks, loaded.card.sizes["n_layers"], limits.tokens)
        engine = Engine(loaded, experiment.nodes, uses, interpreter.flow, made[-1].plan, interpreter.cancelled, limits)
        for done, passes in engine.passes():
            interpreter.progress(done / (passes + len(found.left)), f"pass {done} of {passes}")
    interpreter.applied |= engine.applied
    interpreter.without_effect |= engine.without_effect
    work = interpreter.work
    work["runs"] += len(found.forks)
    work["passes"] += engine.work.passes
    work["rows"] += engine.work.rows
    work["layer_tokens_asked"] += engine.work.asked
    work["layer_tokens_done"] += engine.work.done
    work["flops"] = engine.work.flops + engine.work.logits
    sizes = loaded.card.sizes
    prices = Prices(tuple(engine.packed.weights), tuple(engine.packed.before_z), sizes["n_heads"] * sizes["d_head"])
    logits = f"  logits       {operations(engine.work.logits)}" if engine.work.logits else "  logits       none"
    return (*told(made, prices), logits, _memory(loaded, made[-1].plan, engine, limits))


def _memory(loaded: Any, plan: Plan, engine: Engine, limits: Limits) -> str:
    """Where the memory goes above the model: what the bases keep, and an estimate of the largest pass."""
    kept = sum(x.nbytes for store in engine.stores for each in (store.keys, store.values) for x in each.values())
    sites = sum(value.nbytes for value in engine.saved.values())
    itemsize, sizes = engine.packed.unembed.weight.itemsize, loaded.card.sizes
    logits = min(limits.logits * sizes["d_vocab"], engine.work.logits // (2 * sizes["d_model"])) * itemsize
    parts = {
        "keys and values": kept,
        "sites kept": sites,
        "a pass": most_tokens(plan) * bytes_per_token(loaded.card),
        "logits": COPIES * logits,
    }
    told = ", ".join(f"{name} {size / 1e6:,.1f}" for name, size in parts.items() if size)
    return f"  memory       about {sum(parts.values()) / 1e6:,.1f} MB above the model: {told}"


def notes_of(left: Mapping[int, str]) -> tuple[str, ...]:
    """Why the runs that the reference does are not planned, equal reasons once."""
    reasons = Counter(left.values())
    return tuple(f"as reference   {count} run{'s' * (count > 1)}: {reason}" for reason, count in reasons.items())
