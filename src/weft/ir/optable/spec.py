"""What a row of the op table is, and how its arguments are read.

A row is one public aten overload. Its signature is written as in PyTorch's own schemas, without the arguments that have
no meaning here (devices, layouts, memory formats):

    op("softmax.int", "tensor self, int dim, dtype? dtype=None", rule, …)

Kinds of argument: tensor, tensors (a tuple), int, ints (a tuple), float, number (int, float or bool), bool, str, dtype;
a `?` allows None (in `tensors?` the members may be None). Rules see every argument, defaults filled in.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from weft.errors import LimitError, OpError
from weft.ir.nodes import Dtype
from weft.ir.optable.rows import MIXED, Rows
from weft.ir.types import DTYPES, TensorType

MAX_NUMEL = 2**48
"""No tensor larger than this is even reasoned about; real limits are far lower (weft.ir.limits)."""


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED = _Required()


class Param(NamedTuple):
    """One argument of an op: its name, its kind, its default (REQUIRED where it has none)."""

    name: str
    kind: str
    default: Any = REQUIRED


class Index(NamedTuple):
    """The values of operand `param` count along dimension `dim` of operand `of`, and are checked before the op runs.

    `dim` is a number, the name of an int argument, "position" (of the tensor in its list), "flat" (all of `of`), or
    "class" (dimension 1, or 0 where there is no batch). `size` names an int argument that is the length instead.
    `negative` says whether counting from the end is allowed; `ignore` names an int argument whose value is always
    allowed.
    """

    param: str
    of: str = "self"
    dim: int | str = "dim"
    negative: bool = False
    ignore: str = ""
    size: str = ""


Types = TensorType | tuple[TensorType, ...]
Cost = Callable[[tuple[Any, ...], tuple[TensorType, ...]], int]


@dataclass(frozen=True, slots=True)
class OpSpec:
    """One row of the table. `outputs` is the number of outputs, None where the arguments decide it.

    `alias` is "view" where the result may share the first operand's memory, else "fresh".
    """

    name: str
    params: tuple[Param, ...]
    rule: Callable[..., Types]
    outputs: int | None
    alias: str
    cost: Cost
    rows: Rows
    index: tuple[Index, ...]

    def bind(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """All arguments in order, defaults filled in; OpError where one is missing, superfluous or of another kind."""
        params = self.params
        if len(args) > len(params):
            raise OpError(f"{self.name} takes at most {len(params)} arguments, was given {len(args)}: {self.signature}")
        bound: list[Any] = []
        for position, param in enumerate(params):
            value = args[position] if position < len(args) else param.default
            if value is REQUIRED:
                raise OpError(f"{self.name} needs its argument `{param.name}`: {self.signature}")
            if position < len(args) and not _FITS[param.kind](value):
                what = f"must be {param.kind}, was {_describe(value)}"
                raise OpError(f"{self.name}: argument `{param.name}` {what}: {self.signature}")
            bound.append(value)
        return tuple(bound)

    def place(self, param: str) -> int:
        """The position of the argument called `param`."""
        return next(i for i, each in enumerate(self.params) if each.name == param)

    @property
    def signature(self) -> str:
        shown = (f"{p.kind} {p.name}" + ("" if p.default is REQUIRED else f"={p.default}") for p in self.params)
        return f"{self.name}({', '.join(shown)})"


def elementwise(args: tuple[Any, ...], outputs: tuple[TensorType, ...]) -> int:
    """One operation for each element that comes in or goes out, whichever is more."""
    return max(sum(t.numel for t in tensors(args)), sum(t.numel for t in outputs))


def free(args: tuple[Any, ...], outputs: tuple[TensorType, ...]) -> int:
    """A view: nothing is computed."""
    return 0


def tensors(args: Any) -> list[TensorType]:
    """All tensor types among the arguments, those in lists included."""
    if isinstance(args, TensorType):
        return [args]
    items = cast(tuple[Any, ...], args) if isinstance(args, tuple) else ()
    return [each for item in items for each in tensors(item)]


OPS: dict[str, OpSpec] = {}
"""The table: every operation that an experiment may hold."""


def op(
    name: str,
    signature: str,
    rule: Callable[..., Types],
    *,
    outputs: int | None = 1,
    alias: str = "fresh",
    cost: Cost = elementwise,
    rows: Rows = MIXED,
    index: tuple[Index, ...] = (),
) -> None:
    """Add a row to the table."""
    if name in OPS:
        raise ValueError(f"the op table has two rows for {name}")
    OPS[name] = OpSpec(name, _params(signature), rule, outputs, alias, cost, rows, index)


def spec_of(name: str) -> OpSpec:
    """The row for `name`; OpError with the nearest names where there is none."""
    if (found := OPS.get(name)) is not None:
        return found
    from difflib import get_close_matches

    near = get_close_matches(str(name), OPS, n=3)
    raise OpError(f"{name!r} is not an operation that weft runs" + (f"; near it: {', '.join(near)}" if near else ""))


def infer(name: str, args: tuple[Any, ...]) -> tuple[TensorType, ...]:
    """The types of what `name` gives for `args`, in which each operand stands as its TensorType.

    Raises ShapeError, DtypeError or OpError where the op would not run.
    """
    spec = spec_of(name)
    found = spec.rule(*spec.bind(args))
    outputs = (found,) if isinstance(found, TensorType) else found
    for out in outputs:
        numel = 1
        for length in out.shape:
            numel *= length
            if length > MAX_NUMEL or numel > MAX_NUMEL:
                raise LimitError(f"{name} would give {out}, more elements than the limit of {MAX_NUMEL}")
    return outputs


def flops(name: str, args: tuple[Any, ...], outputs: tuple[TensorType, ...]) -> int:
    """About how many arithmetic operations `name` takes for these types."""
    spec = spec_of(name)
    return spec.cost(spec.bind(args), outputs)


def canonical(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """`args` with trailing defaults dropped: the one way of writing them that is hashed."""
    params, end = spec_of(name).params, len(args)
    while end and _same(args[end - 1], params[end - 1].default):
        end -= 1
    return args[:end]


def _same(value: object, default: object) -> bool:
    """Equal and of one type (True is not 1 here), tensors never looked at."""
    return type(value) is type(default) and (value is default or value == default)


def _params(signature: str) -> tuple[Param, ...]:
    return tuple(_param(part.strip()) for part in _split(signature) if part.strip())


def _split(signature: str) -> list[str]:
    """Split at commas that stand in no bracket."""
    parts, depth = [""], 0
    for char in signature:
        depth += (char in "([") - (char in ")]")
        if char == "," and not depth:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def _param(text: str) -> Param:
    kind, _, rest = text.partition(" ")
    if kind not in _FITS:
        raise ValueError(f"{kind!r} is no kind of argument")
    name, equals, default = rest.partition("=")
    return Param(name, kind, ast.literal_eval(default) if equals else REQUIRED)


def _is_tensor(value: object) -> bool:
    return isinstance(value, TensorType)


def _is_int(value: object) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def _items(value: Any) -> tuple[Any, ...]:
    return cast(tuple[Any, ...], value)


def _is_ints(value: Any) -> bool:
    return type(value) is tuple and all(map(_is_int, _items(value)))


def _is_float(value: object) -> bool:
    return type(value) is float or _is_int(value)


def _is_bool(value: object) -> bool:
    return type(value) is bool


def _is_number(value: object) -> bool:
    return _is_bool(value) or _is_float(value)


def _is_str(value: object) -> bool:
    return type(value) is str


def _is_tensors(value: Any) -> bool:
    return type(value) is tuple and all(map(_is_tensor, _items(value)))


def _is_tensors_or_none(value: Any) -> bool:
    return type(value) is tuple and all(item is None or _is_tensor(item) for item in _items(value))


def _is_dtype(value: object) -> bool:
    return isinstance(value, Dtype) and value.name in DTYPES


def _optional(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or fits(value)


_PLAIN: dict[str, Callable[[object], bool]] = {
    "tensor": _is_tensor,
    "int": _is_int,
    "ints": _is_ints,
    "float": _is_float,
    "number": _is_number,
    "bool": _is_bool,
    "str": _is_str,
    "dtype": _is_dtype,
}
_FITS = {
    **_PLAIN,
    **{f"{kind}?": _optional(fits) for kind, fits in _PLAIN.items()},
    "tensors": _is_tensors,
    "tensors?": _is_tensors_or_none,
}


def _describe(value: object) -> str:
    text = str(value) if isinstance(value, TensorType | Dtype) else f"{type(value).__name__} {value!r}"
    return text if len(text) <= 80 else text[:77] + "…"
