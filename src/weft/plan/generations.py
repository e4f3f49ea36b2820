"""Which generations can be decoded together, and when: in turns with the runs that are left to the reference.

All generations of a turn take their steps side by side: step t of all of them is one pass, whose sites come in the model's
order. So a generation may take a value of another one of its turn if that comes no later, at a step and a site, than the
place where it is written. Values of anything else have to be there when the turn begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

from weft.ir.card import Card
from weft.ir.causality import LAST, Place
from weft.ir.nodes import Node, Read, Run, Site, Write, operands
from weft.plan.forks import IN_LAYER
from weft.plan.places import layer_of

OUTPUTS = ("tokens", "lengths")
DECODED = frozenset({"embed", "resid_post", "q_rot", "k_rot", "final_norm", "logits", *IN_LAYER})
"""Standard sites that generations decoded together read and write."""
WAITS = "it waits for a run that waits for it, or for one left to the reference"


@dataclass(frozen=True, slots=True)
class Turn:
    """Runs whose turn it is: generations decoded side by side (`together`), or runs as the reference runs them.

    Those of one of the `groups` have to step together; different ones need nothing of each other.
    """

    groups: tuple[tuple[int, ...], ...]
    together: bool


class Turns(NamedTuple):
    """What comes after what, and why runs are as the reference runs them."""

    turns: tuple[Turn, ...]
    left: Mapping[int, str]


class Need(NamedTuple):
    """A value of another run that is written at a place of this one."""

    run: int
    place: Place
    written: Place


@dataclass(frozen=True)
class Program:
    """The program as far as turns need it: each run's needed reads and writes, the card, and the nodes that gradients go
    through. `reason`: why this model's
    generations are not decoded together; "" if they are."""

    nodes: Sequence[Node]
    reads: Mapping[int, Sequence[int]]
    writes: Mapping[int, Sequence[int]]
    card: Card
    with_grad: Set[int] = frozenset()
    reason: str = ""

    def unfit(self, run: int) -> str:
        """Why a generation cannot be decoded together with others; "" if it can."""
        node = self.nodes[run]
        assert isinstance(node, Run)
        if node.kind != "generate" or not {name for name, _ in node.inputs} <= {"tokens", "start"}:
            return f"a run of kind {node.kind!r}"
        if self.reason:
            return self.reason
        if not self.with_grad.isdisjoint((*self.reads[run], *self.writes[run])):
            return "a generation that a gradient goes through"
        for index in self.reads[run]:
            read = self.nodes[index]
            assert isinstance(read, Read)
            if not self._can_read(read.site):
                return f"a generation that reads or writes {read.site}"
        return ""

    def _can_read(self, site: Site) -> bool:
        """Whether a site can be had of packed tokens; of raw modules those inside layers that are called once can."""
        if not site.path:
            return site.name in DECODED or site.name in OUTPUTS
        spec = self.card.by_site[site][1]
        once = not site.call and site._replace(call=1) not in self.card.by_site
        a_row_each = spec.axes[:2] == ("batch", "pos") and spec.dtype == self.card.dtype
        return once and a_row_each and 0 <= layer_of(self.card, site) < self.card.sizes["n_layers"]

    def needs(self, run: int) -> list[Need]:
        """The values of other runs that are written into this one."""
        found: list[Need] = []
        for index in self.writes[run]:
            root = self.nodes[index]
            while isinstance(root, Write):
                root = self.nodes[root.prev.node]
            assert isinstance(root, Read)
            written = self.place(root)
            found += [Need(read.run, self.place(read), written) for read in self._behind(index) if read.run != run]
        return found

    def place(self, read: Read) -> Place:
        """Step and site; what is read at each step comes at the first of them."""
        if read.site.name in OUTPUTS and not read.site.path:
            return LAST
        order = self.card.by_site[read.site][0] if read.site in self.card.by_site else LAST[1]
        return max(read.step or 0, 0), order

    def _behind(self, index: int) -> list[Read]:
        """The reads that a node's value comes from."""
        found, seen, stack = list[Read](), set[int](), [index]
        while stack:
            at = stack.pop()
            if at in seen:
                continue
            seen.add(at)
            node = self.nodes[at]
            if isinstance(node, Read):
                found.append(node)
            else:
                stack.extend(ref.node for ref in operands(node))
        return found


def turns(program: Program, left: Mapping[int, str], done: Set[int]) -> Turns:
    """The order of the runs that the engine leaves, when those `done` have been run."""
    reasons = {run: program.unfit(run) if _generates(program.nodes[run]) else reason for run, reason in left.items()}
    needs = {run: program.needs(run) for run in left}
    pending, past, found = list(left), set(done), list[Turn]()
    while pending:
        ready = [run for run in pending if reasons[run] and all(need.run in past for need in needs[run])]
        together = not ready
        if together:
            ready = _together([run for run in pending if not reasons[run]], needs, past)
        if not ready:
            break
        found.append(Turn(_groups(ready, needs) if together else (tuple(ready),), together))
        past.update(ready)
        pending = [run for run in pending if run not in past]
    if pending:  # the reference goes to and fro between them
        found.append(Turn((tuple(pending),), False))
        reasons |= {run: WAITS for run in pending if not reasons[run]}
    return Turns(tuple(found), {run: reason for run, reason in reasons.items() if reason})


def _together(runs: list[int], needs: Mapping[int, Sequence[Need]], past: Set[int]) -> list[int]:
    """The most generations that need nothing but what is past or comes in time in one of themselves."""
    while True:
        kept = [
            run
            for run in runs
            if all(need.run in past or (need.run in runs and need.place <= need.written) for need in needs[run])
        ]
        if len(kept) == len(runs):
            return kept
        runs = kept


def _groups(runs: list[int], needs: Mapping[int, Sequence[Need]]) -> tuple[tuple[int, ...], ...]:
    """Runs that need one another, directly or through others, in one group each."""
    of = {run: {run} for run in runs}
    for run in runs:
        for need in needs[run]:
            if need.run in of and of[need.run] is not of[run]:
                of[run] |= of[need.run]
                for member in of[need.run]:
                    of[member] = of[run]
    return tuple(tuple(sorted(group)) for group in {min(group): group for group in of.values()}.values())


def _generates(node: Node) -> bool:
    return isinstance(node, Run) and node.kind == "generate"


__all__ = ["OUTPUTS", "Need", "Program", "Turn", "Turns", "turns"]
