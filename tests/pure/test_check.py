"""Checking a program against a card: what is legal gets its types, what is not is refused at its line, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from counted import at_most
from fakes import D_MODEL, Builder, fake_card, floats, ints
from weft.errors import (
    BoundsError,
    CausalityError,
    DtypeError,
    GradientError,
    LimitError,
    Location,
    ModelError,
    OpError,
    ProgramError,
    ShapeError,
    SiteError,
    WeftError,
)
from weft.ir.check import check
from weft.ir.constant import BytesConstant
from weft.ir.limits import DEFAULT
from weft.ir.nodes import (
    EACH,
    Apply,
    Const,
    Dtype,
    Experiment,
    Grad,
    Keep,
    Node,
    Op,
    Param,
    Read,
    Ref,
    Run,
    Save,
    Site,
    Update,
    ViewStep,
    Write,
)
from weft.ir.types import TensorType

CARD = fake_card()
LAST = ViewStep("select.int", (1, -1))


def patching() -> Builder:
    """Head 2's z at the last position, from a clean run into a corrupted one; a lens and a gradient besides."""
    b = Builder()
    clean, corrupt = b.run([[1, 2, 3], [4, 5, 6]]), b.run([[7, 2, 3], [8, 5, 6]])
    part = (LAST, ViewStep("select.int", (1, 2)))
    value = b.read(clean, "z", 1)
    for step in part:
        value = b.add(Op(step.op, (value, *step.args)))
    b.add(Write(b.read(corrupt, "z", 1), part, value))
    logits = b.read(corrupt, "logits")
    best = b.add(Op("select.int", (b.add(Op("select.int", (logits, 1, -1))), 1, 4)))
    score = b.add(Op("mean", (best,)))
    b.save("score", score)
    b.save("lens", b.add(Apply("unembed", b.read(clean, "resid_post", 0))))
    b.save("slope", b.add(Grad(score, (b.read(corrupt, "resid_post", 0),))))
    return b


def test_a_good_experiment_gets_its_types() -> None:
    b = patching()
    checked = check(b.experiment(), CARD)
    found = {node.name: checked.types[node.value.node][node.value.out] for node in b.nodes if isinstance(node, Save)}
    assert {name: str(kind) for name, kind in found.items()} == {
        "score": "float32[]", "lens": "float32[2, 3, 17]", "slope": "float32[2, 3, 12]",
    }  # fmt: skip


def test_work_is_counted() -> None:
    checked = check(patching().experiment(), CARD)
    assert checked.layer_tokens == 2 * (2 * 2 * 3)  # two runs of two layers, two rows and three positions
    z, logits, stream, lens = 2 * 3 * 3 * 4, 2 * 3 * 17, 2 * 3 * 12, 2 * 3 * 17
    tokens = 2 * (2 * 3 * 8)
    # z: read in both runs, and written; the stream: read in both, and the slope
    assert checked.total_bytes == tokens + 4 * (3 * z + logits + 1 + 3 * stream + lens)


@pytest.mark.parametrize(
    ("step", "site", "expected"),
    [
        (0, ("pattern", 0), "float32[1, 3, 5, 5]"),  # the prompt's own pass: 5 positions
        (1, ("pattern", 0), "float32[1, 3, 1, 6]"),  # one new position, 6 keys
        (3, ("resid_post", 1), "float32[1, 1, 12]"),
        (EACH, ("resid_post", 1), "float32[1, 1, 12]"),
        (None, ("tokens", None), "int64[1, 4]"),
        (None, ("lengths", None), "int64[1]"),
    ],
)
def test_steps_of_a_generation_have_their_own_shapes(
    step: int | None, site: tuple[str, int | None], expected: str
) -> None:
    b = Builder()
    b.read(b.generate([[1, 2, 3, 4, 5]], max_new_tokens=4), *site, step=step)
    assert str(check(b.experiment(), CARD).types[-1][0]) == expected


# -- what is refused: the program, the error and its words, and the node it names -----------------------------------------


def simple(make: Callable[[Builder, int], object]) -> Callable[[], Experiment]:
    """A program of one run, then what `make` adds."""

    def build() -> Experiment:
        b = Builder()
        make(b, b.run([[1, 2, 3], [4, 5, 6]]))
        return b.experiment()

    return build


def generation(make: Callable[[Builder, int], object], **options: object) -> Callable[[], Experiment]:
    def build() -> Experiment:
        b = Builder()
        make(b, b.generate([[1, 2, 3]], **options))
        return b.experiment()

    return build


def program(*nodes: Node) -> Callable[[], Experiment]:
    return lambda: Experiment(nodes)


def z(b: Builder, run: int, layer: int = 0) -> Ref:
    return b.read(run, "z", layer)


def total(b: Builder, value: Ref) -> Ref:
    return b.add(Op("sum", (value,)))


def write_stale(b: Builder, run: int) -> None:
    read, value = z(b, run), b.const(floats(2, 3, 3, 4))
    b.add(Write(read, (), value))
    b.add(Write(read, (), value))


def write_late(b: Builder, run: int) -> None:
    b.add(Write(b.read(run, "resid_post", 0), (), b.read(run, "resid_post", 1)))


def write_round(b: Builder, run: int) -> None:
    other = b.run([[1, 2, 3], [4, 5, 6]])
    b.add(Write(b.read(other, "resid_post", 0), (), b.read(run, "resid_post", 1)))
    b.add(Write(b.read(run, "resid_mid", 0), (), b.read(other, "resid_post", 1)))


def grad_without_mode(b: Builder, run: int) -> None:
    read = z(b, run)
    b.add(Grad(total(b, b.add(Op("mul.Scalar", (read, 2.0), nograd=True))), (read,)))


def each_and_one(b: Builder, run: int) -> None:
    for step in (EACH, 2):
        read = b.read(run, "resid_post", 0, step)
        b.add(Write(read, (), read))


def each_elsewhere(b: Builder, run: int) -> None:
    each, other = b.read(run, "resid_post", 0, EACH), b.read(b.run([[1]]), "resid_post", 0)
    b.add(Write(other, (), each))


def two_eaches(b: Builder, run: int) -> None:
    other = b.generate([[1, 2, 3]])
    b.add(Op("add.Tensor", (b.read(run, "embed", step=EACH), b.read(other, "embed", step=EACH))))


def expanded(b: Builder, run: int) -> None:
    base, value = b.const(floats(1, 4)), b.const(floats(3, 4))
    b.add(Update(base, (ViewStep("expand", ((3, 4),)),), value))


def big(b: Builder, run: int) -> None:
    b.add(Op("expand", (b.const(floats(1, 1)), (1 << 30, 1 << 30))))


def run_of(tokens: BytesConstant, **more: BytesConstant) -> Callable[[], Experiment]:
    def build() -> Experiment:
        b = Builder()
        inputs = tuple((name, b.const(data)) for name, data in {"tokens": tokens, **more}.items())
        b.add(Run("tokens", inputs))
        return b.experiment()

    return build


CONST = Const(floats(2))
BAD: dict[str, tuple[Callable[[], Experiment], type[WeftError], str]] = {
    "operand later": (program(Op("sum", (Ref(1),)), CONST), ProgramError, r"node 0 \(op sum\): operand %1 is not an earlier"),
    "operand itself": (program(Op("sum", (Ref(0),))), ProgramError, "operand %0 is not an earlier node"),
    "operand without value": (simple(lambda b, r: total(b, Ref(r))), ProgramError, "operand %1 is a run, which has no value"),
    "output 1 of 1": (program(CONST, Op("sum", (Ref(0, 1),))), ProgramError, r"%0.1: node 0 has outputs 0 to 0"),
    "unknown op": (program(CONST, Op("os.system", (Ref(0),))), OpError, "'os.system' is not an operation"),
    "private op": (program(CONST, Op("_softmax", (Ref(0), 0, False))), OpError, "'_softmax' is not an operation"),
    "argument of another kind": (program(CONST, Op("softmax.int", (Ref(0), "rm -rf"))), OpError, "argument `dim` must be int"),
    "bool for an int": (program(CONST, Op("softmax.int", (Ref(0), True))), OpError, "argument `dim` must be int"),
    "too many arguments": (program(CONST, Op("relu", (Ref(0), 1, 2))), OpError, "takes at most"),
    "dimension outside": (program(CONST, Op("softmax.int", (Ref(0), 5))), WeftError, r"node 1 \(op softmax.int\)"),
    "shapes that do not fit": (program(CONST, Const(floats(3)), Op("add.Tensor", (Ref(0), Ref(1)))), ShapeError, "2"),
    "2^60 elements": (simple(big), LimitError, r"node 3 \(op expand\)"),
    "name of 1000 letters": (program(CONST, Op("a" * 1000, (Ref(0),))), LimitError, "1,000 characters in one name"),
    "read of no run": (program(CONST, Read(0, Site("embed"))), ProgramError, "%0 is read as a run, but is no earlier run"),
    "site the family lacks": (simple(lambda b, r: b.read(r, "head_out", 0)), SiteError, "no head_out: this family has a norm"),
    "layer the model lacks": (simple(lambda b, r: b.read(r, "z", 7)), SiteError, r"no site z\[7\]: z has layers 0 to 1"),
    "misspelt site": (simple(lambda b, r: b.read(r, "resid_pots", 1)), SiteError, "near it: .*resid_post"),
    "misspelt module": (
        simple(lambda b, r: b.add(Read(r, Site("module.output", path="h.0")))), SiteError, r"no site module\(h.0\).output"),
    "step of a plain run": (simple(lambda b, r: b.read(r, "embed", step=0)), SiteError, "this run is no generation"),
    "tokens of a plain run": (simple(lambda b, r: b.read(r, "tokens")), SiteError, "no site tokens"),
    "generation without step": (generation(lambda b, r: b.read(r, "embed")), SiteError, "is read at a step"),
    "step too late": (generation(lambda b, r: b.read(r, "embed", step=4)), BoundsError, "steps are 0 to 3"),
    "pattern at each step": (generation(lambda b, r: b.read(r, "pattern", 0, EACH)), SiteError, "grows from step to step"),
    "tokens written": (
        generation(lambda b, r: b.add(Write(b.read(r, "tokens"), (), b.const(ints([[1, 2, 3, 4]]))))),
        SiteError, "the tokens of a generation cannot be written"),
    "each and one step": (generation(each_and_one), ProgramError, "written both at each step and at one step"),
    "each written elsewhere": (generation(each_elsewhere), ProgramError, "only at each step of the same one"),
    "each of two generations": (generation(two_eaches), ProgramError, "of two different generations"),
    "site that is read only": (
        simple(lambda b, r: b.add(Write(b.read(r, "final_norm"), (), b.const(floats(2, 3, D_MODEL))))),
        SiteError, "final_norm can be read but not written"),
    "write to no site": (program(CONST, Write(Ref(0), (), Ref(0))), ProgramError, "%0 is no site"),
    "write to an old version": (simple(write_stale), ProgramError, "begins at the site's last version, here %4, not at %2"),
    "value of another shape": (
        simple(lambda b, r: b.add(Write(z(b, r), (LAST,), b.const(floats(2, 3, 5))))),
        ShapeError, r"the part written is float32\[2, 3, 4\], the value float32\[2, 3, 5\]"),
    "value of another dtype": (
        simple(lambda b, r: b.add(Write(b.read(r, "embed"), (LAST, LAST), b.const(ints([1, 2]))))),
        DtypeError, r"use .to\(torch.float32\)"),
    "index outside the site": (
        simple(lambda b, r: b.add(Write(z(b, r), (ViewStep("select.int", (1, 9)),), z(b, r, 1)))), WeftError, "9"),
    "a site read twice": (simple(lambda b, r: (z(b, r), z(b, r))), ProgramError, r"z\[0\] of run %1 is read already by %2"),
    "view that is none": (
        simple(lambda b, r: b.add(Write(z(b, r), (ViewStep("exec", ("x",)),), z(b, r, 1)))), OpError, "exec is no view"),
    "view's arguments wrong": (
        simple(lambda b, r: b.add(Write(z(b, r), (ViewStep("select.int", (None, None)),), z(b, r, 1)))), WeftError, "node 4"),
    "element met twice": (simple(expanded), ProgramError, "meets the same element more than once"),
    "layout of another rank": (
        program(CONST, Update(Ref(0), (), Ref(0), (1, 0))), ProgramError, r"layout \(1, 0\) is no order of the 1 dimensions"),
    "a later value written": (
        simple(write_late), CausalityError, r"this write to resid_post\[0\] depends on resid_post\[1\] of the same run"),
    "a circle of two runs": (simple(write_round), CausalityError, r"resid_mid\[0\] depends on resid_post\[1\]"),
    "unknown weight": (program(Param("W_UU")), ModelError, "no weight 'W_UU'; near it: W_U"),
    "unknown part": (program(CONST, Apply("unembedd", Ref(0))), ModelError, "near it: unembed"),
    "part of another width": (program(CONST, Apply("unembed", Ref(0))), ShapeError, r"12\], was given float32\[2\]"),
    "part of another dtype": (program(Const(ints([[1] * 12])), Apply("unembed", Ref(0))), DtypeError, r"int64\[1, 12\]"),
    "gradient of many": (
        simple(lambda b, r: b.add(Grad(z(b, r), (z(b, r, 1),)))), GradientError, "of one floating-point number"),
    "gradient for a whole number": (
        simple(lambda b, r: b.add(Grad(total(b, z(b, r)), (Ref(0),)))), GradientError, r"%0, int64\[2, 3\]"),
    "gradient of what is not used": (
        simple(lambda b, r: b.add(Grad(total(b, z(b, r)), (b.read(r, "resid_post", 1),)))),
        GradientError, "does not depend"),
    "gradient through no_grad": (simple(grad_without_mode), GradientError, r"node 3 \(mul.Scalar\) .* with grad mode off"),
    "saved twice": (program(CONST, Save("x", Ref(0)), Save("x", Ref(0))), ProgramError, "'x' is saved already"),
    "name with a slash": (program(CONST, Save("../x", Ref(0))), ProgramError, "cannot name a result"),
    "name with a newline": (program(CONST, Save("a\nb", Ref(0))), ProgramError, "cannot name a result"),
    "name of dots": (program(CONST, Save("..", Ref(0))), ProgramError, "cannot name a result"),
    "keep of one name twice": (
        program(CONST, Keep("x", Ref(0)), Keep("x", Ref(0))), ProgramError, "a value named 'x' is kept already"
    ),
    "kind of run": (program(Run("pixels", ())), ProgramError, "'pixels' is not for fake; it takes tokens or generate"),
    "no tokens": (program(Run("tokens", ())), ProgramError, "given nothing"),
    "tokens computed": (
        program(Const(ints([[1]])), Op("mul.Scalar", (Ref(0), 1)), Run("tokens", (("tokens", Ref(1)),))),
        ProgramError, "must be a constant"),
    "tokens of one dimension": (run_of(ints([1, 2])), ShapeError, r"not int64\[2\]"),
    "tokens that are floats": (run_of(floats(1, 2)), DtypeError, r"not float32\[1, 2\]"),
    "token outside": (run_of(ints([[1, 17]])), BoundsError, "token ids go from 0 to 16; 17 was given"),
    "token below": (run_of(ints([[1, -1]])), BoundsError, "-1 was given"),
    "start past the end": (run_of(ints([[1, 2]]), start=ints([2])), BoundsError, "from 0 to 1; 2 was given"),
    "start for one of two": (run_of(ints([[1], [2]]), start=ints([0])), ShapeError, r"start must be int64\[2\]"),
    "too many positions": (run_of(ints([[1] * 33])), LimitError, "33 positions .* at most 32"),
    "unknown option": (generation(lambda b, r: None, beams=3), ProgramError, "no option 'beams'"),
    "temperature below 0": (generation(lambda b, r: None, temperature=-1.0), ProgramError, "temperature must be a number"),
    "top_p of 2": (generation(lambda b, r: None, top_p=2.0), ProgramError, "above 0 and at most 1"),
    "sampling without seed": (generation(lambda b, r: None, temperature=1.0), ProgramError, "needs a seed"),
    "no new tokens": (generation(lambda b, r: None, max_new_tokens=0), ProgramError, "at least 1, was 0"),
    "stop at no token": (generation(lambda b, r: None, stop=((99,),)), BoundsError, "token 99"),
    "a million new tokens": (generation(lambda b, r: None, max_new_tokens=10**6), LimitError, "limit is 4,096"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_experiment_is_refused_with_the_reason(name: str) -> None:
    make, error, message = BAD[name]
    experiment = make()
    with pytest.raises(error, match=message) as caught:
        check(experiment, CARD)
    if name not in ("a later value written", "a circle of two runs"):
        node = caught.value.details["node"]
        assert caught.value.message.startswith(f"node {node} (")
        assert caught.value.where == experiment.where(node)


def test_causality_points_at_the_write_that_closes_the_circle() -> None:
    experiment = simple(write_round)()
    with pytest.raises(CausalityError) as caught:
        check(experiment, CARD)
    assert caught.value.where == Location("user.py", len(experiment.nodes))


def test_detach_ends_the_way_of_the_gradient_and_hides_nothing() -> None:
    b = Builder()
    read = z(b, b.run([[1, 2]]))
    hidden = b.add(Op("detach", (b.add(Op("mul.Scalar", (read, 2.0), nograd=True)),)))
    b.add(Grad(total(b, b.add(Op("add.Tensor", (read, hidden)))), (read,)))
    check(b.experiment(), CARD)


def test_a_gradient_reaches_a_site_through_the_model() -> None:
    b = Builder()
    run, vector = b.run([[1, 2]]), b.const(floats(1, 2, 12))
    b.add(Write(b.read(run, "resid_post", 0), (), vector))
    b.add(Grad(total(b, b.read(run, "logits")), (vector,)))
    check(b.experiment(), CARD)


@pytest.mark.parametrize(
    ("limit", "value"),
    [("nodes", 5), ("values", 5), ("value_numel", 50), ("value_bytes", 200), ("total_bytes", 900), ("flops", 1),
     ("layer_tokens", 20)],
)  # fmt: skip
def test_each_limit_is_an_error_that_states_it(limit: str, value: int) -> None:
    with pytest.raises(LimitError, match=f"but the limit is {value}") as caught:
        check(patching().experiment(), CARD, replace(DEFAULT, **{limit: value}))
    assert caught.value.details["limit_name"] == limit


def test_many_gradients_are_limited_by_what_they_visit() -> None:
    b = Builder()
    value = read = z(b, b.run([[1, 2]]))
    for _ in range(2000):
        value = b.add(Op("neg", (value,)))
    for _ in range(2000):
        b.add(Grad(total(b, value), (read,)))
    with pytest.raises(LimitError, match="nodes visited to check all gradients"):
        check(b.experiment(), CARD)


@pytest.mark.parametrize(
    "node",
    [
        Op("unbind.int", (Ref(1), 0)),
        Op("split.Tensor", (Ref(1), 1)),
        Op("chunk", (Ref(1), 1 << 40)),
        Op("tensor_split.sections", (Ref(1), 1 << 40)),
        Op("zeros", ((1 << 40,), Dtype("float32"))),
        Op("einsum", ("a->" + "a" * 190, (Ref(0),))),
        Op("repeat", (Ref(0), (1 << 62,) * 8)),
        Op("sum.dim_IntList", (Ref(0), (0,) * 100_000)),
    ],
)
def test_a_node_made_to_be_slow_is_answered_at_once(node: Node) -> None:
    wide = Op("expand", (Ref(0), (1 << 31,)))
    with pytest.raises(WeftError), at_most(lines=4_000_000):
        check(Experiment((Const(floats(1)), wide, node)), CARD)


def test_many_gradients_of_one_scalar_are_one_visit() -> None:
    b = Builder()
    value = read = z(b, b.run([[1, 2]]))
    for _ in range(2000):
        value = b.add(Op("neg", (value,)))
    scalar = total(b, value)
    for _ in range(2000):
        b.add(Grad(scalar, (read,)))
    check(b.experiment(), CARD)


def test_of_many_gradients_the_bad_one_is_named() -> None:
    b = Builder()
    read = z(b, b.run([[1, 2]]))
    scalar, stranger = total(b, read), b.const(floats(3))
    for target in (read, read, stranger, read):
        b.add(Grad(scalar, (target,)))
    with pytest.raises(GradientError, match=r"node 7 \(grad\): the scalar %3 does not depend on the target %4"):
        check(b.experiment(), CARD)


def test_a_rule_that_stumbles_is_an_error_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(name: str, args: tuple) -> tuple[TensorType, ...]:
        raise IndexError("tuple index out of range")

    monkeypatch.setattr("weft.ir.check.infer", stumble)
    with pytest.raises(OpError, match=r"node 1 \(op relu\): these arguments cannot be checked \(IndexError"):
        check(Experiment((CONST, Op("relu", (Ref(0),)))), CARD)


def test_tokens_that_runs_share_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    b = Builder()
    tokens = b.const(ints([[1] * 32] * 4000))
    for _ in range(400):
        b.add(Run("tokens", (("tokens", tokens),)))
    looked: list[BytesConstant] = []
    plain = BytesConstant.tobytes
    monkeypatch.setattr(BytesConstant, "tobytes", lambda self: looked.append(self) or plain(self))
    check(b.experiment(), CARD)
    assert len(looked) == 1


def test_a_hundred_thousand_nodes_take_as_much_each_as_a_few() -> None:
    b = Builder()
    source, tokens = b.read(b.run([[1, 2, 3]]), "z", 0), b.nodes[1]
    while len(b.nodes) < 99_000:
        run = b.add(tokens).node
        b.add(Write(b.read(run, "z", 0), (LAST,), b.add(Op("select.int", (source, 1, -1)))))
        b.add(Op("log_softmax.int", (b.read(run, "logits"), -1)))
    with at_most(lines=30_000_000):
        check(b.experiment(), CARD)
