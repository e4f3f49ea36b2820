"""Calls every op with wrong shapes, dtypes, strides, indices and settings, and says in a line what came of each.

    python op_fuzz.py SEED TRIALS POISON NAME…

Run twice with different POISON: memory that is free, and memory around every operand, is filled with other values, so an
op that returns what it was not given answers differently. Each call is named on stderr before it is made: a process that
dies shows where.
"""

from __future__ import annotations

import hashlib
import random
import resource
import sys
from typing import Any

import torch
from op_cases import CASES, DTYPES, Given, build

from weft.errors import LimitError, WeftError
from weft.execute import kernels
from weft.ir.nodes import Dtype
from weft.ir.optable import infer
from weft.ir.types import TensorType

LARGEST = 200_000
INTS = (-(2**63), -(2**31), -7, -3, -2, -1, 0, 1, 2, 3, 4, 5, 17, 2**31, 2**62, 2**63 - 1)
FLOATS = (float("nan"), float("inf"), float("-inf"), -1.0, 0.0, 0.5, 1.0, 1e-30, 1e30)
WORDS = (
    "",
    "mean",
    "sum",
    "amax",
    "prod",
    "add",
    "linear",
    "reflect",
    "circular",
    "ij,jk->ik",
    "...->...",
    "tanh",
    "U",
    "nuc",
)
RAISED = (RuntimeError, IndexError, ValueError, NotImplementedError, WeftError, ZeroDivisionError)


def mutate(value: Any, rng: random.Random) -> Any:
    """Something like `value`, but wrong perhaps."""
    if isinstance(value, Given):
        return _operand(value, rng)
    if value is None or isinstance(value, Dtype):
        return rng.choice([None, Dtype(rng.choice(DTYPES)), value])
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice([*INTS, value + 1, value - 1, value])
    if isinstance(value, float):
        return rng.choice([*FLOATS, value])
    if isinstance(value, str):
        return rng.choice([*WORDS, value, value[::-1]])
    items = list(value)
    way = rng.randrange(4)
    if way == 0 and items:
        items.pop(rng.randrange(len(items)))
    elif way == 1:
        items.insert(rng.randint(0, len(items)), rng.choice(items) if items else rng.choice(INTS))
    elif items:
        place = rng.randrange(len(items))
        items[place] = mutate(items[place], rng)
    return tuple(items)


def _operand(given: Given, rng: random.Random) -> Given:
    shape = list(given.shape)
    way = rng.randrange(6)
    if way == 0:
        return given._replace(dtype=rng.choice(DTYPES), kind="any")
    if way == 1 and shape:
        shape.pop(rng.randrange(len(shape)))
    elif way == 2:
        shape.insert(rng.randint(0, len(shape)), rng.choice((0, 1, 2, 3)))
    elif shape:
        shape[rng.randrange(len(shape))] = rng.choice((0, 1, 2, 3, 4, 5, 8))
    kind = "any" if given.kind == "symmetric" and (len(shape) < 2 or shape[-1] != shape[-2]) else given.kind
    return given._replace(shape=tuple(shape), kind="any" if kind == "sorted" and not shape else kind)


class Maker:
    """Makes operands: odd values, odd strides, and poison all around them."""

    def __init__(self, seed: int, poison: int) -> None:
        self.rng, self.poison = random.Random(seed), poison
        self.generator = torch.Generator().manual_seed(seed)

    def make(self, value: Any) -> Any:
        if isinstance(value, Given):
            return self._strided(self._odd(build(value, self.generator), value))
        if isinstance(value, tuple) and not hasattr(value, "_fields"):
            return tuple(map(self.make, value))
        return value

    def _odd(self, x: torch.Tensor, given: Given) -> torch.Tensor:
        if not x.numel() or self.rng.random() < 0.6:
            return x
        place = self.rng.randrange(x.numel())
        if x.dtype.is_floating_point:
            x.view(-1)[place] = self.rng.choice(FLOATS)
        elif x.dtype != torch.bool:
            info = torch.iinfo(x.dtype)
            wrong = self.rng.choice((-1, given.high, -given.high - 1, info.max, info.min, 0))
            x.view(-1)[place] = min(max(wrong, info.min), info.max)
        return x

    def _strided(self, x: torch.Tensor) -> torch.Tensor:
        """The same values somewhere inside poisoned memory, perhaps with gaps, perhaps another order of dimensions."""
        order = list(range(x.dim()))
        if self.rng.random() < 0.3:
            self.rng.shuffle(order)
        gaps = self.rng.random() < 0.3
        shape = [x.shape[at] * (2 if gaps else 1) for at in order]
        numel = torch.Size(shape).numel()
        memory = self._poisoned(numel + 64, x.dtype)
        inner = memory[32 : 32 + numel].view(shape)
        if gaps:
            inner = inner[tuple(slice(None, None, 2) for _ in shape)]
        back = sorted(range(x.dim()), key=lambda at: order[at])
        found = inner.permute(back) if x.dim() else inner
        found.copy_(x)
        if x.dim() and self.rng.random() < 0.2:
            at = self.rng.randrange(x.dim())
            return found.narrow(at, 0, 1).expand(x.shape) if x.shape[at] > 1 else found
        return found

    def _poisoned(self, numel: int, dtype: torch.dtype) -> torch.Tensor:
        if dtype == torch.bool:
            return torch.full((numel,), self.poison % 2 == 0)
        odd = self.poison % 2
        return torch.full(
            (numel,), (-3 if odd else 101) if not dtype.is_floating_point else (-72.5 if odd else 5.5)
        ).to(dtype)


def type_of(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return TensorType(str(value.dtype).removeprefix("torch."), tuple(value.shape))
    return tuple(map(type_of, value)) if isinstance(value, tuple) and not hasattr(value, "_fields") else value


def outcome(name: str, args: tuple) -> str:
    """What calling `name` came to, in a word: refused, raised, large, the digest of its results, or a FAULT."""
    try:
        expected = infer(name, type_of(args))
    except LimitError:
        return "large"
    except WeftError:
        return "refused"
    except Exception as error:
        return f"FAULT the rule itself failed: {error!r}"
    if sum(each.numel for each in expected) > LARGEST:
        return "large"
    try:
        found = kernels.call(name, args)
    except RAISED as error:
        return f"raised {type(error).__name__}"
    except Exception as error:
        return f"FAULT the kernel failed strangely: {error!r}"
    if tuple(map(type_of, found)) != expected:
        return f"FAULT gives {list(map(str, map(type_of, found)))}, the rule says {list(map(str, expected))}"
    return digest(found)


def digest(found: tuple[torch.Tensor, ...]) -> str:
    sha = hashlib.sha256()
    for each in found:
        x = torch.empty(each.numel(), dtype=each.dtype).copy_(each.detach().reshape(-1))
        if x.dtype.is_floating_point:
            x = torch.where(x.isnan(), torch.full_like(x, float("nan")), x)
        sha.update(x.view(torch.uint8).numpy().tobytes() if x.numel() else b"")
    return sha.hexdigest()[:12]


def main(seed: int, trials: int, poison: int, names: list[str]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
    torch.set_num_threads(1)
    for name in names:
        for trial in range(trials):
            rng = random.Random(f"{name} {seed} {trial}")
            args = list(rng.choice(CASES[name]))
            for _ in range(rng.choice((0, 1, 1, 2))):
                place = rng.randrange(len(args))
                args[place] = mutate(args[place], rng)
            print(f"{name} #{trial} {args}", file=sys.stderr, flush=True)
            print(f"{name} #{trial} {args} → {outcome(name, Maker(rng.randrange(2**31), poison).make(tuple(args)))}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
