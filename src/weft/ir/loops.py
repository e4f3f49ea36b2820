"""Training as data: what a loop's options may be, what it gives, and whether it is legal.

    options of Loop ::= optimiser, lr and that optimiser's own; schedule, warmup, gamma; clip_norm, clip_value;
                        every (steps between two rows of the history); below, patience, min_delta (when to end early)

The outputs of a loop, in order: the carried values; the optimiser's state, by carried value and then by name; the
watch, float64 [2] (the least loss seen, steps since); the history, float64 [rows, 1 + results] (step, loss, metrics;
NaN where the loop ended before); and int64 [] the number of steps done, the earlier ones included.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from weft.errors import BoundsError, DtypeError, GradientError, LimitError, ProgramError, ShapeError
from weft.ir.limits import Limits, hold
from weft.ir.nodes import Const, ConstantData, Grad, Keep, Loop, Node, Op, Param, Ref, Save, Slot, Update
from weft.ir.types import TensorType

WATCH = TensorType("float64", (2,))
HISTORY_ROWS = 1 << 20


class Inside(NamedTuple):
    """What checking a loop's body found: the types of its nodes, its work a step."""

    types: tuple[tuple[TensorType, ...], ...]
    flops: int
    layer_tokens: int


@dataclass(frozen=True)
class Given:
    """What a slot stands for: a type, and the data that holds whatever may come (a whole table)."""

    type: TensorType
    data: ConstantData | None = None

    def tobytes(self) -> bytes:
        if self.data is None:
            raise ProgramError("what is carried from step to step has no numbers before the loop runs")
        return self.data.tobytes()

    def digest(self) -> str:
        return "" if self.data is None else self.data.digest()


class Sizes(NamedTuple):
    """The whole of a loop's outputs by part."""

    carried: tuple[TensorType, ...]
    state: tuple[TensorType, ...]
    history: TensorType
    done: TensorType

    @property
    def types(self) -> tuple[TensorType, ...]:
        return (*self.carried, *self.state, WATCH, self.history, self.done)


def outputs(loop: Loop, carried: tuple[TensorType, ...]) -> Sizes:
    """What the loop gives, its carried values being of these types."""
    state = tuple(kind for kind in carried for _ in state_names(loop.options))
    history = TensorType("float64", (recorded(loop.start, loop.steps, every(loop)), 1 + len(loop.results)))
    return Sizes(carried, state, history, TensorType("int64", ()))


def every(loop: Loop) -> int:
    """The number of steps between two rows of the history."""
    return int(cast("int", dict(loop.options).get("every", 1)))


def recorded(start: int, steps: int, each: int) -> int:
    """How many rows the history has: every step divisible by `each`, and the last one."""
    if steps <= start:
        return 0
    rows = (steps - 1) // each - (start - 1) // each
    return rows + ((steps - 1) % each != 0)


def state_names(options: tuple[tuple[str, object], ...]) -> tuple[str, ...]:
    """The tensors that the optimiser keeps for each carried value, as torch names them."""
    given = dict(options)
    if given["optimiser"] == "sgd":
        return ("momentum_buffer",) if given.get("momentum") else ()
    return ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if given.get("amsgrad") else ()))


def check_loop(
    loop: Loop,
    type_of: Callable[[Ref], TensorType],
    data_of: Callable[[Ref], ConstantData],
    inside: Callable[[tuple[Node, ...], Mapping[tuple[str, int], Given]], Inside],
    limits: Limits,
) -> tuple[Sizes, Inside]:
    """The loop's outputs and its work a step; the error of the first thing about it that is not legal."""
    check_options(loop)
    carried = _carried(loop, type_of)
    hold(limits, "loop_steps", loop.steps)
    found = outputs(loop, carried)
    if found.history.shape[0] > HISTORY_ROWS:
        raise LimitError(f"a history of {found.history.shape[0]:,} rows; record fewer steps, at most {HISTORY_ROWS:,}")
    _state(loop, found, type_of)
    slots = {("carried", number): Given(kind) for number, kind in enumerate(carried)}
    body = _body(loop, inside, {**slots, **_tables(loop, data_of)})
    _after(loop, carried, inside, slots)
    return found, body


def check_options(loop: Loop) -> None:
    """ProgramError for an option of another name, kind or range."""
    given = dict(loop.options)
    if len(given) != len(loop.options):
        raise ProgramError("an option of the loop is given twice")
    optimiser = given.get("optimiser")
    if optimiser not in OPTIMISERS:
        raise ProgramError(f"the optimiser must be one of {', '.join(OPTIMISERS)}, not {str(optimiser)[:40]!r}")
    legal = {"optimiser", *OPTIMISERS[cast("str", optimiser)], *_SHARED}
    for name, value in given.items():
        if name not in legal:
            raise ProgramError(f"{optimiser} has no option {name[:40]!r}; it has {', '.join(sorted(legal))}")
        fits, expected = OPTIONS[name]
        if not fits(value):
            raise ProgramError(f"the option {name} must be {expected}, not {repr(value)[:60]}")
    lr = given.get("lr")
    if lr is None:
        raise ProgramError("a loop needs a learning rate, lr")
    if isinstance(lr, tuple) and len(cast("tuple[object, ...]", lr)) != len(loop.carried):
        raise ProgramError(f"lr must be one number, or one for each of the {len(loop.carried)} carried values")
    if given.get("nesterov") and (not given.get("momentum") or given.get("dampening")):
        raise ProgramError("nesterov needs a momentum, and no dampening")
    if ("gamma" in given) != (given.get("schedule") == "exponential"):
        raise ProgramError(
            "gamma is what the schedule exponential multiplies by at each step: it needs both or neither"
        )
    if "min_delta" in given and "patience" not in given:
        raise ProgramError("min_delta says what counts as better to patience; give patience too")
    if loop.steps < 1 or not 0 <= loop.start < loop.steps:
        raise ProgramError(f"a loop from step {loop.start} to {loop.steps} has no step; steps begin below their end")


def _carried(loop: Loop, type_of: Callable[[Ref], TensorType]) -> tuple[TensorType, ...]:
    if not loop.carried:
        raise ProgramError("a loop must carry at least one value; there is nothing to learn")
    kinds = tuple(type_of(ref) for ref in loop.carried)
    for number, kind in enumerate(kinds):
        if kind.category != "float":
            raise DtypeError(f"carried value {number}, {kind}, is not floating point and cannot be trained")
    return kinds


def _state(loop: Loop, found: Sizes, type_of: Callable[[Ref], TensorType]) -> None:
    """The optimiser's state is there exactly where the loop goes on with an earlier one."""
    expected = (*found.state, WATCH) if loop.start else ()
    given = tuple(type_of(ref) for ref in loop.state)
    if given != expected:
        shown = ", ".join(map(str, expected)) or "none"
        raise ProgramError(
            f"a loop that begins at step {loop.start} takes as state {shown}; given {len(given)} tensors"
        )


def _tables(loop: Loop, data_of: Callable[[Ref], ConstantData]) -> dict[tuple[str, int], Given]:
    if not loop.tables:
        if loop.order:
            raise ProgramError("the loop has an order of rows, but no table to take rows of")
        return {}
    if len(loop.order) != 1:
        raise ProgramError("a loop with tables needs one order: which rows each step has, int64 [batches, rows]")
    tables, order = [data_of(ref) for ref in loop.tables], data_of(loop.order[0])
    for number, table in enumerate(tables):
        if not table.type.shape or table.type.shape[0] != tables[0].type.shape[0]:
            raise ShapeError(f"table {number} is {table.type}; every table needs the same number of rows, as table 0 "
                             f"({tables[0].type}) has")  # fmt: skip
    if order.type.dtype != "int64" or len(order.type.shape) != 2 or 0 in order.type.shape:
        raise ShapeError(f"the order of rows must be int64[batches, rows], not {order.type}")
    numbers, rows = array("q", order.tobytes()), tables[0].type.shape[0]
    if min(numbers) < 0 or max(numbers) >= rows:
        raise BoundsError(
            f"the order names row {max(max(numbers), -min(numbers))}; the tables have rows 0 to {rows - 1}"
        )
    size = order.type.shape[1]
    return {
        ("batch", number): Given(TensorType(table.type.dtype, (size, *table.type.shape[1:])), table)
        for number, table in enumerate(tables)
    }


def _body(
    loop: Loop, inside: Callable[..., Inside], slots: Mapping[tuple[str, int], Given]
) -> Inside:  # fmt: skip
    places = {
        node.index: Ref(at) for at, node in enumerate(loop.body) if isinstance(node, Slot) and node.kind == "carried"
    }
    for number in range(len(loop.carried)):
        if number not in places:
            raise GradientError(f"the loss does not depend on carried value {number}, so it cannot be trained")
    for at, node in enumerate(loop.body):
        if isinstance(node, Save | Keep | Loop):
            raise ProgramError(
                f"node {at} of the loop's body is a {type(node).__name__.lower()}, which has no place there"
            )
    if not loop.results or not 0 <= loop.results[0].node < len(loop.body):
        raise ProgramError("a loop's body must give a loss, one of its nodes")
    wrt = tuple(places[number] for number in range(len(loop.carried)))
    found = inside((*loop.body, Grad(loop.results[0], wrt)), slots)
    for number, ref in enumerate(loop.results):
        kind = _type(found, ref, len(loop.body))
        if kind.numel != 1 or (number == 0 and kind.category != "float"):
            raise ShapeError(f"result {number} of a loop's body must be one number, not {kind}; sum or average it")
    return found


def _after(
    loop: Loop,
    carried: tuple[TensorType, ...],
    inside: Callable[..., Inside],
    slots: Mapping[tuple[str, int], Given],
) -> None:
    for at, node in enumerate(loop.after):
        if not isinstance(node, Slot | Op | Update | Const | Param):
            raise ProgramError(
                f"node {at} of the projection is a {type(node).__name__.lower()}; it is arithmetic alone"
            )
    found = inside(loop.after, slots)
    kinds = tuple(_type(found, ref, len(loop.after)) for ref in loop.projected)
    if kinds and kinds != carried:
        shown = ", ".join(map(str, carried))
        raise ShapeError(f"the projection must give {shown}, as it is carried, not {', '.join(map(str, kinds))}")


def _type(found: Inside, ref: Ref, count: int) -> TensorType:
    if not 0 <= ref.node < count or not 0 <= ref.out < len(found.types[ref.node]):
        raise ProgramError(f"%{ref.node}.{ref.out} is no value inside the loop")
    return found.types[ref.node][ref.out]


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _at_least(least: float) -> Callable[[Any], bool]:
    return lambda value: _number(value) and value >= least


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and value >= least


def _betas(value: Any) -> bool:
    items = cast("tuple[Any, ...]", value) if type(value) is tuple else ()
    return len(items) == 2 and all(_number(each) and 0 <= each < 1 for each in items)


def _rates(value: Any) -> bool:
    items = cast("tuple[Any, ...]", value if type(value) is tuple and value else (value,))
    return all(_number(each) and each >= 0 for each in items)


_ADAM = ("lr", "betas", "eps", "weight_decay", "amsgrad")
OPTIMISERS: dict[str, tuple[str, ...]] = {
    "sgd": ("lr", "momentum", "dampening", "weight_decay", "nesterov"),
    "adam": _ADAM,
    "adamw": _ADAM,
}
SCHEDULES = ("constant", "linear", "cosine", "exponential")
_SHARED = (
    "schedule", "warmup", "gamma", "horizon", "clip_norm", "clip_value", "every", "below", "patience", "min_delta",
)  # fmt: skip
OPTIONS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "optimiser": (lambda v: v in OPTIMISERS, f"one of {', '.join(OPTIMISERS)}"),
    "lr": (_rates, "a number of at least 0, or one for each carried value"),
    "momentum": (_at_least(0), "a number of at least 0"),
    "dampening": (_number, "a number"),
    "weight_decay": (_at_least(0), "a number of at least 0"),
    "nesterov": (lambda v: type(v) is bool, "true or false"),
    "betas": (_betas, "two numbers from 0 to below 1"),
    "eps": (_at_least(0), "a number of at least 0"),
    "amsgrad": (lambda v: type(v) is bool, "true or false"),
    "schedule": (lambda v: v in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
    "warmup": (_whole(0), "a whole number of steps"),
    "gamma": (lambda v: _number(v) and 0 < v <= 1, "above 0 and at most 1"),
    "horizon": (_whole(1), "a whole number of steps"),
    "clip_norm": (lambda v: _number(v) and v > 0, "a number above 0"),
    "clip_value": (lambda v: _number(v) and v > 0, "a number above 0"),
    "every": (_whole(1), "a whole number of at least 1"),
    "below": (_number, "a number"),
    "patience": (_whole(1), "a whole number of at least 1"),
    "min_delta": (_at_least(0), "a number of at least 0"),
}
