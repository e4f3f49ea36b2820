"""Whether an experiment is legal for a model, and the types of all its values. Nothing is run, and no torch is needed.

    checked = check(experiment, card)
    checked.types[4]        # (float32[2, 64],): one type for each output of node 4

Structure, shapes, dtypes, sites, views, options, gradients, causality, memory and work are checked, in time linear in
the size of the program. Every error names the node and points at the user's line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NoReturn, cast

from weft.errors import DtypeError, GradientError, ModelError, OpError, ProgramError, ShapeError, SiteError, WeftError
from weft.ir import views
from weft.ir.card import Card
from weft.ir.causality import Dependencies, check_causality
from weft.ir.complete import Gradients, shown
from weft.ir.limits import DEFAULT, Limits, hold
from weft.ir.loops import Given, Inside, check_loop
from weft.ir.nodes import (
    EACH,
    Apply,
    Const,
    ConstantData,
    Experiment,
    Grad,
    Keep,
    Loop,
    Node,
    Op,
    Param,
    Read,
    Ref,
    Run,
    Save,
    Site,
    Slot,
    Update,
    ViewStep,
    Write,
    operands,
)  # fmt: skip
from weft.ir.optable import infer, spec_of
from weft.ir.runs import OUTPUTS, Extremes, RunInfo, check_run, read_type, site_spec
from weft.ir.types import TensorType
from weft.ir.wire import KIND_OF

Types = tuple[TensorType, ...]
CardFor = Callable[[Mapping[str, TensorType]], Card]
SiteKey = tuple[int, Site, int | None]


@dataclass(frozen=True)
class Checked:
    """What checking found: the types of each node's outputs, its runs by node, and what the experiment takes.

    `total_bytes` is the size of all values together, views not counted; `flops` the work outside the model;
    `layer_tokens` layers × rows × positions over all runs.
    """

    types: tuple[Types, ...]
    runs: dict[int, RunInfo]
    total_bytes: int
    flops: int
    layer_tokens: int


def check(experiment: Experiment, card: Card, limits: Limits = DEFAULT, *, card_for: CardFor | None = None) -> Checked:
    """The types of all values, or the error of the first node that is not legal.

    `card_for` gives the card for a run's input types, for models whose sites depend on them (raw modules).
    """
    hold(limits, "nodes", len(experiment.nodes))
    checker = _Checker(experiment, card, limits, card_for)
    checker.take_all()
    return checker.result()


class _Checker:
    """Goes through the nodes once, in order, knowing the types of all before."""

    def __init__(self, experiment: Experiment, card: Card, limits: Limits, card_for: CardFor | None) -> None:
        self.experiment, self.nodes = experiment, experiment.nodes
        self.card, self.limits, self.card_for = card, limits, card_for
        self.slots: Mapping[tuple[str, int], Given] = {}  # inside a loop
        self.types: list[Types] = []
        self.each: list[int | None] = []  # the generation of whose every step a value is
        self.runs: dict[int, RunInfo] = {}
        self.site: dict[int, SiteKey] = {}  # of reads and writes
        self.reads: dict[SiteKey, int] = {}
        self.version: dict[SiteKey, int] = {}  # the last write
        self.written: dict[tuple[int, Site], int | None] = {}  # the step kind (EACH or not) of a site's writes
        self.saved: set[str] = set()
        self.kept: set[str] = set()
        self.extremes: Extremes = {}
        self.current: int | None = None  # `each` of the node being taken
        self.values = self.total_bytes = self.flops = self.layer_tokens = 0

    def take_all(self) -> None:
        """Check every node, and then what only the whole program shows."""
        for index, node in enumerate(self.nodes):
            try:
                self.take(index, node)
            except Exception as error:  # a rule that stumbles over hostile arguments must not take the service with it
                raise _located(error, index, node, self.experiment) from None
        check_causality(self.nodes, self.order_of, self.experiment.where)
        self.check_gradients()

    def take(self, index: int, node: Node) -> None:
        """Check one node and note the types of its outputs."""
        for ref in operands(node):
            if not 0 <= ref.node < index:
                raise ProgramError(f"operand {shown(ref)} is not an earlier node")
            if not 0 <= ref.out < len(self.types[ref.node]):
                self._no_output(ref)
        each = self.current = self._each(node)
        fresh = _RULES[type(node)](self, index, node)
        self.each.append(each)
        self._count(self.types[index], fresh)

    def check_gradients(self) -> None:
        """The gradients' completeness, once the whole program is known to be causal."""
        if any(isinstance(node, Grad) for node in self.nodes):
            graph = Dependencies(self.nodes, self.order_of)
            Gradients(graph, self.types, self.limits).check_all(
                lambda error, index: _located(error, index, self.nodes[index], self.experiment)
            )

    def order_of(self, run: int, site: Site) -> int | None:
        found = self.runs[run].card.by_site.get(site)
        return found[0] if found else None

    def result(self) -> Checked:
        return Checked(tuple(self.types), self.runs, self.total_bytes, self.flops, self.layer_tokens)

    def type(self, ref: Ref) -> TensorType:
        return self.types[ref.node][ref.out]

    # -- one rule a kind: notes the types, says whether the outputs take memory of their own ---------------------------

    def run(self, index: int, node: Run) -> bool:
        inputs: dict[str, ConstantData] = {}
        for name, ref in node.inputs:
            const = self.nodes[ref.node]
            if name in inputs:
                raise ProgramError(f"the input {name[:40]!r} is given twice")
            if isinstance(const, Slot) and const.kind == "batch":
                inputs[name] = self.slots[const.kind, const.index]
                continue
            if not isinstance(const, Const):
                raise ProgramError(f"the input {name[:40]!r} must be a constant, not {shown(ref)}")
            inputs[name] = const.data
        card = self.card_for({name: data.type for name, data in inputs.items()}) if self.card_for else self.card
        info = self.runs[index] = check_run(node, inputs, card, self.limits, self.extremes)
        self.layer_tokens += info.layer_tokens
        hold(self.limits, "layer_tokens", self.layer_tokens)
        self.types.append(())
        return False

    def read(self, index: int, node: Read) -> bool:
        if node.run not in self.runs:
            raise ProgramError(f"%{node.run} is read as a run, but is no earlier run")
        self._short(node.site.name, node.site.path, node.site.item)
        key = node.run, node.site, node.step
        if (before := self.reads.setdefault(key, index)) != index:
            raise ProgramError(f"{node.site} of run %{node.run} is read already by %{before}: use that node's value")
        self.site[index] = key
        self.types.append((read_type(self.runs[node.run], node.site, node.step),))
        return True

    def write(self, index: int, node: Write) -> bool:
        key = self.site.get(node.prev.node)
        if key is None:
            raise ProgramError(f"{shown(node.prev)} is no site: a write begins at a read or at the last write to it")
        last = self.version.get(key)
        if last is not None and last != node.prev.node:
            raise ProgramError(f"a write begins at the site's last version, here %{last}, not at {shown(node.prev)}")
        self._writable(index, *key)
        self._one_each(node, key)
        self._fits(node.prev, (), node.view, node.value)
        self.site[index], self.version[key] = key, index
        self.types.append((self.type(node.prev),))
        return True

    def op(self, index: int, node: Op) -> bool:
        self._short(node.name)
        args = cast("tuple[Any, ...]", self._with_types(node.args))
        outputs = infer(node.name, args)
        spec = spec_of(node.name)
        self.flops += spec.cost(spec.bind(args), outputs) * self._steps()
        hold(self.limits, "flops", self.flops)
        self.types.append(outputs)
        return spec.alias != "view"

    def update(self, index: int, node: Update) -> bool:
        base = self.type(node.base)
        if node.layout and sorted(node.layout) != list(range(len(base.shape))):
            raise ProgramError(f"layout {node.layout} is no order of the {len(base.shape)} dimensions of {base}")
        self._fits(node.base, node.layout, node.view, node.value)
        self.types.append((base,))
        return True

    def const(self, index: int, node: Const) -> bool:
        self.types.append((node.data.type,))
        return True

    def param(self, index: int, node: Param) -> bool:
        self._short(node.name)
        found = self.card.params.get(node.name)
        if found is None:
            raise ModelError(f"{self.card.name} has no weight {node.name!r}" + _near(node.name, self.card.params))
        self.types.append((found,))
        return False

    def apply(self, index: int, node: Apply) -> bool:
        self._short(node.part)
        part, given = self.card.by_part.get(node.part), self.type(node.arg)
        if part is None:
            raise ModelError(f"{self.card.name} has no part {node.part!r}" + _near(node.part, self.card.by_part))
        if given.dtype != part.dtype:
            raise DtypeError(f"{part.name} takes {part.dtype}, was given {given}; use .to(torch.{part.dtype})")
        if not given.shape or given.shape[-1] != part.d_in:
            raise ShapeError(f"{part.name} takes […, {part.d_in}], was given {given}")
        self.types.append((TensorType(part.dtype, (*given.shape[:-1], part.d_out)),))
        return True

    def grad(self, index: int, node: Grad) -> bool:
        of = self.type(node.of)
        if of.numel != 1 or of.category != "float":
            raise GradientError(f"a gradient is taken of one floating-point number, not of {of}")
        if not node.wrt:
            raise GradientError("a gradient needs at least one target")
        for ref in node.wrt:
            if self.type(ref).category != "float":
                raise GradientError(f"the target {shown(ref)}, {self.type(ref)}, is not floating point and has none")
        if self.current is not None:
            raise GradientError("a gradient through a generation is not supported")
        self.types.append(tuple(self.type(ref) for ref in node.wrt))
        return True

    def save(self, index: int, node: Save) -> bool:
        check_name(node.name, self.limits)
        if node.name in self.saved:
            raise ProgramError(f"a result named {node.name!r} is saved already; choose another name")
        self.saved.add(node.name)
        self.types.append(())
        return False

    def keep(self, index: int, node: Keep) -> bool:
        check_name(node.name, self.limits)
        if node.name in self.kept:
            raise ProgramError(f"a value named {node.name!r} is kept already; choose another name")
        self.kept.add(node.name)
        self.types.append(())
        return False

    def slot(self, index: int, node: Slot) -> bool:
        found = self.slots.get((node.kind, node.index))
        if found is None:
            raise ProgramError(f"slot {node.kind[:20]} {node.index} is in no loop that has it")
        self.types.append((found.type,))
        return False

    def loop(self, index: int, node: Loop) -> bool:
        for at, other in enumerate(self.nodes):
            if at != index and not isinstance(other, Const | Save):
                raise ProgramError(
                    f"node {at} is a {KIND_OF[type(other)]}: an experiment with a loop has besides it constants and saves "
                    "alone; what the loop needs of the model belongs into its body"
                )
        found, body = check_loop(node, self.type, self._data, self._inside, self.limits)
        steps = node.steps - node.start
        self.flops += body.flops * 3 * steps  # a gradient takes about twice as much as the value
        self.layer_tokens += body.layer_tokens * steps
        hold(self.limits, "flops", self.flops)
        hold(self.limits, "layer_tokens", self.layer_tokens)
        self.types.append(found.types)
        return True

    def _data(self, ref: Ref) -> ConstantData:
        const = self.nodes[ref.node]
        if not isinstance(const, Const):
            raise ProgramError(f"{shown(ref)} must be a constant: a loop takes its rows of it")
        return const.data

    def _inside(self, nodes: tuple[Node, ...], slots: Mapping[tuple[str, int], Given]) -> Inside:
        """Check what is inside a loop, as a program of its own."""
        hold(self.limits, "nodes", len(self.nodes) + len(nodes))
        inner = _Checker(Experiment(nodes), self.card, self.limits, self.card_for)
        inner.slots = slots
        try:
            inner.take_all()
        except WeftError as error:
            error.details["body"] = error.details.pop("node", None)
            raise
        return Inside(tuple(inner.types), inner.flops, inner.layer_tokens)

    # -- what the rules share -----------------------------------------------------------------------------------------

    def _each(self, node: Node) -> int | None:
        """The generation of whose every step the node's value is, if it is one."""
        if isinstance(node, Read):
            return node.run if node.step == EACH else None
        found = {self.each[ref.node] for ref in operands(node)} - {None}
        if len(found) > 1:
            raise ProgramError("values at each step of two different generations cannot be combined")
        return found.pop() if found else None

    def _steps(self) -> int:
        return 1 if self.current is None else self.runs[self.current].steps

    def _no_output(self, ref: Ref) -> NoReturn:
        count = len(self.types[ref.node])
        if not count:
            raise ProgramError(f"operand {shown(ref)} is a {KIND_OF[type(self.nodes[ref.node])]}, which has no value")
        raise ProgramError(f"operand %{ref.node}.{ref.out}: node {ref.node} has outputs 0 to {count - 1}")

    def _with_types(self, arg: object) -> object:
        kind = type(arg)
        if kind is Ref:
            return self.type(cast("Ref", arg))
        if kind is tuple:
            return tuple([self._with_types(item) for item in cast("tuple[object, ...]", arg)])
        if kind is str:
            self._short(cast("str", arg))
        return arg

    def _short(self, *names: str) -> None:
        for name in names:
            if len(name) > self.limits.name_length:
                hold(self.limits, "name_length", len(name))

    def _writable(self, index: int, run: int, site: Site, step: int | None) -> None:
        if self.runs[run].steps and site.name in OUTPUTS and not site.path:
            raise SiteError(f"the {site.name} of a generation cannot be written; write the logits of its steps")
        if not site_spec(self.runs[run].card, site).writable:
            raise SiteError(f"{site} can be read but not written: the model does not compute anything from it")
        if self.written.setdefault((run, site), step == EACH) != (step == EACH):
            raise ProgramError(
                f"{site} is written both at each step and at one step of the same generation, in no certain order; "
                "write it at g.step(i) for every i, or at g.each alone"
            )

    def _one_each(self, node: Write, key: SiteKey) -> None:
        each = self.each[node.value.node]
        if each is not None and (key[2] != EACH or key[0] != each):
            raise ProgramError("a value at each step of a generation is written only at each step of the same one")

    def _fits(self, base: Ref, layout: tuple[int, ...], steps: tuple[ViewStep, ...], value: Ref) -> None:
        """The value has exactly the type of the part that the views lead to, which meets no element twice."""
        whole, given = self.type(base), self.type(value)
        for step in steps:
            self._short(step.op)
        view = views.apply_chain(whole.shape, layout, steps)
        part = TensorType(whole.dtype, tuple(view.sizes))
        if given.dtype != part.dtype:
            raise DtypeError(f"the part written is {part}, the value {given}; use .to(torch.{part.dtype})")
        if given != part:
            raise ShapeError(f"the part written is {part}, the value {given}")
        if overlaps(view.sizes, view.strides):
            raise ProgramError(f"the part written, {part}, meets the same element more than once; write to a clone")

    def _count(self, outputs: Types, fresh: bool) -> None:
        limits, steps = self.limits, self._steps()
        self.values += len(outputs)
        for type_ in outputs:
            numel, nbytes = type_.numel, type_.nbytes * steps
            if numel > limits.value_numel or nbytes > limits.value_bytes:
                hold(limits, "value_numel", numel)
                hold(limits, "value_bytes", nbytes)
            if fresh:
                self.total_bytes += nbytes
        if self.values > limits.values or self.total_bytes > limits.total_bytes:
            hold(limits, "values", self.values)
            hold(limits, "total_bytes", self.total_bytes)


_RULES: dict[type, Callable[[_Checker, int, Any], bool]] = {
    Run: _Checker.run, Read: _Checker.read, Write: _Checker.write, Op: _Checker.op, Update: _Checker.update,
    Const: _Checker.const, Param: _Checker.param, Apply: _Checker.apply, Grad: _Checker.grad, Loop: _Checker.loop,
    Slot: _Checker.slot, Save: _Checker.save, Keep: _Checker.keep,
}  # fmt: skip


def check_name(name: str, limits: Limits = DEFAULT) -> None:
    """ProgramError unless `name` can name a result: it becomes part of a file and of an address."""
    hold(limits, "name_length", len(name))
    if not name or name in (".", "..") or not name.isprintable() or "/" in name or "\\" in name:
        raise ProgramError(
            f"{name!r} cannot name a result: use at least one character, and no slashes, control characters or '..'"
        )


def overlaps(sizes: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether some element might be met twice: each stride must pass over all that the smaller ones cover."""
    if 0 in sizes:
        return False
    covered = 0
    for stride, size in sorted((stride, size) for stride, size in zip(strides, sizes, strict=True) if size > 1):
        if stride <= covered:
            return True
        covered += stride * (size - 1)
    return False


def _near(name: str, known: Mapping[str, object]) -> str:
    near = get_close_matches(name[:120], known, n=3)
    return f"; near it: {', '.join(near)}" if near else ""


def _located(error: Exception, index: int, node: Node, experiment: Experiment) -> WeftError:
    """The error with the node's number and kind before its message, pointing at the user's line."""
    kind = KIND_OF.get(type(node), type(node).__name__)
    label = f"{kind} {node.name[:60]}" if isinstance(node, Op | Save | Keep | Param) else kind
    if isinstance(node, Read):
        label = f"read {str(node.site)[:60]}"
    if not isinstance(error, WeftError):
        error = OpError(f"these arguments cannot be checked ({type(error).__name__}: {str(error)[:200]})")
    where, details = error.where or experiment.where(index), {**error.details, "node": index}
    return type(error)(f"node {index} ({label}): {error.message}", where=where, **details)
