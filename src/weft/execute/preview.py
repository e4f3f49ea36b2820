"""What an experiment would take, told without running it: no weight is read, so none need be there."""

from __future__ import annotations

from typing import Any

from weft.execute import loops
from weft.execute.needed import Uses
from weft.execute.packed import Packed
from weft.execute.planned import notes_of, plan_of, unplanned
from weft.ir.check import check
from weft.ir.limits import UNLIMITED
from weft.ir.nodes import Experiment, Write
from weft.plan.compiled import stages
from weft.plan.cost import Prices
from weft.plan.memory import DEFAULT
from weft.plan.show import told


def preview(loaded: Any, experiment: Experiment, plan: str = "auto") -> str:
    """Check an experiment and say what work running it would be, in lines of text. WeftError for what is not legal.

    That a model's class passes the trial that comes before its first planned run is taken for granted here.
    """
    checked = check(experiment, loaded.card, UNLIMITED) if loaded.kind == "decoder" else None
    lines = ["plan           not run: what running it would take"]
    if checked is not None:
        lines.append(f"runs           {len(checked.runs)}, {checked.layer_tokens:,} layer·tokens asked for")
    lines.append(f"edits          {sum(isinstance(node, Write) for node in experiment.nodes)} asked for")
    lines.append(f"model          {_weights(loaded)}")
    if loaded.missing:
        lines.append(f"missing        {loaded.missing}")
    reason = 'as asked for, by plan="reference"' if plan == "reference" else ""
    if loops.has_loop(experiment):
        return "\n".join([*lines, "planned        each step of the loop when its batch is there"])
    return "\n".join([*lines, *_planned(loaded, experiment, reason or unplanned(loaded, experiment))])


def _weights(loaded: Any) -> str:
    every = list(loaded.module.parameters())
    count, size = sum(each.numel() for each in every), sum(each.nbytes for each in every)
    return f"{count / 1e9:.4g} G parameters, {size / 1e9:.4g} GB of {loaded.card.dtype}"


def _planned(loaded: Any, experiment: Experiment, reason: str) -> tuple[str, ...]:
    by_site = loaded.card.by_site
    order = lambda _, site: found[0] if (found := by_site.get(site)) else None  # noqa: E731
    uses = Uses(experiment, None if reason else order)
    found = plan_of(loaded, experiment, uses, reason)
    if not found.forks:
        return notes_of(found.left)
    sizes, packed = loaded.card.sizes, Packed(loaded)
    made = stages(found.forks, sizes["n_layers"], DEFAULT.tokens)
    prices = Prices(tuple(packed.weights), tuple(packed.before_z), sizes["n_heads"] * sizes["d_head"])
    return (*told(made, prices), *notes_of(found.left))
