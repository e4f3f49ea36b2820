"""Programs made of a program: some of its values, what they need, and what is known standing in it as constants.

made = part(experiment, order_of, {"diff": ref}, known={other: data})
made.experiment, made.origin      # a program of its own; for each of its nodes the one that it came from
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from weft.ir.causality import Dependencies, OrderOf
from weft.ir.nodes import (
    Apply,
    Const,
    ConstantData,
    Experiment,
    Grad,
    Node,
    Op,
    Param,
    Read,
    Ref,
    Run,
    Save,
    Update,
    Write,
    operands,
)


class Part(NamedTuple):
    """A program made of another, and for each of its nodes the one that it came from."""

    experiment: Experiment
    origin: tuple[int, ...]


def graph_of(nodes: Sequence[Node], order_of: OrderOf) -> Callable[[int], list[int]]:
    """What each node needs: its operands, and of a read its run and (by way of links) the edits before it."""
    graph = Dependencies(nodes, order_of)

    def needs(index: int) -> list[int]:
        found = graph.needs(index)
        node = nodes[index] if index < len(nodes) else None
        return [node.run, *found] if isinstance(node, Read) else found

    return needs


def ordered(needs: Callable[[int], list[int]], roots: Iterable[int]) -> list[int]:
    """Everything that `roots` need, what is needed first before what needs it."""
    done: dict[int, None] = {}
    for root in roots:
        stack = [(root, False)]
        while stack:
            index, seen = stack.pop()
            if seen:
                done[index] = None
            elif index not in done:
                stack.append((index, True))
                stack.extend((need, False) for need in needs(index) if need not in done)
    return list(done)


def values_of(node: Node) -> list[Ref]:
    """The operands that a node needs the numbers of (a write's `prev` is a place in the model)."""
    return [node.value] if isinstance(node, Write) else list(operands(node))


class Writer:
    """A program being written: where each old node's new one is."""

    def __init__(self, experiment: Experiment) -> None:
        self.old = experiment
        self.nodes: list[Node] = []
        self.origin: list[int] = []
        self.at: dict[int, int] = {}

    def add(self, node: Node, origin: int) -> Ref:
        self.nodes.append(node)
        self.origin.append(origin)
        return Ref(len(self.nodes) - 1)

    def ref(self, ref: Ref) -> Ref:
        return Ref(self.at[ref.node], ref.out)

    def part(self) -> Part:
        places = tuple(self.old.where(index) for index in self.origin) if self.old.locations else ()
        return Part(Experiment(tuple(self.nodes), places), tuple(self.origin))


def mapped(arg: object, change: Callable[[Ref], Ref]) -> Any:
    """An argument with other operands, in order."""
    if isinstance(arg, Ref):
        return change(arg)
    return tuple(mapped(item, change) for item in cast("tuple[object, ...]", arg)) if type(arg) is tuple else arg


def part(
    experiment: Experiment,
    order_of: OrderOf,
    wanted: Mapping[str, Ref],
    known: Mapping[Ref, ConstantData] | None = None,
) -> Part:
    """The program that gives the `wanted` values by name, those `known` already standing in it as constants."""
    nodes, held = experiment.nodes, known or {}
    needs = graph_of(nodes, order_of)

    def open_needs(index: int) -> list[int]:
        node = nodes[index] if index < len(nodes) else None
        if node is None or isinstance(node, Read):
            return needs(index)
        places = [node.prev.node] if isinstance(node, Write) else []
        return places + [ref.node for ref in values_of(node) if ref not in held]

    kept = {i for i in ordered(open_needs, [r.node for r in wanted.values() if r not in held]) if i < len(nodes)}
    writer = Writer(experiment)
    constants: dict[Ref, Ref] = {}

    def value(ref: Ref, origin: int) -> Ref:
        if ref not in held:
            return writer.ref(ref)
        if ref not in constants:
            constants[ref] = writer.add(Const(held[ref]), origin)
        return constants[ref]

    for index in sorted(kept):
        node = copied(nodes[index], lambda ref, index=index: value(ref, index), writer)
        writer.at[index] = writer.add(node, index).node
    for name, ref in wanted.items():
        writer.add(Save(name, value(ref, ref.node)), ref.node)
    return writer.part()


def copied(node: Node, value: Callable[[Ref], Ref], writer: Writer) -> Node:
    match node:
        case Run(kind, inputs, options):
            return Run(kind, tuple((name, value(ref)) for name, ref in inputs), options)
        case Read(run, site, step):
            return Read(writer.at[run], site, step)
        case Write(prev, view, new):
            return Write(writer.ref(prev), view, value(new))
        case Update(base, view, new, layout, nograd):
            return Update(value(base), view, value(new), layout, nograd)
        case Op(name, args, nograd):
            return Op(name, mapped(args, value), nograd)
        case Apply(name, ref):
            return Apply(name, value(ref))
        case Grad(of, wrt):
            return Grad(value(of), tuple(value(ref) for ref in wrt))
        case Const() | Param():
            return node
        case _:
            raise TypeError(f"a node of kind {type(node).__name__} has no part in a slice")
