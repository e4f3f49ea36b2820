"""Nothing may depend on its own consequences.

A read depends on every write made in its run at an earlier place of the model; a write depends on the value written.
An experiment is causal when following these dependencies never leads back to where it began.

    frontiers = Frontiers(card)
    frontiers.note(0, node)          # each node as it is appended; CausalityError at the write that closes a circle

`Frontiers` answers at once, and looks back only from a write into a run in which something later has been read
already; `check_causality` answers for a whole program, in linear time whatever the program.

A place is (step, order): the step of a generation (0 in a plain run) and the site's place in the card's order. What is
read or written at each step has step 0: there it depends on the least, and there it must already be causal.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

from weft.errors import CausalityError, Location
from weft.ir.card import Card
from weft.ir.nodes import Node, Read, Site, Write, operands

Place = tuple[int, int]
OrderOf = Callable[[int, Site], int | None]
LAST: Place = (1 << 62, 1 << 62)


class Frontiers:
    """What each write of a growing program depends on. `card` may be a function: (run, site) to the site's order."""

    def __init__(self, card: Card | OrderOf) -> None:
        self._order_of = order_by(card) if isinstance(card, Card) else card
        self._nodes: list[Node] = []
        self._fixed: list[bool] = []  # depends on no run at all; of the nodes that were there when last asked
        self._place: dict[int, tuple[int, Place]] = {}  # of reads and writes: run and place
        self._writes: dict[int, list[tuple[Place, int]]] = {}
        self._latest: dict[int, Place] = {}

    def note(self, index: int, node: Node) -> None:
        """Take in node number `index`; CausalityError, and no change, if it is a write that closes a circle."""
        kind = type(node)
        if kind is not Read and kind is not Write:
            self._nodes.append(node)
            return
        if isinstance(node, Write):
            run, place = self._place[node.prev.node]
            if self._latest[run] > place and (later := self._later(node, run, place)) is not None:
                raise self._error(index, node, later)
        self.add(node)

    def add(self, node: Node) -> None:
        """Take in a node without looking."""
        index = len(self._nodes)
        self._nodes.append(node)
        if isinstance(node, Read):
            place = place_of(self._order_of, node)
            self._place[index] = node.run, place
            self._latest[node.run] = max(self._latest.get(node.run, place), place)
        elif isinstance(node, Write):
            run, place = self._place[index] = self._place[node.prev.node]
            self._writes.setdefault(run, []).append((place, index))

    def _settle(self) -> None:
        """Find out whether the nodes added since are fixed: most programs never ask."""
        fixed = self._fixed
        for node in self._nodes[len(fixed) :]:
            fixed.append(not isinstance(node, Read) and all(fixed[ref.node] for ref in operands(node)))

    def _later(self, write: Write, run: int, place: Place) -> int | None:
        """A read of `run` later than `place` that the value of `write` depends on."""
        self._settle()
        stack, seen, entered = [write.value.node], set[int](), dict[int, Place]()
        while stack:
            index = stack.pop()
            if index in seen or self._fixed[index]:
                continue
            seen.add(index)
            node = self._nodes[index]
            if not isinstance(node, Read):
                stack.extend(ref.node for ref in operands(node))
                continue
            where = self._place[index][1]
            if node.run == run and where > place:
                return index
            before = entered.get(node.run, (-1, -1))
            if where > before:
                entered[node.run] = where
                stack.extend(w for at, w in self._writes.get(node.run, ()) if before <= at < where)
        return None

    def _error(self, index: int, write: Write, later: int) -> CausalityError:
        origin: Node = write
        while isinstance(origin, Write):
            origin = self._nodes[origin.prev.node]
        read = self._nodes[later]
        assert isinstance(origin, Read) and isinstance(read, Read)
        return CausalityError(
            f"this write to {described(origin)} depends on {described(read)} of the same run, which the model computes "
            "later and from what is written here; read it from another run (run.fork() makes one), or write later",
            node=index,
            site=str(origin.site),
            depends_on=str(read.site),
        )

    def explain(self, index: int, write: Write) -> CausalityError:
        """The error of a write already known to close a circle."""
        run, place = self._place[write.prev.node]
        later = self._later(write, run, place)
        assert later is not None
        return self._error(index, write, later)


def order_by(card: Card) -> OrderOf:
    """The order of sites that a card gives; None for the tokens and lengths of a generation, which come last."""
    by_site = card.by_site
    return lambda run, site: found[0] if (found := by_site.get(site)) else None


def place_of(order_of: OrderOf, read: Read) -> Place:
    order = order_of(read.run, read.site)
    return LAST if order is None else (max(read.step or 0, 0), order)


def described(read: Read) -> str:
    """A read's site with its step, as users write it."""
    if read.step is None:
        return str(read.site)
    return f"{read.site} at {f'step {read.step}' if read.step >= 0 else 'each step'}"


class Dependencies:
    """Who depends on whom, as a graph of linear size: nodes by number, and beyond them a link for each written place.

    The links of a run hang together as a chain, and each carries the writes at its place; so a read needs one edge,
    to the last link before it, however many writes there are.
    """

    def __init__(self, nodes: Sequence[Node], order_of: OrderOf) -> None:
        self.nodes = nodes
        self.place: dict[int, tuple[int, Place]] = {}
        at: dict[int, dict[Place, list[int]]] = {}
        for index, node in enumerate(nodes):
            if isinstance(node, Read):
                self.place[index] = node.run, place_of(order_of, node)
            elif isinstance(node, Write):
                run, place = self.place[index] = self.place[node.prev.node]
                at.setdefault(run, {}).setdefault(place, []).append(index)
        self._links: list[list[int]] = []
        self._chains: dict[int, tuple[list[Place], int]] = {}
        for run, writes in at.items():
            places = sorted(writes)
            first = len(nodes) + len(self._links)
            self._chains[run] = places, first
            for number, place in enumerate(places):
                self._links.append([*writes[place], *([first + number - 1] if number else [])])

    def __len__(self) -> int:
        return len(self.nodes) + len(self._links)

    def needs(self, index: int) -> list[int]:
        """What number `index` depends on directly."""
        if index >= len(self.nodes):
            return self._links[index - len(self.nodes)]
        node = self.nodes[index]
        if not isinstance(node, Read):
            return [ref.node for ref in operands(node)]
        if (chain := self._chains.get(node.run)) is None:
            return []
        before = bisect_left(chain[0], self.place[index][1])
        return [chain[1] + before - 1] if before else []


def is_causal(nodes: Sequence[Node], order_of: OrderOf) -> bool:
    """Whether the dependencies have no circle: strip what needs nothing unstripped, until nothing is left."""
    graph = Dependencies(nodes, order_of)
    needs = [graph.needs(index) for index in range(len(graph))]
    wanted_by: list[list[int]] = [[] for _ in needs]
    for index, found in enumerate(needs):
        for need in found:
            wanted_by[need].append(index)
    open_needs = [len(found) for found in needs]
    ready = [index for index, number in enumerate(open_needs) if not number]
    done = 0
    while ready:
        done += 1
        for index in wanted_by[ready.pop()]:
            open_needs[index] -= 1
            if not open_needs[index]:
                ready.append(index)
    return done == len(needs)


def check_causality(
    nodes: Sequence[Node], order_of: OrderOf, where: Callable[[int], Location | None] = lambda index: None
) -> None:
    """CausalityError, naming the first write that closes a circle, unless the program is causal."""
    if is_causal(nodes, order_of):
        return
    low, high = 0, len(nodes)  # nodes[:low] is causal, nodes[:high] is not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_causal(nodes[:middle], order_of) else (low, middle)
    frontiers = Frontiers(order_of)
    for node in nodes[:low]:
        frontiers.add(node)
    write = nodes[low]
    assert isinstance(write, Write)
    raise frontiers.explain(low, write).at(where(low))
