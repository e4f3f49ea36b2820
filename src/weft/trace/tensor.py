"""A traced tensor: a torch.Tensor without data, on which ordinary PyTorch writes the program.

    h = run.resid_post[6]          # Traced float32[2, 7, 64]
    (h @ probe).relu()             # two nodes; shapes are checked now, the numbers come when the block ends

`__torch_function__` sees the call (and turns autograd off: tracing builds no graph), `__torch_dispatch__` sees what the
call comes down to. Views make no node: they only lengthen a chain. After the block a saved tensor stands for its value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch

from weft.errors import GradientError, NotSavedError, NoValueError, OpError, OutsideWriteError
from weft.ir.nodes import Ref, ViewStep
from weft.ir.types import TensorType
from weft.trace.constants import NAMES
from weft.trace.location import where
from weft.trace.storage import Storage

Signature = tuple[torch.dtype, tuple[int, ...], tuple[int, ...]]
"""dtype, size and strides: what the shape of a result depends on."""

_make = torch.Tensor._make_wrapper_subclass
_guard = torch._C._set_throw_on_mutable_data_ptr
"""Code that would reach for the memory itself, which is not there, gets an error instead of an address."""


_calls: list[Callable[[Any, Any, Any], Any]] = []
"""What answers calls: `on_function` and `on_dispatch`, put here by trace.dispatch, which stands on this module."""


def answer_calls(on_function: Callable[[Any, Any, Any], Any], on_dispatch: Callable[[Any, Any, Any], Any]) -> None:
    _calls[:] = [on_function, on_dispatch]


class Traced(torch.Tensor):
    """A value of the experiment: shape and dtype now, numbers after the block."""

    _st: Storage
    _chain: tuple[ViewStep, ...]
    _sig: Signature
    _offset: int
    _real: torch.Tensor | None
    _saved: str | None
    _kept: str | None

    @staticmethod
    def __new__(
        cls: type,
        storage: Storage,
        signature: Signature,
        chain: tuple[ViewStep, ...] = (),
        offset: int = 0,
        real: torch.Tensor | None = None,
    ) -> Traced:
        dtype, size, stride = signature
        self = _make(cls, size, stride, offset, None, dtype)  # by position: by name takes longer
        _guard(self)
        self._st = storage
        self._chain = chain
        self._sig = signature
        self._offset = offset
        self._real = real
        self._saved = None
        self._kept = None
        return self

    # -- what PyTorch calls ---

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _calls[0](func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _calls[1](func, args, kwargs or {})

    # -- weft's own ---

    @property
    def ref(self) -> Ref:
        """The node of this tensor's current version."""
        return self._st.read(self._chain)

    @property
    def tensor_type(self) -> TensorType:
        return TensorType(NAMES[self._sig[0]], tuple(self._sig[1]))

    @property
    def numbers(self) -> torch.Tensor | None:
        """The numbers, where they are known while tracing (made by a factory function, untouched so far)."""
        return self._real if self._st.known is not None else None

    def save(self, name: str | None = None) -> Traced:
        """Keep this value, as it is at this line, as a result: `x.value` and `session.results[name]` after the block."""
        x = self
        if self._saved is not None:  # each save is of its own version: the one before keeps its name and its numbers
            x = Traced(self._st, self._sig, self._chain, self._offset, self._real)
        x._saved = self._st.owner.save(x, name)
        return x

    def keep(self, name: str) -> Traced:
        """Leave this value, as it is at this line, where the model is; later sessions use it, or `model.kept[name]`."""
        self._st.owner.keep(self, name)
        self._kept = name
        return self

    def now(self) -> torch.Tensor:
        """Run what this value needs and give it as an ordinary tensor, in the middle of the block."""
        return self._st.owner.now(self)

    @property
    def value(self) -> torch.Tensor:
        """The numbers, after the block. NotSavedError if the value was not saved, NoValueError inside the block."""
        return resolve(self)

    # -- the doors out of tracing ---

    def backward(
        self, gradient: Any = None, retain_graph: Any = None, create_graph: bool = False, inputs: Any = None
    ) -> None:
        """Give every tensor of yours that requires grad its complete gradient through the model, after the block."""
        if self._st.owner.done:
            raise GradientError("the block has ended; call .backward() inside it", where=where())
        self._st.owner.backward(self, gradient, inputs)

    def item(self) -> Any:
        return resolve(self, "item").item()

    def tolist(self) -> Any:
        return resolve(self, "tolist").tolist()

    def numpy(self, *, force: bool = False) -> Any:
        return resolve(self, "numpy").numpy(force=force)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        array = resolve(self, "numpy").numpy(force=True)
        return array if dtype is None else array.astype(dtype)

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        return torch.from_numpy(array) if getattr(array, "shape", ()) else array

    def __float__(self) -> float:
        return float(resolve(self, "float()"))

    def __int__(self) -> int:
        return int(resolve(self, "int()"))

    def __index__(self) -> int:
        return resolve(self, "an index").__index__()

    def __complex__(self) -> complex:
        return complex(resolve(self, "complex()"))

    def __bool__(self) -> bool:
        return bool(resolve(self, "a condition"))

    def __contains__(self, item: Any) -> bool:
        return item in resolve(self, "in")

    def __format__(self, spec: str) -> str:
        return repr(self) if not spec and value_or_none(self) is None else format(resolve(self, "formatted text"), spec)

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any:
        return resolve(self, "dlpack").__dlpack__(*args, **kwargs)

    def __dlpack_device__(self) -> Any:
        return resolve(self, "dlpack").__dlpack_device__()

    def data_ptr(self) -> int:
        return resolve(self, "data_ptr").data_ptr()

    def __deepcopy__(self, memo: Any) -> Any:
        return resolve(self, "a deep copy").clone()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return resolve(self, "pickling").__reduce_ex__(protocol)

    def __iter__(self) -> Any:
        if self.dim() == 0:
            raise TypeError("iteration over a 0-d tensor")
        return iter(self.unbind(0))

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        value = value_or_none(self)
        if value is not None:
            return repr(value)
        origin = self._st.origin
        what = f"{origin.site} of {origin.run}" if origin is not None and not self._chain else "traced"
        state = f"saved as {self._saved!r}, " if self._saved is not None else ""
        return f"<{what}: {self.tensor_type}, {state}{'not saved' if self._st.owner.done else 'no numbers yet'}>"

    __str__ = __repr__

    def requires_grad_(self, requires_grad: bool = True) -> Traced:  # type: ignore[override]
        if not requires_grad:
            return self
        if self._st.known is not None:
            raise GradientError(
                "a tensor made inside the block has no .grad; make it before the block, or with requires_grad=True "
                "(and modules and parameters before the block)",
                where=where(),
            )
        raise GradientError(
            "a value of the model has no .grad of its own; ask for weft.grad(scalar, [this]) instead", where=where()
        )

    @property
    def data(self) -> torch.Tensor:  # type: ignore[override]
        return self.detach()

    @data.setter
    def data(self, value: Any) -> None:
        raise OpError("assigning .data is not possible on a traced value; write x[...] = value", where=where())

    @property
    def grad(self) -> Any:  # type: ignore[override]
        if self._st.owner.done:
            return None
        raise GradientError("a traced value has no .grad; use weft.grad(scalar, [this])", where=where())

    def retain_grad(self) -> None:
        raise GradientError("use weft.grad(scalar, [this]) for the gradient at a value of the model", where=where())

    def register_hook(self, hook: Any) -> Any:
        raise GradientError("hooks cannot be put on a traced value; use weft.grad(scalar, [this])", where=where())

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """As torch's, except that a device is ignored: a traced value lives with the model."""
        if self._st.owner.done:
            return resolve(self).to(*args, **kwargs)
        dtype, copy = kwargs.get("dtype"), kwargs.get("copy", False)
        if "other" in kwargs:
            dtype = kwargs["other"].dtype
        for arg in args:
            dtype = arg if isinstance(arg, torch.dtype) else arg.dtype if isinstance(arg, torch.Tensor) else dtype
        flags = [arg for arg in args if isinstance(arg, bool)]  # non_blocking, copy
        copy = flags[1] if len(flags) > 1 else copy
        if dtype is None or dtype == self.dtype:
            return self.clone() if copy else self
        return self.type(dtype)

    def cuda(self, *args: Any, **kwargs: Any) -> Any:
        return resolve(self).cuda(*args, **kwargs) if self._st.owner.done else self

    def cpu(self, *args: Any, **kwargs: Any) -> Any:
        return resolve(self).cpu() if self._st.owner.done else self


def value_or_none(x: Traced) -> torch.Tensor | None:
    """The numbers, if there are any to be had."""
    if x._saved is not None and x._st.owner.done and x._saved in x._st.owner.values:
        return x._st.owner.values[x._saved]
    return x.numbers


def resolve(x: Traced, use: str = "a value") -> torch.Tensor:
    """The numbers, or the error that says why there are none and what to do."""
    value = value_or_none(x)
    if value is not None:
        return value
    x._st.owner.check_not_failed()
    if not x._st.owner.done:
        raise NoValueError(
            f"this value ({x.tensor_type}) has no numbers yet, so it cannot be used as {use}: the model runs when the "
            "block ends. Use torch.where(...) instead of if, x.now() to run what it needs here, or .save() it and look "
            "after the block",
            where=where(),
        )
    if not x._st.owner.executes:
        raise NoValueError(
            f"this value ({x.tensor_type}) has no numbers: its session was opened with run=False, so nothing was run. "
            "session.explain() says what running it would take; session.experiment is what to run",
            where=where(),
        )
    if x._kept is not None:
        raise NotSavedError(
            f"this value is kept as {x._kept!r} where the model is, and was not saved; use it in a session, or fetch it "
            f"with model.kept[{x._kept!r}].value",
            where=where(),
        )
    raise NotSavedError(
        f"this value ({x.tensor_type}) was not saved, so its numbers are gone; write .save() on it inside the block",
        where=where(),
    )


def refuse_outside(func: Any) -> NoReturn:
    raise OutsideWriteError(
        "a traced value cannot be written into an ordinary tensor: it has no numbers yet, and PyTorch would copy nothing. "
        "Make the tensor inside the block (torch.zeros(...) there may be filled), torch.stack the values, or .save() them "
        f"and fill the tensor after the block (operation {func})",
        where=where(),
    )


__all__ = ["NAMES", "Signature", "Traced", "refuse_outside", "resolve", "value_or_none"]
