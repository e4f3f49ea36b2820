"""The body of a loop as it is traced: the user's loss runs once, and writes down what every step does.

The user's parameters are ordinary tensors, used by name in the user's own code and modules. A torch function mode puts
a traced slot in the place of each, so that whatever is computed of them is part of the program. A batch's values are
slots too; token ids among them can be given to `s.run`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from weft.errors import GradientError, NoValueError, ProgramError, ShapeError
from weft.ir.nodes import Node, Ref, Slot
from weft.ir.types import TensorType
from weft.trace.constants import type_of, version_of
from weft.trace.dispatch import on_function
from weft.trace.factories import FACTORIES, Factories, paused_here
from weft.trace.location import Lines, where
from weft.trace.run import Run, contiguous
from weft.trace.session import Session
from weft.trace.storage import Storage
from weft.trace.tensor import Traced
from weft.trace.values import map_ordinary

if TYPE_CHECKING:
    from weft.trace.model import Model

_GETTERS = {getattr(torch.Tensor, name).__get__ for name in ("T", "mT", "H", "mH", "real", "imag", "data")}
FIXED = (
    "a parameter is changed by the optimiser alone: compute with a copy, x = x.clone(), or give fit(project=...), "
    "which may change it after each step"
)


class Swapping(Factories):
    """The session's mode, with the user's parameters replaced by what they are in the loop."""

    def __init__(self, owner: Any) -> None:
        super().__init__(owner)
        self.slots: dict[int, Traced] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        looks = getattr(func, "__name__", "") == "__get__" and func not in _GETTERS
        if not self.slots or paused_here() or looks or func in FACTORIES:
            return super().__torch_function__(func, types, args, kwargs)
        found: list[Traced] = []

        def swap(x: torch.Tensor) -> torch.Tensor:
            slot = self.slots.get(id(x))
            if slot is None:
                return x
            found.append(slot)
            return slot

        args, kwargs = map_ordinary(args, swap), map_ordinary(kwargs, swap)
        return on_function(func, args, kwargs) if found else super().__torch_function__(func, types, args, kwargs)


class BodySession(Session):
    """The session in which a loss, or a projection, is written."""

    def __init__(self, model: Model, parameters: list[torch.Tensor], fixed: bool) -> None:
        super().__init__(model)
        self._mode = Swapping(self)
        self._tokens: dict[int, dict[str, torch.Tensor]] = {}
        self._batch: dict[int, Traced] = {}
        self.carried = [self._carried(index, each, fixed) for index, each in enumerate(parameters)]

    def _slot(self, kind: str, index: int, type_: TensorType) -> Traced:
        storage = Storage(self.graph, self, self.graph.add(Slot(kind, index)), root_size=type_.shape)
        return Traced(storage, (getattr(torch, type_.dtype), type_.shape, contiguous(type_.shape)))

    def _carried(self, index: int, parameter: torch.Tensor, fixed: bool) -> Traced:
        slot = self._slot("carried", index, type_of(parameter))
        if fixed:
            slot._st.frozen = FIXED
        assert isinstance(self._mode, Swapping)
        self._mode.slots[id(parameter)] = slot
        self.graph.constants[id(parameter), version_of(parameter)] = (parameter, _ref(slot))
        return slot

    def batch(self, index: int, type_: TensorType) -> Traced:
        """The rows of table `index` that a step has."""
        slot = self._slot("batch", index, type_)
        slot._st.frozen = "a batch's own values cannot be changed inside the loss; use a .clone()"
        self._input(slot)
        return slot

    def prompts(self, tokens: Traced, start: Traced, latest: torch.Tensor) -> None:
        """Note that `start` says where each row of `tokens` begins; none begins later than `latest` [rows]."""
        inputs = self._input(tokens)
        inputs["start"] = latest.clone()
        self._stand(inputs["start"], start)

    def _input(self, slot: Traced) -> dict[str, torch.Tensor]:
        """A tensor in the place of a slot that is given to a run: a run's sizes are looked at."""
        known = self._tokens.get(id(slot._st))
        if known is None:
            dtype, size, _ = slot._sig
            known = self._tokens[id(slot._st)] = {"tokens": torch.zeros(size, dtype=dtype)}
            self._stand(known["tokens"], slot)
        return known

    def _stand(self, tensor: torch.Tensor, slot: Traced) -> None:
        self._batch[id(tensor)] = slot
        self.graph.constants[id(tensor), version_of(tensor)] = (tensor, _ref(slot))

    # -- what a session does, in a loop ---

    def run(self, prompts: Any = None, **inputs: torch.Tensor) -> Run:
        """A forward pass of fixed prompts, or of a batch's: `s.run(batch["tokens"])`."""
        if isinstance(prompts, Traced) and id(prompts._st) in self._tokens and not prompts._chain:
            run = self._add_run("tokens", self._of_tokens(prompts), ())
            self.model.apply_edits(run)
            return run
        named = {name: self._tokens[id(x._st)]["tokens"] if self._is_slot(x) else x for name, x in inputs.items()}  # type: ignore[attr-defined]
        if any(named[name] is not inputs[name] for name in inputs):
            run = self._add_run("tensors", named, ())
            self.model.apply_edits(run)
            return run
        return super().run(prompts, **inputs)

    def generate(self, prompts: Any, max_new_tokens: int = 20, **options: Any) -> NoReturn:
        raise ProgramError(
            "a loss cannot generate: no gradient passes through tokens. Generate before fit, and give the texts as data",
            where=where(),
        )

    def _is_slot(self, x: Any) -> bool:
        return isinstance(x, Traced) and id(x._st) in self._tokens and not x._chain

    def _of_tokens(self, prompts: Traced) -> dict[str, torch.Tensor]:
        if prompts.dim() != 2 or prompts.dtype != torch.int64:
            raise ShapeError(
                f"a run takes token ids, int64 [rows, pos]; this column of the data gives {prompts.tensor_type}",
                where=where(),
            )
        return self._tokens[id(prompts._st)]

    def _add_run(self, kind: str, tensors: dict[str, torch.Tensor], options: Any, like: Run | None = None) -> Run:
        run = super()._add_run(kind, tensors, options, like)
        if "tokens" in tensors and id(tensors["tokens"]) in self._batch:
            run.tokens = self._batch[id(tensors["tokens"])]
        if "start" in tensors and id(tensors["start"]) in self._batch:
            run.start = self._batch[id(tensors["start"])]
        return run

    def latest(self, run: Any) -> torch.Tensor:
        """Where rows may begin at the latest: what holds for those holds for all."""
        return run.inputs.get("start", torch.zeros(run.batch, dtype=torch.long))

    def save_as(self, value: Traced, name: str) -> NoReturn:
        raise ProgramError(
            f"nothing is saved inside a loss; return it as a metric: return loss, {{{name!r}: value}} (one number each)",
            where=where(),
        )

    def now(self, value: Traced) -> NoReturn:
        raise NoValueError(
            "inside a loss there are no numbers to look at: it is traced once and run at every step; use torch.where, or "
            "return the value as a metric",
            where=where(),
        )

    def backward(self, scalar: Traced, gradient: Any, inputs: Any) -> NoReturn:
        raise GradientError("fit takes the gradient of what your loss returns; leave .backward() out", where=where())

    # -- tracing ---

    def trace(self, write: Callable[[], Any]) -> Any:
        """Run the user's function once, as a session's block."""
        self.__enter__()
        try:
            return write()
        except BaseException:
            self.state = "failed"
            raise
        finally:
            self._mode.__exit__(None, None, None)
            self.model.sessions.remove(self)

    def close(self) -> tuple[Node, ...]:
        """No more is written: the nodes."""
        self.graph.check_constants()
        self.state = "done"
        return tuple(self.graph.nodes)

    @property
    def lines(self) -> Lines:
        """The user's line of each node."""
        return Lines(tuple(self.graph.places))


def _ref(slot: Traced) -> Ref:
    assert slot._st.ref is not None
    return slot._st.ref


__all__ = ["BodySession"]
