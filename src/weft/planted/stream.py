"""A mechanism on paper: named blocks of a residual stream, heads that read and write them, and gates.

    stream = Stream(token=100, answer=100)
    pairs = [(stream.read(token=24.0), stream.read(token=1.0)), sink(stream, 12.0)]
    copy = head(pairs, stream.read(token=1.0), stream.write(answer=1.0))

Nothing here knows of LayerNorm, heads' widths or rotary angles: `weft.planted.assemble` makes a GPT-2 or a Llama of it.
Three blocks are always there: `one` is the same at every token (a bias is a weight on it, and being long it keeps the
stream's norm from moving, so that normalisation is a known factor); `bos` marks <bos>; `position` holds, for models
with learned positions, cos and sin of the position at the speeds in `SPEEDS`, as rotary models have them in their heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

D_HEAD = 64
THETA = 1e14
"""The base of the rotary angles: the first 7 pairs of a head turn and tell positions, the others stand all but still."""
SPEEDS = tuple(THETA ** (-2 * i / D_HEAD) for i in range(7))
N_CONTENT = D_HEAD // 2 - len(SPEEDS)
"""How many features a head can match by content: one to each pair that does not turn."""
N_POSITIONS = 128
ONE = 64.0
"""The length of the block `one`; all that mechanisms write has about a twentieth of it."""
SHARP = 24.0
"""The score of a match. Sinks score half a match below it, so softmax leaves 1e-5 to chance."""
NEAR = 48.0
"""How sharply a head that looks a fixed number of tokens back does so: the next best scores 25 less."""

Matrix = Float[Tensor, "_a _b"]
Pair = tuple[Matrix, Matrix]
"""What of the query's token is compared with what of the key's: two weights of as many columns."""


class Stream:
    """`stream["token"]` is a slice of a stream `stream.width` wide; `read`, `total` and `write` make weights for it."""

    def __init__(self, **sizes: int) -> None:
        self.slices: dict[str, slice] = {}
        start = 0
        for name, size in {"one": 1, "bos": 1, "position": 2 * len(SPEEDS), **sizes}.items():
            self.slices[name] = slice(start, start + size)
            start += size
        self.width = start

    def __getitem__(self, name: str) -> slice:
        return self.slices[name]

    def size(self, name: str) -> int:
        return self[name].stop - self[name].start

    def read(self, **blocks: float | Tensor) -> Matrix:
        """Columns that read blocks: each times a number, or through a matrix [block, columns]; several are added."""
        return sum(self._rows(name, weight) for name, weight in blocks.items())  # type: ignore[return-value]

    def total(self, **blocks: float) -> Matrix:
        """One column: the sum of everything in a block, times a number; several blocks are added."""
        columns = {name: torch.full((self.size(name), 1), float(weight)) for name, weight in blocks.items()}
        return self.read(**columns)

    def write(self, **blocks: float | Tensor) -> Matrix:
        """Rows that write blocks: each times a number, or through a matrix [rows, block]."""
        turned = {name: weight.T if isinstance(weight, Tensor) else weight for name, weight in blocks.items()}
        return sum(self._rows(name, weight) for name, weight in turned.items()).T  # type: ignore[union-attr]

    def _rows(self, name: str, weight: float | Tensor) -> Matrix:
        inside = weight if isinstance(weight, Tensor) else torch.eye(self.size(name)) * weight
        rows = torch.zeros(self.width, inside.shape[1])
        rows[self[name]] = inside / (ONE if name == "one" else 1.0)
        return rows


@dataclass(frozen=True)
class Head:
    """The score is (x @ query)·(y @ key), more at `back` tokens behind, and more for later tokens if `latest`."""

    query: Matrix
    key: Matrix
    value: Matrix
    out: Matrix
    back: int | None = None
    latest: bool = False


def head(pairs: Sequence[Pair], value: Matrix, out: Matrix, back: int | None = None, latest: bool = False) -> Head:
    """A head that compares these pairs, adding their scores, and copies `value` to `out`."""
    empty = torch.zeros(value.shape[0], 0)
    query = torch.cat([empty, *(pair[0] for pair in pairs)], 1)
    key = torch.cat([empty, *(pair[1] for pair in pairs)], 1)
    return Head(query, key, value, out, back, latest)


def sink(stream: Stream, score: float, **more: float) -> Pair:
    """<bos> scores `score`, plus what blocks of the query's token say. It is where a head looks that finds nothing."""
    return stream.total(one=score, **more), stream.total(bos=1.0)


@dataclass(frozen=True)
class Gates:
    """Neurons: each writes a row of `out` times relu(x @ reads + bias)."""

    reads: Matrix
    bias: Float[Tensor, " n"]
    out: Matrix


def gates(reads: Matrix, bias: float | Tensor, out: Matrix) -> Gates:
    """Neurons with these columns and rows; one bias for all, or one for each."""
    return Gates(reads, torch.zeros(reads.shape[1]) + bias, out)


@dataclass(frozen=True)
class Step:
    """One layer of the mechanism: its heads by number, and its neurons."""

    heads: Mapping[int, Head]
    gates: Sequence[Gates] = ()


@dataclass(frozen=True)
class Mechanism:
    """A whole model on paper: what each token embeds as, the layers, and what each token's logit reads."""

    stream: Stream
    vocabulary: list[str]
    embed: Float[Tensor, "vocab width"]
    steps: Sequence[Step]
    unembed: Float[Tensor, "vocab width"]
    roles: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Which (step, head) does what, by name."""


def one_hot(rows: Sequence[int], size: int) -> Matrix:
    """A matrix [len(rows), size] with a one in each row."""
    return torch.eye(size)[list(rows)].reshape(len(rows), size)
