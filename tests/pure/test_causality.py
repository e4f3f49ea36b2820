"""Causality: what is refused as it is written is what is refused as a whole, and both are what following every path says."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counted import at_most
from fakes import Builder, fake_card, floats
from weft.errors import CausalityError
from weft.ir.causality import Frontiers, check_causality, order_by
from weft.ir.nodes import EACH, Experiment, Node, Op, Read, Ref, Run, Site, Write

CARD = fake_card()
ORDER = order_by(CARD)


def noted(nodes: tuple[Node, ...]) -> int | None:
    """The node at which the program is refused while it grows."""
    frontiers = Frontiers(CARD)
    for index, node in enumerate(nodes):
        try:
            frontiers.note(index, node)
        except CausalityError as error:
            assert error.details["node"] == index
            return index
    return None


def checked(nodes: tuple[Node, ...]) -> int | None:
    try:
        check_causality(nodes, ORDER)
    except CausalityError as error:
        return error.details["node"]
    return None


def followed(nodes: tuple[Node, ...]) -> int | None:
    """The slow, obvious way: the first prefix in which some node can be reached from itself."""
    for end in range(1, len(nodes) + 1):
        edges = {index: {ref.node for ref in _operands(node)} for index, node in enumerate(nodes[:end])}
        writes = {index: _site(nodes, index) for index in edges if isinstance(nodes[index], Write)}
        for index in edges:
            if isinstance(nodes[index], Read):
                run, order = _site(nodes, index)
                edges[index] |= {write for write, (r, o) in writes.items() if r == run and o < order}
        for start in edges:
            seen, stack = set(), list(edges[start])
            while stack:
                at = stack.pop()
                if at not in seen:
                    seen.add(at)
                    stack.extend(edges[at])
            if start in seen:
                return end - 1
    return None


def _operands(node: Node) -> tuple[Ref, ...]:
    return (node.prev, node.value) if isinstance(node, Write) else tuple(node.args) if isinstance(node, Op) else ()


def _site(nodes: tuple[Node, ...], index: int) -> tuple[int, int]:
    while isinstance(nodes[index], Write):
        index = nodes[index].prev.node
    return nodes[index].run, CARD.by_site[nodes[index].site][0]


@st.composite
def programs(draw: st.DrawFn) -> tuple[Node, ...]:
    """Three runs whose sites are read, mixed and written at random; only ever the last version of a site is written."""
    nodes: list[Node] = [Run("tokens", ()) for _ in range(3)]
    values: list[int] = []
    version: dict[tuple[int, str, int], int] = {}
    for _ in range(draw(st.integers(2, 14))):
        key = draw(st.tuples(st.integers(0, 2), st.sampled_from(["z", "resid_post"]), st.integers(0, 1)))
        if key not in version:
            nodes.append(Read(key[0], Site(key[1], key[2])))
            version[key] = len(nodes) - 1
        elif draw(st.booleans()):
            nodes.append(Write(Ref(version[key]), (), Ref(draw(st.sampled_from(values)))))
            version[key] = len(nodes) - 1
        else:
            nodes.append(Op("add.Tensor", tuple(Ref(draw(st.sampled_from(values))) for _ in range(2))))
        values.append(len(nodes) - 1)
    return tuple(nodes)


@given(programs())
@settings(max_examples=300, deadline=None)
def test_three_ways_refuse_the_same_programs_at_the_same_line(nodes: tuple[Node, ...]) -> None:
    assert noted(nodes) == checked(nodes) == followed(nodes)


def test_a_refused_write_leaves_no_trace() -> None:
    frontiers = Frontiers(CARD)
    early, late = Read(0, Site("z", 0)), Read(0, Site("z", 1))
    for index, node in enumerate((Run("tokens", ()), early, late)):
        frontiers.note(index, node)
    with pytest.raises(CausalityError):
        frontiers.note(3, Write(Ref(1), (), Ref(2)))
    frontiers.note(3, Write(Ref(2), (), Ref(1)))


def test_what_was_read_before_the_write_is_no_consequence_of_it() -> None:
    """Two runs may exchange the value of one site: each is read before either is written."""
    b = Builder()
    one, two = b.run([[1]]), b.run([[2]])
    x, y = b.read(one, "z", 0), b.read(two, "z", 0)
    b.add(Write(x, (), y))
    b.add(Write(y, (), x))
    assert noted(tuple(b.nodes)) is checked(tuple(b.nodes)) is None


@pytest.mark.parametrize(
    ("read", "written", "legal"),
    [
        ((0, 1), (1, 0), True),  # an earlier step into a later one, whatever the layers
        ((1, 0), (0, 1), False),
        ((1, 0), (1, 1), True),
        ((1, 1), (1, 0), False),
        ((EACH, 0), (EACH, 1), True),  # within each step
        ((EACH, 1), (EACH, 0), False),
        ((0, 0), (EACH, 1), True),  # from the first step, where it is there in time
        ((1, 0), (EACH, 1), False),  # step 0 would need step 1
    ],
)
def test_steps_come_one_after_another(read: tuple[int, int], written: tuple[int, int], legal: bool) -> None:
    b = Builder()
    run = b.generate([[1, 2]])
    value = b.read(run, "resid_post", read[1], read[0])
    b.add(Write(b.read(run, "resid_post", written[1], written[0]), (), value))
    assert (noted(tuple(b.nodes)) is None) == (checked(tuple(b.nodes)) is None) == legal


def test_a_generations_tokens_depend_on_all_of_it() -> None:
    b = Builder()
    run = b.generate([[1, 2]])
    b.add(Write(b.read(run, "resid_post", 1, 3), (), b.read(run, "tokens")))
    assert noted(tuple(b.nodes)) == checked(tuple(b.nodes)) == len(b.nodes) - 1


def test_a_sweep_costs_the_same_a_node_however_long() -> None:
    """Thousands of runs patched from a clean one, their scores gathered in one grid: no set grows with the sweep."""
    b = Builder()
    clean = b.read(b.run([[1]]), "z", 1)
    grid = b.const(floats(1))
    while len(b.nodes) < 50_000:
        run = b.run([[1]])
        b.add(Write(b.read(run, "z", 1), (), clean))
        grid = b.add(Op("add.Tensor", (grid, b.read(run, "logits"))))
    frontiers = Frontiers(CARD)
    with at_most(lines=1_000_000):
        for index, node in enumerate(b.nodes):
            frontiers.note(index, node)


def test_a_program_made_to_be_slow_is_checked_in_linear_time() -> None:
    """Each write comes after a read of logits and depends on a long chain: looking back from each would take forever."""
    b = Builder()
    value = b.read(b.run([[1]]), "z", 0)
    for _ in range(20_000):
        value = b.add(Op("neg", (value,)))
    for _ in range(10_000):
        run = b.run([[1]])
        b.read(run, "logits")
        value = b.add(Write(b.read(run, "z", 0), (), value))
    with at_most(lines=5_000_000):
        check_causality(Experiment(tuple(b.nodes)).nodes, ORDER)
