"""Training through a model: `model.fit(loss, params, data, steps=…)`, one experiment wherever the model is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from weft.errors import GradientError, ProgramError, SessionError, ShapeError, WeftError
from weft.ir.check import check_name
from weft.ir.loops import OPTIMISERS, check_options, state_names
from weft.ir.nodes import Const, Experiment, Loop, Node, Ref, Save
from weft.ir.types import TensorType
from weft.trace.constants import TensorConstant, type_of
from weft.trace.factories import paused
from weft.trace.fitbody import BodySession
from weft.trace.fitdata import Table, table
from weft.trace.fitted import Fit, Watcher
from weft.trace.location import Lines, where
from weft.trace.project import projection
from weft.trace.tensor import Traced

if TYPE_CHECKING:
    from weft.trace.model import Model


def fit(
    model: Model,
    loss: Callable[[Any, Any], Any],
    params: Any,
    data: Any = None,
    *,
    steps: int,
    lr: Any,
    optimizer: Any = "adam",
    batch_size: int | None = None,
    shuffle: bool = False,
    seed: int = 0,
    project: Any = None,
    on_metrics: Callable[[dict[str, float]], None] | None = None,
    checkpoint: str | Path | None = None,
    resume: Any = None,
    plan: str = "auto",
    fresh: bool = False,
    **options: Any,
) -> Fit:
    """See `Model.fit`."""
    if model.sessions:
        raise SessionError("fit is an experiment of its own: call it outside of any session's block", where=where())
    learned = parameters(params)
    start = None if resume is None else Fit.of(model, resume)
    first = 0 if start is None else start.steps
    if first >= steps:
        raise ProgramError(
            f"what is resumed has done {first} steps already; steps={steps} asks for no more: give the number in all",
            where=where(),
        )
    chosen = _options(optimizer, lr, list(learned), options)
    rows = table(model, data, steps, batch_size, shuffle, seed)
    if start is not None:
        start.check_fits(learned)
    body, results, metrics, lines = _body(model, loss, learned, rows)
    after, projected = projection(model, learned, project)
    program = _Program()
    values = learned if start is None else start.params
    loop = Loop(
        body=body,
        results=results,
        after=after,
        projected=projected,
        carried=tuple(program.constant(value) for value in values.values()),
        state=() if start is None else tuple(program.constant(each) for each in start.state),
        tables=tuple(program.constant(column) for column in rows.columns.values()),
        order=() if rows.order is None else (program.constant(rows.order),),
        start=first,
        steps=steps,
        options=chosen,
    )
    _check(loop, learned)
    experiment = program.finish(loop, list(learned))
    watcher = Watcher(metrics, steps, on_metrics, None if checkpoint is None else Path(checkpoint))
    return _run(model, experiment, learned, watcher, lines, plan, fresh, start)


def parameters(params: Any) -> dict[str, torch.Tensor]:
    """The tensors to be learned, by name: those given, and the parameters of modules given that require grad."""
    found: dict[str, torch.Tensor] = {}
    if isinstance(params, Mapping):
        given = {str(name): value for name, value in params.items()}
    elif isinstance(params, torch.Tensor):
        given = {"param": params}
    elif isinstance(params, torch.nn.Module):
        given = {"": params}
    else:
        given = {str(index): value for index, value in enumerate(params)}
    for name, value in given.items():
        if isinstance(value, torch.nn.Module):
            inner = {n: p for n, p in value.named_parameters(prefix=name) if p.requires_grad}
            found.update({n.lstrip("."): p for n, p in inner.items()})
        else:
            found[name] = value
    _check_parameters(found)
    return found


def _check_parameters(found: dict[str, torch.Tensor]) -> None:
    if not found:
        raise ProgramError(
            "fit has nothing to learn: give a tensor, a module, or a dict or list of them", where=where()
        )
    for name, value in found.items():
        check_name(name)
        if name.startswith("_"):
            raise ProgramError(f"the name of a parameter does not begin with _: {name!r}", where=where())
        if not isinstance(value, torch.Tensor) or isinstance(value, Traced):
            raise ProgramError(f"{name} is a {type(value).__name__}; fit learns tensors and modules", where=where())
        if not value.dtype.is_floating_point:
            raise ProgramError(f"{name} is {value.dtype}: only floating-point numbers can be learned", where=where())
        if not value.is_leaf:
            raise GradientError(
                f"{name} was computed from other tensors; give those to fit, and compute {name} inside the loss",
                where=where(),
            )
    if len({id(value) for value in found.values()}) < len(found):
        raise ProgramError("the same tensor is among the parameters twice", where=where())


def _options(optimizer: Any, lr: Any, names: list[str], given: dict[str, Any]) -> tuple[tuple[str, object], ...]:
    name = getattr(optimizer, "__name__", optimizer)
    if not isinstance(name, str) or name.lower() not in OPTIMISERS:
        raise ProgramError(
            f"the optimizer is one of {', '.join(OPTIMISERS)} (or torch.optim's class of it), not {optimizer!r}; its "
            "options are given to fit: model.fit(…, optimizer='adamw', weight_decay=0.01)",
            where=where(),
        )
    if isinstance(lr, Mapping):
        missing = sorted({str(each) for each in lr} ^ set(names))
        if missing:
            raise ProgramError(
                f"lr by name needs exactly {', '.join(names)}; it differs in {missing[0]}", where=where()
            )
        lr = tuple(lr[name] for name in names)
    clean = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    return tuple(sorted({"optimiser": name.lower(), "lr": lr, **clean}.items()))


def _body(
    model: Model, loss: Callable[[Any, Any], Any], learned: dict[str, torch.Tensor], rows: Table
) -> tuple[tuple[Node, ...], tuple[Ref, ...], list[str], Lines]:
    """The traced loss: its nodes, the loss and the metrics, and the metrics' names."""
    session = BodySession(model, list(learned.values()), fixed=True)
    size = 0 if rows.order is None else rows.order.shape[1]

    def write() -> tuple[tuple[Ref, ...], list[str]]:
        named = {
            name: session.batch(index, TensorType(type_of(column).dtype, (size, *column.shape[1:])))
            for index, (name, column) in enumerate(rows.columns.items())
        }
        for name, start in rows.starts.items():
            session.prompts(named[name], named.pop(start), rows.columns[start].max().repeat(size))
        return _returned(loss(session, rows.shape(named)), session)

    results, names = session.trace(write)
    nodes = session.close()
    reached = session.graph.ancestors([results[0]], session.graph.stops)
    for name, slot in zip(learned, session.carried, strict=True):
        assert slot._st.ref is not None
        if slot._st.ref.node not in reached:
            raise GradientError(
                f"the loss does not depend on {name}, so it would not be learned; use it inside the loss, or leave it out "
                "of params (what is computed from a parameter must be computed inside the loss)",
                where=where(),
            )
        session.graph.check_nograd(results[0], [slot._st.ref])
    return nodes, results, names, session.lines


def _returned(found: Any, session: BodySession) -> tuple[tuple[Ref, ...], list[str]]:
    value, metrics = found if isinstance(found, tuple) and len(found) == 2 else (found, {})
    if not isinstance(value, Traced) or value._st.graph is not session.graph:
        raise ProgramError(
            f"a loss returns a value of its session (or it and a dict of metrics), not {type(value).__name__}",
            where=where(),
        )
    if not isinstance(metrics, Mapping):
        raise ProgramError("what a loss returns besides its value is a dict of metrics, by name", where=where())
    named = {"loss": value, **{str(name): each for name, each in metrics.items()}}
    for name, each in named.items():
        if not isinstance(each, Traced) or each.numel() != 1:
            shown = each.tensor_type if isinstance(each, Traced) else type(each).__name__
            raise ShapeError(f"{name} must be one number, not {shown}; sum or average it", where=where())
    if not value.dtype.is_floating_point:
        raise GradientError(f"the loss is {value.dtype}; a gradient is taken of a floating-point number", where=where())
    return tuple(each.ref for each in named.values()), list(named)


def _check(loop: Loop, learned: dict[str, torch.Tensor]) -> None:
    try:
        check_options(loop)
    except WeftError as error:
        raise error.at(where()) from None
    if loop.state and len(loop.state) != len(learned) * len(state_names(loop.options)) + 1:
        raise ProgramError("the optimizer is not the one that what is resumed was learned with", where=where())


class _Program:
    """The nodes around a loop."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def constant(self, tensor: torch.Tensor) -> Ref:
        # A copy: training changes these very tensors when it ends, and the experiment must stay what it was.
        self.nodes.append(Const(TensorConstant(tensor.detach().clone())))
        return Ref(len(self.nodes) - 1)

    def finish(self, loop: Loop, names: list[str]) -> Experiment:
        """The experiment: every output of the loop is saved, so that it can be gone on with."""
        self.nodes.append(loop)
        at = len(self.nodes) - 1
        state = [f"_state.{n}" for n in range(len(names) * len(state_names(loop.options)))]
        for out, name in enumerate([*names, *state, "_watch", "_history", "_done"]):
            self.nodes.append(Save(name, Ref(at, out)))
        line = where()
        return Experiment(tuple(self.nodes), tuple(line for _ in self.nodes))


def _run(
    model: Model,
    experiment: Experiment,
    learned: dict[str, torch.Tensor],
    watcher: Watcher,
    lines: Lines,
    plan: str,
    fresh: bool,
    start: Fit | None,
) -> Fit:
    try:
        with paused():
            experiment, outcome = model.backend.fit(experiment, plan=plan, fresh=fresh, watch=watcher)
    except WeftError as error:
        raise _placed(error, lines) from None
    result = Fit.made(model, experiment, outcome, list(learned), watcher.names, start)
    result.give_back(learned)
    watcher.finish(result)
    if outcome.stopped is not None:
        result.ended(_placed(outcome.stopped, lines))
    return result


def _placed(error: WeftError, lines: Lines) -> WeftError:
    """The error, pointing at the user's line inside the loss where it is known."""
    body = error.details.get("body")
    if isinstance(body, int) and 0 <= body < len(lines):
        error.where = lines[body] or error.where
    return error


__all__ = ["fit", "parameters"]
