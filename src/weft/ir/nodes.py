"""What an experiment is made of: a list of nodes in the order written.

    experiment ::= node*
    node       ::= run | read | write | op | update | const | param | apply | grad | loop | slot | save | keep
    operand    ::= %n | %n.k                     the (k-th) value of node n, always an earlier node
    site       ::= name[layer] | module(path).input | module(path).output

Every value is immutable. A change in place makes a new value: `write` makes the next version of a site (and the model
goes on with the last one), `update` the next version of any other tensor. Both name the part they change by the chain
of views that leads to it. Nodes carry no shapes: those are derived (`check`), so a program cannot lie about them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, cast

from weft.errors import Location
from weft.ir.types import TensorType

SCHEMA = 1
"""Version of the program's schema; part of the content hash."""

EACH = -1
"""The step of a read or write that stands for every step of a generation."""


class Ref(NamedTuple):
    """An operand: output `out` of node number `node`."""

    node: int
    out: int = 0


@dataclass(frozen=True, slots=True)
class Dtype:
    """A dtype given as an argument, e.g. of `to.dtype`."""

    name: str


class Site(NamedTuple):
    """A named point of the model: `Site("z", 5)`, `Site("module.output", path="transformer.h.5.mlp")`.

    `call` counts the calls of a module that is called more than once; `item` picks one tensor where a module takes or
    gives several ("0", "1", or a keyword's name; "" where there is only one).
    """

    name: str
    layer: int | None = None
    path: str = ""
    call: int = 0
    item: str = ""

    def __str__(self) -> str:
        if self.path:
            call = f".call({self.call})" if self.call else ""
            item = f"[{self.item}]" if self.item else ""
            return f"module({self.path}){call}.{self.name.removeprefix('module.')}{item}"
        return self.name if self.layer is None else f"{self.name}[{self.layer}]"


class ViewStep(NamedTuple):
    """One view in a chain, e.g. `ViewStep("select.int", (1, -1))`: the view op's arguments after the tensor itself."""

    op: str
    args: tuple[Any, ...]  # of int, None or tuple of int


class ConstantData(Protocol):
    """The data of a constant, whoever holds it. `digest` is the SHA-256 of dtype, shape and bytes."""

    @property
    def type(self) -> TensorType: ...
    def tobytes(self) -> bytes: ...
    def digest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Run:
    """One forward pass of a batch (`kind` "tokens", "tensors", "embeddings", …) or a "generate".

    `inputs` are constants by name (for tokens: `tokens` int64 [batch, pos], left-padded, and `start` int64 [batch], the
    first real position of each row, left out where every row is whole). `options` belong to a generation:
    max_new_tokens, temperature, top_p, seed, stop (a tuple of texts and tuples of token ids: a row ends with the first).
    """

    kind: str
    inputs: tuple[tuple[str, Ref], ...]
    options: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class Read:
    """The value of `site` in `run` as the model computes it there, before this run's own writes to that site.

    `step` is None in a plain run, else the generation step (EACH: every step, the last position of each).
    """

    run: int
    site: Site
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """`prev` with the part that `view` leads to replaced by `value`: the next version of a site, which the model uses.

    `prev` is the site's Read, or the last Write to it; `value` has exactly the view's shape and dtype.
    """

    prev: Ref
    view: tuple[ViewStep, ...]
    value: Ref


@dataclass(frozen=True, slots=True)
class Op:
    """A public operation of the table with its arguments in schema order, trailing defaults left out.

    `nograd` marks what was recorded while grad mode was off: no gradient may pass through it.
    """

    name: str
    args: tuple[Any, ...]
    nograd: bool = False


@dataclass(frozen=True, slots=True)
class Update:
    """As Write, for a tensor that is no site. `layout` is the order of dimensions in memory where that is not 0, 1, …"""

    base: Ref
    view: tuple[ViewStep, ...]
    value: Ref
    layout: tuple[int, ...] = ()
    nograd: bool = False


@dataclass(frozen=True, slots=True)
class Const:
    """A tensor of the user's own."""

    data: ConstantData


@dataclass(frozen=True, slots=True)
class Param:
    """A weight of the model by name, as its card lists them: "W_U", "W_O[3]", "param(transformer.wte.weight)"."""

    name: str


@dataclass(frozen=True, slots=True)
class Apply:
    """One of the model's own parts applied to a value: "unembed", "final_norm", "module(path)"."""

    part: str
    arg: Ref


@dataclass(frozen=True, slots=True)
class Grad:
    """The gradients of the scalar `of` with respect to each of `wrt`: one output each."""

    of: Ref
    wrt: tuple[Ref, ...]


@dataclass(frozen=True, slots=True)
class Slot:
    """Inside a loop, what differs from step to step: carried value number `index` as it stands ("carried"), or the
    rows of table number `index` that this step has ("batch")."""

    kind: str
    index: int


@dataclass(frozen=True, slots=True)
class Loop:
    """Training: steps `start` to `steps` - 1, each a gradient step on the carried values.

    A step computes `results` of `body` (the loss, then metrics: one number each), gives the loss's gradient at every
    carried value to the optimiser that `options` describe (`loops.OPTIONS`), and replaces the carried values by
    `projected` of `after`, if there are any. Body and after are numbered each for itself; nothing outside is named.

    `carried` are the values at the beginning; `state` the optimiser's, where the loop goes on with an earlier one
    (`start` above 0). Step t has the rows `order`[t mod k] (int64 [k, rows]) of each of `tables`; no order, no tables.
    Outputs: the carried values, the optimiser's state, the history and the number of steps done (`loops.outputs`).
    """

    body: tuple[Node, ...]
    results: tuple[Ref, ...]
    after: tuple[Node, ...]
    projected: tuple[Ref, ...]
    carried: tuple[Ref, ...]
    state: tuple[Ref, ...]
    tables: tuple[Ref, ...]
    order: tuple[Ref, ...]
    start: int
    steps: int
    options: tuple[tuple[str, object], ...]


@dataclass(frozen=True, slots=True)
class Save:
    """`value` is a result, under `name`."""

    name: str
    value: Ref


@dataclass(frozen=True, slots=True)
class Keep:
    """`value` stays where the model is, under `name`, and is no result."""

    name: str
    value: Ref


Node = Run | Read | Write | Op | Update | Const | Param | Apply | Grad | Loop | Slot | Save | Keep


@dataclass(frozen=True)
class Experiment:
    """Nodes in the order written. `locations` (the user's lines, one a node or none at all) are outside the hash."""

    nodes: tuple[Node, ...]
    locations: Sequence[Location | None] = field(default=(), compare=False)

    def where(self, index: int) -> Location | None:
        """The user's line that wrote node `index`, where it is known."""
        return self.locations[index] if index < len(self.locations) else None


def arg_refs(arg: object) -> Iterator[Ref]:
    """The operands in an argument, nested tuples included."""
    if isinstance(arg, Ref):
        yield arg
    elif isinstance(arg, tuple):
        for item in cast("tuple[object, ...]", arg):
            yield from arg_refs(item)


def operands(node: Node) -> tuple[Ref, ...]:
    """The operands of a node, in order (a Read's run is named by number and is no operand)."""
    return _OPERANDS[type(node)](node)


def _of_op(node: Op) -> tuple[Ref, ...]:
    found: list[Ref] = []
    for arg in node.args:
        if type(arg) is Ref:  # as most are, and a generator for each takes longer than all the rest
            found.append(arg)
        elif isinstance(arg, tuple):
            found.extend(arg_refs(cast("object", arg)))
    return tuple(found)


def _of_run(node: Run) -> tuple[Ref, ...]:
    return tuple([ref for _, ref in node.inputs])


def _of_loop(node: Loop) -> tuple[Ref, ...]:
    return (*node.carried, *node.state, *node.tables, *node.order)


def _none(node: object) -> tuple[Ref, ...]:
    return ()


_OPERANDS: dict[type, Callable[[Any], tuple[Ref, ...]]] = {
    Run: _of_run,
    Op: _of_op,
    Loop: _of_loop,
    Write: lambda node: (node.prev, node.value),
    Update: lambda node: (node.base, node.value),
    Grad: lambda node: (node.of, *node.wrt),
    Apply: lambda node: (node.arg,),
    **dict.fromkeys((Save, Keep), lambda node: (node.value,)),
    **dict.fromkeys((Read, Const, Param, Slot), _none),
}


def all_nodes(nodes: Sequence[Node]) -> Iterator[Node]:
    """The nodes, and those inside loops."""
    for node in nodes:
        yield node
        if isinstance(node, Loop):
            yield from all_nodes(node.body)
            yield from all_nodes(node.after)
