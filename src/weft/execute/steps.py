"""A step of a loop: the loss, the metrics and the gradients, by the reference's passes.

Where batches come again, what does not depend on the carried values is computed once for each, and a pass that training
changes begins at the first layer that it changes (`split`). That this gives the same numbers is not taken on trust: the
first step is made whole as well, as the reference would, and if loss or gradients differ every step is made whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from weft.errors import WeftError
from weft.execute.constants import to_tensor
from weft.execute.needed import Uses
from weft.execute.reference import Interpreter
from weft.execute.split import Split, split
from weft.ir.nodes import ConstantData, Experiment, Grad, Loop, Node, Ref, Save, Site, Slot
from weft.models.suffix import layers_are_plain, layers_of

KEPT_BYTES = 1 << 30
"""How much of what batches alone decide is kept from step to step. Nothing is thrown out for a later batch: batches
come round in turn, and the oldest would always be the next one wanted."""

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}


class Given(NamedTuple):
    """What a step has of the tables: its rows' numbers (None: there are no tables) and the rows."""

    rows: tuple[int, ...] | None
    batch: list[torch.Tensor]


class Numbers(NamedTuple):
    """The loss and the metrics, and the gradient at each carried value."""

    results: list[torch.Tensor]
    gradients: list[torch.Tensor]


class Known(NamedTuple):
    """What a batch alone decides: values at the frontier, and what enters the runs that training changes."""

    frontier: dict[int, tuple[Any, ...]]
    entries: dict[int, tuple[int, torch.Tensor]]


class Steps:
    """The steps of one loop on one model."""

    def __init__(self, loaded: Any, loop: Loop, plan: str, recurs: bool) -> None:
        self.loaded, self.loop, self.recurs = loaded, loop, recurs
        self.whole = Experiment(_with_gradients(loop))
        self.slots = [(index, node) for index, node in enumerate(loop.body) if isinstance(node, Slot)]
        self.constants: dict[int, torch.Tensor] = {}
        self.whole_uses = Uses(self.whole)
        self.split = None if plan == "reference" else self._split()
        self.uses: dict[int, Uses] = {}
        self.proven = False
        self.known: dict[tuple[int, ...] | None, Known] = {}
        self.held = 0
        self.work: Counter[str] = Counter()
        self.edits: tuple[int, ...] = (0, 0, 0)
        self.notes: tuple[str, ...] = ()

    def run(self, given: Given, values: list[torch.Tensor]) -> Numbers:
        """The numbers of one step."""
        if self.split is None:
            return self._whole(given, values)
        if not self.recurs:
            return self._lean(given, values)
        if not self.proven:
            return self._prove(given, values)
        return self._short(self.split, given, values)

    def _prove(self, given: Given, values: list[torch.Tensor]) -> Numbers:
        """The first step, made whole; whether the short way gives the same."""
        whole = self._whole(given, values)
        assert self.split is not None
        try:
            short = self._short(self.split, given, values)
            reason = "" if _agree(whole, short) else "a step made from the first changed layer on gave other numbers"
        except (WeftError, RuntimeError, IndexError, TypeError, ValueError, AttributeError) as error:
            reason = f"a step made from the first changed layer on failed ({type(error).__name__})"
        if reason:
            self.split, self.notes = None, (f"as reference   every step: {reason}",)
            self.known.clear()
        self.proven = True
        return whole

    # -- the two ways ---

    def _whole(self, given: Given, values: list[torch.Tensor]) -> Numbers:
        interpreter = self._interpreter(self.whole, self.whole_uses, given, values)
        _advance(interpreter, self.whole_uses)
        self.edits = interpreter._edits()
        return self._numbers(interpreter)

    def _lean(self, given: Given, values: list[torch.Tensor]) -> Numbers:
        """A step of which nothing can be used again: no more of the model than is read, and that once."""
        uses = self._uses(self.whole)
        interpreter = self._interpreter(self.whole, uses, given, values)
        interpreter.lean = True
        _advance(interpreter, uses)
        self.edits = interpreter._edits()
        return self._numbers(interpreter)

    def _short(self, found: Split, given: Given, values: list[torch.Tensor]) -> Numbers:
        known = self.known.get(given.rows) or self._before(found, given, values)
        uses = self._uses(found.step)
        interpreter = self._interpreter(found.step, uses, given, values, known.frontier)
        interpreter.lean, interpreter.entries = True, known.entries
        _advance(interpreter, uses)
        return self._numbers(interpreter)

    def _before(self, found: Split, given: Given, values: list[torch.Tensor]) -> Known:
        """What this batch alone decides, computed now and kept while there is room."""
        saved: dict[str, torch.Tensor] = {}
        if found.frontier or found.entries:
            uses = self._uses(found.before)
            interpreter = self._interpreter(found.before, uses, given, values)
            interpreter.lean = True
            with torch.no_grad():
                _advance(interpreter, uses)
            saved = interpreter.flow.saved
            self._count(interpreter)
        frontier: dict[int, tuple[Any, ...]] = {}
        for ref, name in found.frontier.items():
            outputs = frontier.get(ref.node, ())
            outputs += (None,) * (ref.out + 1 - len(outputs))
            frontier[ref.node] = (*outputs[: ref.out], saved[name], *outputs[ref.out + 1 :])
        known = Known(frontier, {run: (layer, saved[name]) for run, (layer, name) in found.entries.items()})
        size = sum(each.nbytes for each in saved.values())
        if self.held + size <= KEPT_BYTES:
            self.held += size
            self.known[given.rows] = known
        return known

    # -- what they share ---

    def _split(self) -> Split | None:
        if self.loaded.kind != "decoder":
            return None
        by_site = self.loaded.card.by_site

        def order(_: int, site: Site) -> int | None:
            return found[0] if (found := by_site.get(site)) else None

        self.order: Callable[[int, Site], int | None] = order
        layers = len(layers_of(self.loaded)) if layers_are_plain(self.loaded) else 0
        return split(self.whole, len(self.loop.body), order, layers)

    def _uses(self, experiment: Experiment) -> Uses:
        if id(experiment) not in self.uses:
            self.uses[id(experiment)] = Uses(experiment, self.order)
        return self.uses[id(experiment)]

    def _interpreter(
        self,
        experiment: Experiment,
        uses: Uses,
        given: Given,
        values: list[torch.Tensor],
        frontier: dict[int, tuple[Any, ...]] | None = None,
    ) -> Interpreter:
        interpreter = Interpreter(self.loaded, experiment, uses, None, None)
        flow = interpreter.flow
        flow.constant = self._constant
        flow.given = dict(frontier or {})
        for index, slot in self.slots:
            value = values[slot.index] if slot.kind == "carried" else given.batch[slot.index].to(self.loaded.device)
            flow.given[index] = (value,)
        return interpreter

    def _numbers(self, interpreter: Interpreter) -> Numbers:
        saved = interpreter.flow.saved
        self._count(interpreter)
        results = [saved[f"result {n}"].reshape(()) for n in range(len(self.loop.results))]
        return Numbers(results, [saved[f"gradient {n}"] for n in range(len(self.loop.carried))])

    def _count(self, interpreter: Interpreter) -> None:
        self.work.update(interpreter.work)

    def _constant(self, data: ConstantData) -> torch.Tensor:
        if id(data) not in self.constants:
            self.constants[id(data)] = to_tensor(data, self.loaded.device)
        return self.constants[id(data)]


class Projection:
    """What is done to the carried values after each step."""

    def __init__(self, loaded: Any, loop: Loop) -> None:
        self.loaded, self.loop = loaded, loop
        saves = [Save(f"{number}", ref) for number, ref in enumerate(loop.projected)]
        self.experiment = Experiment((*loop.after, *saves))
        self.uses = Uses(self.experiment)

    def __call__(self, values: list[torch.Tensor]) -> None:
        """Replace the values, in place: the optimiser holds these very tensors."""
        if not self.loop.projected:
            return
        interpreter = Interpreter(self.loaded, self.experiment, self.uses, None, None)
        slots = [(index, node) for index, node in enumerate(self.loop.after) if isinstance(node, Slot)]
        with torch.no_grad():
            interpreter.flow.given = {index: (values[slot.index].detach(),) for index, slot in slots}
            interpreter.flow.start()
            for number, value in enumerate(values):
                value.copy_(interpreter.flow.saved[f"{number}"])


def _with_gradients(loop: Loop) -> tuple[Node, ...]:
    """The body, with the loss's gradients and everything that a step gives saved."""
    places = {n.index: Ref(i) for i, n in enumerate(loop.body) if isinstance(n, Slot) and n.kind == "carried"}
    count = len(loop.carried)
    grad = Ref(len(loop.body))
    return (
        *loop.body,
        Grad(loop.results[0], tuple(places[number] for number in range(count))),
        *(Save(f"gradient {number}", Ref(grad.node, number)) for number in range(count)),
        *(Save(f"result {number}", ref) for number, ref in enumerate(loop.results)),
    )


def _agree(whole: Numbers, short: Numbers) -> bool:
    for a, b in zip([*whole.results, *whole.gradients], [*short.results, *short.gradients], strict=True):
        a, b = a.detach(), b.detach()
        largest = float(a.abs().max()) if a.numel() else 0.0
        if a.numel() and not float((a - b).abs().max()) <= TOLERANCE.get(a.dtype, 3e-2) * max(largest, 1e-6):
            return False
    return True


def _advance(interpreter: Interpreter, uses: Uses) -> None:
    """Compute it all; an error's node is named as one of the body's."""
    try:
        interpreter.flow.start()
        interpreter.advance(uses.runs())
    except WeftError as error:
        error.details["body"] = error.details.pop("node", None)
        raise
