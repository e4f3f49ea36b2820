"""What a loop may be: one legal program, and each thing that makes it illegal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fakes import fake_card, ints
from golden.programs import training
from weft.errors import BoundsError, DtypeError, GradientError, LimitError, ProgramError, ShapeError, WeftError
from weft.ir.check import Checked, check
from weft.ir.limits import DEFAULT
from weft.ir.loops import recorded
from weft.ir.nodes import Const, Experiment, Keep, Loop, Node, Op, Ref, Save, Slot

LOOP = 4
"""Its number in `training`."""


def checked(nodes: tuple[Node, ...] | None = None, at: int = LOOP, node: Node | None = None, **changes: Any) -> Checked:
    """Check `training` with the loop changed, or node `at` replaced."""
    found = list(nodes or training().nodes)
    loop = found[LOOP]
    assert isinstance(loop, Loop)
    found[at] = node or replace(loop, **changes)
    return check(Experiment(tuple(found)), fake_card())


def options(**changes: object) -> tuple[tuple[str, object], ...]:
    return tuple(sorted({"optimiser": "adam", "lr": 0.05, **changes}.items()))


def body(at: int, node: Node) -> tuple[Node, ...]:
    loop = training().nodes[LOOP]
    assert isinstance(loop, Loop)
    return (*loop.body[:at], node, *loop.body[at + 1 :])


def test_its_work_is_that_of_all_its_steps() -> None:
    assert checked().layer_tokens == 100 * 2 * 2 * 3  # steps × layers × rows × positions


def test_its_outputs_are_what_is_carried_the_optimisers_state_and_the_history() -> None:
    shown = [str(kind) for kind in checked(options=options(optimiser="sgd", momentum=0.9, every=30)).types[LOOP]]
    assert shown == [
        "float32[12, 2]",
        "float32[12, 2]",
        "float64[2]",
        "float64[5, 3]",
        "int64[]",
    ]  # rows 0, 30, 60, 90 and 99


@pytest.mark.parametrize(
    ("start", "steps", "every", "rows"), [(0, 1, 1, 1), (0, 10, 3, 4), (4, 10, 3, 2), (9, 11, 5, 1)]
)
def test_history_has_each_step_divisible_and_the_last(start: int, steps: int, every: int, rows: int) -> None:
    assert recorded(start, steps, every) == rows
    assert rows == len({step for step in range(start, steps) if step % every == 0 or step == steps - 1})


ILLEGAL: dict[str, tuple[dict[str, Any], type[WeftError], str]] = {
    "no steps": ({"steps": 0}, ProgramError, "has no step"),
    "too many steps": ({"steps": 10**7}, LimitError, "steps of one training loop"),
    "an unknown optimiser": ({"options": options(optimiser="lion")}, ProgramError, "one of sgd, adam, adamw"),
    "another's option": ({"options": options(momentum=0.9)}, ProgramError, "adam has no option 'momentum'"),
    "an option out of range": ({"options": options(betas=(0.9, 1.0))}, ProgramError, "betas must be two numbers"),
    "too few rates": ({"options": options(lr=(0.1, 0.2))}, ProgramError, "one for each of the 1 carried"),
    "no rate": ({"options": (("optimiser", "sgd"),)}, ProgramError, "needs a learning rate"),
    "gamma for nothing": ({"options": options(gamma=0.9)}, ProgramError, "both or neither"),
    "nothing carried": ({"carried": ()}, ProgramError, "at least one value"),
    "whole numbers carried": ({"carried": (Ref(1),)}, DtypeError, "not floating point"),
    "state at the beginning": ({"state": (Ref(2),)}, ProgramError, "takes as state none"),
    "no state later": ({"start": 5}, ProgramError, "begins at step 5 takes as state float32"),
    "no order": ({"order": ()}, ProgramError, "needs one order"),
    "an order without tables": ({"tables": ()}, ProgramError, "no table"),
    "tables of two lengths": ({"tables": (Ref(0), Ref(2))}, ShapeError, "every table needs the same number of rows"),
    "a loss of many numbers": ({"results": (Ref(12),)}, ProgramError, "a gradient is taken of one"),
    "a metric of many numbers": ({"results": (Ref(13), Ref(12))}, ShapeError, "result 1 of a loop's body must be one"),
    "no loss": ({"results": ()}, ProgramError, "must give a loss"),
    "a loss that is not there": ({"results": (Ref(99),)}, ProgramError, "one of its nodes"),
    "a loss that nothing learned reaches": ({"results": (Ref(11),)}, ProgramError, "of one floating-point number"),
    "a projection of another shape": ({"projected": (Ref(1, 1),)}, ShapeError, "must give float32"),
    "a projection that runs the model": (
        {"after": training().nodes[:1] + body(0, Slot("carried", 0))},
        ProgramError,
        "arithmetic alone",
    ),
    "a slot of nothing": ({"body": body(2, Slot("batch", 7))}, ProgramError, "batch 7 is in no loop that has it"),
    "a parameter without a slot": ({"body": body(0, Slot("batch", 0))}, GradientError, "does not depend on carried"),
    "a save inside": ({"body": (*body(0, Slot("carried", 0)), Save("x", Ref(0)))}, ProgramError, "has no place there"),
    "rows that do not fit the body": ({"tables": (Ref(3), Ref(3))}, ShapeError, "cross_entropy_loss"),
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_what_is_illegal_is_named(name: str) -> None:
    changes, kind, text = ILLEGAL[name]
    with pytest.raises(kind, match=text):
        checked(**changes)


def test_rows_and_tokens_are_within_their_bounds() -> None:
    with pytest.raises(BoundsError, match="names row 3; the tables have rows 0 to 2"):
        checked(at=3, node=Const(ints([[0, 3]])))
    with pytest.raises(BoundsError, match="token ids go from 0 to 16; 17 was given"):
        checked(at=0, node=Const(ints([[1, 2, 3], [4, 5, 6], [7, 8, 17]])))


def test_a_detached_parameter_is_not_learned() -> None:
    with pytest.raises(GradientError, match="does not depend on the target"):
        checked(body=body(9, Op("detach", (Ref(8),))))


def test_a_loop_is_alone_with_constants_and_saves() -> None:
    with pytest.raises(ProgramError, match="besides it constants and saves"):
        checked(at=6, node=Keep("history", Ref(LOOP)))
    with pytest.raises(ProgramError, match="is in no loop"):
        check(Experiment((Slot("carried", 0),)), fake_card())


def test_a_loop_in_a_loop_is_refused() -> None:
    with pytest.raises(ProgramError, match="has no place there"):
        checked(body=(*body(0, Slot("carried", 0)), training().nodes[LOOP]))


def test_its_nodes_are_counted() -> None:
    with pytest.raises(LimitError, match="nodes in the program"):
        check(training(), fake_card(), replace(DEFAULT, nodes=10))
