"""An experiment on some of its rows: what goes by rows, what waits for all of them, and the program for a slice."""

from __future__ import annotations

import pytest

from fakes import D_MODEL, Builder, fake_card, floats, ints
from weft.ir.causality import order_by
from weft.ir.check import Checked, check
from weft.ir.nodes import Const, Grad, Op, Read, Ref, Run, Save, Site, ViewStep, Write
from weft.ir.optable.rows import Lie
from weft.ir.types import TensorType
from weft.plan.parts import Part, part
from weft.plan.rowwise import FIXED, MIXED, ROWS, Rowwise, rowwise
from weft.plan.slices import name_of, rows_of

CARD = fake_card()
ORDER = order_by(CARD)
FOUR, OTHERS = [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]], [[3, 3, 3], [2, 2, 2], [1, 1, 1], [5, 5, 5]]
LAST = ViewStep("select.int", (1, -1))


def followed(b: Builder, batch: int = 4) -> Rowwise:
    return rowwise(b.experiment(), check(b.experiment(), CARD), ORDER, batch)


def legal(made: Part) -> Checked:
    """A program made of another is one that anybody may run."""
    return check(made.experiment, CARD)


def tokens_of(made: Part) -> list[list[int]]:
    """The tokens of a program's runs, row by row, one run after another."""
    found = []
    for node in made.experiment.nodes:
        if isinstance(node, Run):
            data = made.experiment.nodes[node.inputs[0][1].node]
            assert isinstance(data, Const)
            flat = memoryview(data.data.tobytes()).cast("q").tolist()
            found += [flat[at : at + 3] for at in range(0, len(flat), 3)]
    return found


def patched(b: Builder) -> Ref:
    """The last position of layer 0's stream from one run of four rows into another, whose last state is given."""
    clean, corrupt = b.run(FOUR), b.run(OTHERS)
    value = b.add(Op("select.int", (b.read(clean, "resid_post", 0), 1, -1)))
    b.add(Write(b.read(corrupt, "resid_post", 0), (LAST,), value))
    return b.read(corrupt, "resid_post", 1)


def test_a_slice_has_the_rows_of_every_run_and_the_patch_between_them() -> None:
    b = Builder()
    b.save("end", patched(b))
    found = followed(b)
    made = rows_of(found, 1, 3)
    checked = legal(made)
    assert tokens_of(made) == [*FOUR[1:3], *OTHERS[1:3]]
    assert found.frontier == {Ref(8): Lie(0)}  # the last read
    assert sum(isinstance(node, Write) for node in made.experiment.nodes) == 1
    (save,) = (node for node in made.experiment.nodes if isinstance(node, Save))
    assert save.name == name_of(Ref(8)) and checked.types[save.value.node] == (TensorType("float32", (2, 3, D_MODEL)),)


def test_every_node_of_a_slice_knows_where_it_came_from() -> None:
    b = Builder()
    b.save("end", patched(b))
    made = rows_of(followed(b), 0, 1)
    old = b.experiment().nodes
    kept = [(node, old[at]) for node, at in zip(made.experiment.nodes, made.origin, strict=True)]
    assert all(type(new) is type(before) for new, before in kept if isinstance(new, Run | Read | Write | Op))
    assert made.experiment.where(0) == b.experiment().where(made.origin[0])


def test_a_mean_of_the_rows_waits_for_all_of_them() -> None:
    b = Builder()
    end = patched(b)
    b.save("mean", b.add(Op("mean.dim", (end, (0,)))))
    found = followed(b)
    assert (found.state[end.node], found.state[end.node + 1]) == (ROWS, MIXED)
    rest = part(b.experiment(), ORDER, {"mean": Ref(end.node + 1)}, {end: floats(4, 3, D_MODEL)})
    assert [type(node).__name__ for node in rest.experiment.nodes] == ["Const", "Op", "Save"]
    assert legal(rest).types[1] == (TensorType("float32", (3, D_MODEL)),)


def test_a_mean_of_the_positions_does_not() -> None:
    b = Builder()
    b.save("mean", b.add(Op("mean.dim", (patched(b), (1,)))))
    assert list(followed(b).frontier.values()) == [Lie(0)]


def test_what_follows_a_mixed_edit_in_the_model_is_mixed_and_what_precedes_it_is_not() -> None:
    b = Builder()
    run = b.run(FOUR)
    before = b.read(run, "resid_mid", 0)
    mean = b.add(Op("mean.dim", (before, (0,), True)))
    there = b.read(run, "resid_post", 0)
    b.add(Write(there, (), b.add(Op("expand", (mean, (4, 3, D_MODEL))))))
    after = b.read(run, "logits")
    b.save("after", after)
    found = followed(b)
    assert [found.state[ref.node] for ref in (before, mean, after)] == [ROWS, MIXED, MIXED]
    assert list(found.frontier) == [before]


def counted(b: Builder, rows: list[int]) -> Rowwise:
    """`x[rows, [2, 1, 0, 2]]` of a run of four rows."""
    value = b.read(b.run(FOUR), "resid_post", 1)
    places = b.const(ints([2, 1, 0, 2]))
    b.save("picked", b.add(Op("index.Tensor", (value, (b.const(ints(rows)), places)))))
    return followed(b)


def test_a_place_in_each_row_is_cut_and_the_rows_are_counted_anew() -> None:
    b = Builder()
    made = rows_of(counted(b, [0, 1, 2, 3]), 1, 4)
    assert legal(made)
    numbers = [memoryview(node.data.tobytes()).cast("q").tolist() for node in made.experiment.nodes
               if isinstance(node, Const) and len(node.data.type.shape) == 1]  # fmt: skip
    assert [0, 1, 2] in numbers and [1, 0, 2] in numbers


def test_rows_in_another_order_are_mixed() -> None:
    b = Builder()
    found = counted(b, [1, 0, 3, 2])
    assert [found.lie(ref) for ref in found.frontier] == [Lie(0)]
    assert isinstance(b.nodes[next(iter(found.frontier)).node], Read)


def test_one_row_edited_alone_keeps_all_rows_together() -> None:
    b = Builder()
    run = b.run(FOUR)
    row = ViewStep("select.int", (0, 2))
    b.add(Write(b.read(run, "resid_post", 0), (row, ViewStep("select.int", (0, -1))), b.const(floats(D_MODEL))))
    b.save("end", b.read(run, "logits"))
    assert not followed(b).frontier


def test_the_first_position_of_each_row_is_cut_with_it() -> None:
    b = Builder()
    inputs = (("tokens", b.const(ints(FOUR))), ("start", b.const(ints([0, 1, 2, 0]))))
    run = b.add(Run("tokens", inputs)).node
    b.save("end", b.read(run, "logits"))
    made = rows_of(followed(b), 1, 3)
    assert legal(made).runs.popitem()[1].batch == 2
    start = [node.data for node in made.experiment.nodes if isinstance(node, Const) and node.data.type.shape == (2,)]
    assert memoryview(start[0].tobytes()).cast("q").tolist() == [1, 2]


def test_a_vector_of_the_users_with_a_number_for_each_row_is_cut_by_an_op() -> None:
    b = Builder()
    value = b.read(b.run(FOUR), "resid_post", 1)
    b.save("sum", b.add(Op("add.Tensor", (value, b.const(floats(4, 1, D_MODEL))))))
    made = rows_of(followed(b), 2, 4)
    assert legal(made)
    assert [node.args[1:] for node in made.experiment.nodes if isinstance(node, Op) and "slice" in node.name] == [
        (0, 2, 4)
    ]


def test_a_run_of_one_row_for_all_comes_first() -> None:
    b = Builder()
    single, many = b.run([[1, 2, 3]]), b.run(FOUR)
    value = b.add(Op("expand", (b.add(Op("select.int", (b.read(single, "resid_post", 0), 1, -1))), (4, D_MODEL))))
    b.add(Write(b.read(many, "resid_post", 0), (LAST,), value))
    b.save("end", b.read(many, "logits"))
    found = followed(b)
    assert found.state[single] == FIXED and found.early == (value,)
    assert legal(part(b.experiment(), ORDER, {"early": value}))


def test_sizes_of_views_are_those_of_the_slice() -> None:
    b = Builder()
    value = b.read(b.run(FOUR), "resid_post", 1)
    b.save("flat", b.add(Op("view", (value, (12, D_MODEL)))))
    found = followed(b)
    made = rows_of(found, 0, 3)
    assert found.frontier == {Ref(3): Lie(0, 3)}
    assert legal(made).types[-2] == (TensorType("float32", (9, D_MODEL)),)


def test_what_a_gradient_goes_through_is_not_cut() -> None:
    b = Builder()
    value = b.read(b.run(FOUR), "resid_post", 0)
    scalar = b.add(Op("sum", (b.add(Op("mul.Tensor", (value, value))),)))
    b.save("gradient", b.add(Grad(scalar, (value,))))
    assert not followed(b).frontier


def test_a_site_without_rows_of_its_own_is_mixed() -> None:
    b = Builder()
    b.save("end", b.read(b.generate(FOUR), "tokens"))
    assert not followed(b).frontier


@pytest.mark.parametrize("site", [Site("q", 0), Site("pattern", 1), Site("logits")])
def test_rows_lie_where_the_card_says(site: Site) -> None:
    b = Builder()
    value = b.add(Read(b.run(FOUR), site))
    b.save("site", value)
    assert followed(b).frontier == {value: Lie(0)}
