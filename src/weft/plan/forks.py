"""Where each run leaves the unedited run on the same tokens: which layer, and in each row which position.

Decoders are causal: an edit at layer l in positions from p on changes nothing below l and nothing before p. So a run is
its base (the same tokens without edits), and beyond the fork a suffix of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from weft.ir.card import Card
from weft.ir.nodes import Const, Grad, Node, Op, Read, Ref, Run, Site, Write, operands
from weft.plan.looks import Consumers, looked_from
from weft.plan.places import BoxPlace, PairPlace, axes_left, box_of, constants, ints_of, layer_of, pairs_of, queries_of

INSIDE = ("scores", "pattern")
BEFORE_Z = ("q", "k", "v", "q_rot", "k_rot", *INSIDE, "z")
EXPERTS = ("router_logits", "expert_weights", "expert_out")
IN_LAYER = ("q", "k", "v", "z", "head_out", "attn_out", "resid_mid", "mlp_pre", "mlp_post", *EXPERTS, "mlp_out")
PLANNED = frozenset({"embed", "resid_post", "final_norm", "logits", "q_rot", "k_rot", *INSIDE, *IN_LAYER})
"""Standard sites that the engine reads and writes."""


@dataclass(frozen=True, slots=True)
class Fork:
    """One run. Positions count from each row's own start; `first` is a row's length where it has no edit.

    `layer` is the first layer that has to be computed again (the number of layers, if none); `last` the last layer that
    anyone reads of (-1: not even the first), and `half` says that of this one nothing is read that comes after `z`.
    `level` orders runs whose edits need values of other edited runs. `looked` is the first position that is looked at of
    any site that the edits may change (empty: perhaps all of them).
    """

    run: int
    tokens: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    pos: int
    first: tuple[int, ...]
    layer: int
    last: int
    level: int = 0
    grad: bool = False
    half: bool = False
    looked: tuple[int, ...] = ()

    def within(self, at: int) -> bool:
        """Whether all that is looked at, of sites that the edits may change, is of positions that they may change."""
        return bool(self.looked) and self.looked[at] >= self.first[at]

    @property
    def edited(self) -> bool:
        return any(self.own(at) for at in range(len(self.tokens)))

    def own(self, at: int) -> bool:
        """Whether a row has numbers of its own somewhere, which the same tokens without edits do not have."""
        return self.first[at] < len(self.tokens[at])

    def matters(self, layers: int) -> bool:
        """Whether anything is read that an edit may have changed."""
        return self.edited and self.layer <= min(self.last + 1, layers)


@dataclass(frozen=True)
class Asked:
    """What the engine takes on, and why it leaves the rest to the reference."""

    forks: tuple[Fork, ...]
    left: Mapping[int, str]


def place_of_write(
    nodes: Sequence[Node], write: Write, batch: int, pos: int, heads: int | None = None
) -> BoxPlace | PairPlace | None:
    """What a write changes; None for the whole site. With `heads` the site has axes [batch, head, query, key]."""
    if heads is None:
        found, query = box_of(write.view, batch, pos), 1
    else:
        found, query = queries_of(write.view, batch, heads, pos), 2
    if found is None or (len(found.box.rows), len(found.box.positions)) == (batch, pos):
        return _pairs_put(nodes, write, batch, pos, query) or found
    return found


def _pairs_put(nodes: Sequence[Node], write: Write, batch: int, pos: int, query: int) -> PairPlace | None:
    """The places of `x[rows, positions] = v` where x is the site, or what is left of it when other axes are selected."""
    value, axes = nodes[write.value.node], axes_left(write.view, (0, query))
    if not isinstance(value, Op) or value.name != "index_put" or axes is None:
        return None
    seen: object = value.args[0]
    for step in reversed(write.view):
        node = nodes[seen.node] if isinstance(seen, Ref) else None
        if not isinstance(node, Op) or (node.name, node.args[1:]) != step:
            return None
        seen = node.args[0]
    if seen != write.prev:
        return None
    indices = constants(nodes, value.args[1])
    return pairs_of(tuple(indices[at] if at < len(indices) else None for at in axes), batch, pos)


def first_positions(
    nodes: Sequence[Node], write: Write, starts: Sequence[int], pos: int, heads: int | None = None
) -> tuple[int, ...]:
    """The first position that a write changes in each row, from the row's own start; its length where none."""
    batch = len(starts)
    place = place_of_write(nodes, write, batch, pos, heads)
    if place is None:
        return (0,) * batch
    found = [pos - start for start in starts]
    if isinstance(place, BoxPlace):
        pairs = [(row, min(place.box.positions)) for row in place.box.rows] if len(place.box.positions) else []
    else:
        pairs = list(zip(place.rows, place.positions, strict=True))
    for row, position in pairs:
        found[row] = min(found[row], max(0, position - starts[row]))
    return tuple(found)


class Gradients(Protocol):
    """What is known of an experiment's nodes: which are needed at all, which a gradient goes through or is asked for."""

    needed: set[int]
    with_grad: set[int]
    targets: set[Ref]

    def graded(self) -> set[int]:
        """The runs that a gradient passes through."""
        ...


def asked(nodes: Sequence[Node], runs: Sequence[int], uses: Gradients, card: Card) -> Asked:
    """The forks of those runs that the engine can do, in order of level."""
    needed, graded = uses.needed, uses.graded() if uses.with_grad else set[int]()
    twice = any(isinstance(nodes[index], Grad) for index in uses.with_grad)
    reads: dict[int, list[int]] = {run: [] for run in runs}
    writes: dict[int, list[int]] = {run: [] for run in runs}
    root: dict[int, int] = {}
    for index, node in enumerate(nodes):
        if isinstance(node, Read):
            root[index] = index
            if index in needed:
                reads[node.run].append(index)
        elif isinstance(node, Write):
            root[index] = root[node.prev.node]
            read = nodes[root[index]]
            if isinstance(read, Read) and read.run in writes and index in needed:
                writes[read.run].append(index)
    consumers: dict[int, list[int]] = {}
    for index in needed:
        for ref in operands(nodes[index]):
            consumers.setdefault(ref.node, []).append(index)
    left = {run: reason for run in runs if (reason := _unfit(nodes, run, reads[run], card))}
    if twice:
        left.update(dict.fromkeys(graded, "a gradient of a gradient goes through it"))
    levels = _levels(nodes, runs, {run: bool(writes[run]) or run in graded for run in runs}, writes, left)
    begun = {root.get(ref.node, ref.node) for ref in uses.targets}  # of an edited site its read: all of it is asked for
    targets = {run: [index for index in reads[run] if index in begun] for run in runs}
    forks = [
        _fork(nodes, run, reads[run], [*writes[run], *targets[run]], consumers, levels[run], card, run in graded)
        for run in runs
        if run not in left
    ]
    return Asked(tuple(sorted(forks, key=lambda fork: fork.level)), left)


def _unfit(nodes: Sequence[Node], run: int, reads: list[int], card: Card) -> str:
    """Why the engine leaves a run to the reference; "" if it does not."""
    node = nodes[run]
    assert isinstance(node, Run)
    if node.kind != "tokens":
        return f"a run of kind {node.kind!r}"
    for index in reads:
        read = nodes[index]
        assert isinstance(read, Read)
        reason = _raw(read.site, card) if read.site.path else "" if read.site.name in PLANNED else "a site of its own"
        if reason:
            return f"it reads or writes {read.site}, {reason}"
    return ""


def _raw(site: Site, card: Card) -> str:
    """Why a raw module's input or output cannot be had of packed tokens; "" if it can."""
    spec = card.by_site[site][1]
    if spec.axes[:2] != ("batch", "pos") or spec.dtype != card.dtype:
        return "which has no row for each token"
    if site.call or site._replace(call=1) in card.by_site:
        return "whose module is called more than once"
    if layer_of(card, site) >= card.sizes["n_layers"]:
        return "which comes after the layers"
    return ""


def _site(nodes: Sequence[Node], index: int) -> Site:
    node = nodes[index]
    while isinstance(node, Write):
        node = nodes[node.prev.node]
    assert isinstance(node, Read)
    return node.site


def _levels(
    nodes: Sequence[Node],
    runs: Sequence[int],
    own: Mapping[int, bool],
    writes: Mapping[int, list[int]],
    left: dict[int, str],
) -> dict[int, int]:
    """How many edited runs have to come before each run; runs that need one another are left to the reference."""
    needs = {run: _needed_runs(nodes, writes[run], run) for run in runs}
    levels: dict[int, int] = {}
    pending = [run for run in runs if run not in left]
    while pending:
        ready = [run for run in pending if all(n in levels for n in needs[run])]
        if not ready:
            for run in pending:
                left[run] = "its edits wait for a run that waits for it, or for one left to the reference"
            break
        for run in ready:
            levels[run] = max((levels[n] + own[n] for n in needs[run]), default=0)
        pending = [run for run in pending if run not in levels]
    return levels


def _needed_runs(nodes: Sequence[Node], writes: list[int], run: int) -> set[int]:
    """The other runs whose values are written into this one."""
    found: set[int] = set()
    stack = [ref.node for index in writes for ref in operands(nodes[index])]
    seen: set[int] = set()
    while stack:
        index = stack.pop()
        if index in seen:
            continue
        seen.add(index)
        node = nodes[index]
        if isinstance(node, Read):
            if node.run != run:
                found.add(node.run)
            continue
        stack.extend(ref.node for ref in operands(node))
    return found


def _fork(
    nodes: Sequence[Node],
    run: int,
    reads: list[int],
    changed: list[int],
    consumers: Consumers,
    level: int,
    card: Card,
    grad: bool,
) -> Fork:
    """`changed` are the writes, and the reads that a gradient starts from: it begins a graph there, in all positions."""
    node = nodes[run]
    assert isinstance(node, Run)
    inputs = dict(node.inputs)
    tokens, starts, pos = _tokens(nodes, inputs)
    layers = card.sizes["n_layers"]
    first = [len(row) for row in tokens]
    layer = layers
    for index in changed:
        write, site = nodes[index], _site(nodes, index)
        if isinstance(write, Write) and site.name == "logits":  # nothing in the model comes after them
            continue
        heads = card.sizes["n_heads"] if site.name in INSIDE else None
        found = first_positions(nodes, write, starts, pos, heads) if isinstance(write, Write) else (0,) * len(tokens)
        first = [min(pair) for pair in zip(first, found, strict=True)]
        layer = min(layer, _first_layer(site, card))
    sites = {index: _site(nodes, index) for index in reads}
    last = max((_last_layer(site, card) for site in sites.values()), default=-1)
    half = last >= 0 and all(_before_z(site, card) for site in sites.values() if layer_of(card, site) >= last)
    after = [index for index, site in sites.items() if layer_of(card, site) >= layer - 1]
    looked = _looked(nodes, consumers, [(index, sites[index]) for index in after], starts, pos)
    return Fork(run, tokens, starts, pos, tuple(first), layer, last, level, grad, half, looked)


def _before_z(site: Site, card: Card) -> bool:
    return site.name in BEFORE_Z and layer_of(card, site) < card.sizes["n_layers"]


def _looked(
    nodes: Sequence[Node], consumers: Consumers, reads: list[tuple[int, Site]], starts: tuple[int, ...], pos: int
) -> tuple[int, ...]:
    """The first position looked at in each row, from its own start, of all these reads; () where it is not known."""
    if any(site.name in INSIDE or site.path for _, site in reads):
        return ()
    found = [pos] * len(starts)
    for index, _ in reads:
        least = looked_from(nodes, consumers, index, len(starts), pos)
        found = [min(pair) for pair in zip(found, least, strict=True)]
    return tuple(max(0, least - start) for least, start in zip(found, starts, strict=True))


def _tokens(
    nodes: Sequence[Node], inputs: Mapping[str, Ref]
) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...], int]:
    constant = nodes[inputs["tokens"].node]
    assert isinstance(constant, Const)
    batch, pos = constant.data.type.shape
    flat = memoryview(constant.data.tobytes()).cast("q").tolist()
    starts = [0] * batch
    if "start" in inputs:
        given = nodes[inputs["start"].node]
        assert isinstance(given, Const)
        starts = ints_of(given.data) or starts
    rows = tuple(tuple(flat[row * pos + starts[row] : (row + 1) * pos]) for row in range(batch))
    return rows, tuple(starts), pos


def _first_layer(site: Site, card: Card) -> int:
    return layer_of(card, site) + 1 if site.name == "resid_post" else max(layer_of(card, site), 0)


def _last_layer(site: Site, card: Card) -> int:
    return min(layer_of(card, site), card.sizes["n_layers"] - 1)


__all__ = ["Asked", "Fork", "asked", "first_positions", "place_of_write"]
