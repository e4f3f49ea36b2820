"""A model's card without a model, and shorthand to write programs by hand.

b = Builder()
run = b.run([[1, 2, 3]])
z = b.add(Read(run, Site("z", 0)))
check(b.experiment(), fake_card())
"""

from __future__ import annotations

import struct

from weft.errors import Location
from weft.ir.card import BATCH, KEY, POS, Card, Dim, PartSpec, SiteSpec
from weft.ir.constant import BytesConstant
from weft.ir.nodes import Const, Experiment, Node, Read, Ref, Run, Save, Site
from weft.ir.types import TensorType

LAYERS, HEADS, D_MODEL, D_HEAD, D_MLP, D_VOCAB = 2, 3, 12, 4, 20, 17
_STREAM = ("batch", "pos", "d_model"), (BATCH, POS, Dim(D_MODEL))
_HEADS = ("batch", "pos", "head", "d_head"), (BATCH, POS, Dim(HEADS), Dim(D_HEAD))
_SQUARE = ("batch", "head", "query_pos", "key_pos"), (BATCH, Dim(HEADS), POS, KEY)
_MLP = ("batch", "pos", "d_mlp"), (BATCH, POS, Dim(D_MLP))
_LAYER = {
    "q": _HEADS, "k": _HEADS, "v": _HEADS, "scores": _SQUARE, "pattern": _SQUARE, "z": _HEADS, "attn_out": _STREAM,
    "resid_mid": _STREAM, "mlp_post": _MLP, "mlp_out": _STREAM, "resid_post": _STREAM,
}  # fmt: skip


def fake_card() -> Card:
    """The card of a decoder of 2 layers, 3 heads of 4, width 12, 17 tokens, 32 positions; its logits cannot be written."""
    sites = [SiteSpec(Site("embed"), *_STREAM, "float32")]
    for layer in range(LAYERS):
        sites += [SiteSpec(Site(name, layer), axes, dims, "float32") for name, (axes, dims) in _LAYER.items()]
    logits = (BATCH, POS, Dim(D_VOCAB))
    sites += [
        SiteSpec(Site("final_norm"), *_STREAM, "float32", writable=False),
        SiteSpec(Site("logits"), ("batch", "pos", "d_vocab"), logits, "float32"),
    ]
    return Card(
        name="fake",
        kind="decoder",
        family="fake",
        dtype="float32",
        sizes={"n_layers": LAYERS, "n_heads": HEADS, "n_kv_heads": HEADS, "d_model": D_MODEL, "d_head": D_HEAD,
               "d_mlp": D_MLP, "d_vocab": D_VOCAB},
        sites=tuple(sites),
        params={"W_U": TensorType("float32", (D_MODEL, D_VOCAB))},
        parts=(PartSpec("unembed", D_MODEL, D_VOCAB, "float32"),),
        absent={"head_out": "this family has a norm after attention"},
        max_positions=32,
    )  # fmt: skip


def ints(values: list[list[int]] | list[int]) -> BytesConstant:
    """An int64 constant of one or two dimensions."""
    rows = [row if isinstance(row, list) else [row] for row in values]
    flat = [item for row in rows for item in row]
    shape = (len(rows), len(rows[0])) if isinstance(values[0], list) else (len(rows),)
    return BytesConstant(TensorType("int64", shape), struct.pack(f"<{len(flat)}q", *flat))


def floats(*shape: int, fill: float = 0.0) -> BytesConstant:
    """A float32 constant full of one number."""
    kind = TensorType("float32", shape)
    return BytesConstant(kind, struct.pack("<f", fill) * kind.numel)


class Builder:
    """A program written node by node; line n of "user.py" is said to have written node n - 1."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def add(self, node: Node) -> Ref:
        self.nodes.append(node)
        return Ref(len(self.nodes) - 1)

    def const(self, data: BytesConstant) -> Ref:
        return self.add(Const(data))

    def run(self, tokens: list[list[int]]) -> int:
        """A plain run of these tokens; its number, as Read wants it."""
        return self.add(Run("tokens", (("tokens", self.const(ints(tokens))),))).node

    def generate(self, tokens: list[list[int]], **options: object) -> int:
        chosen = tuple(sorted({"max_new_tokens": 4, **options}.items()))
        return self.add(Run("generate", (("tokens", self.const(ints(tokens))),), chosen)).node

    def read(self, run: int, name: str, layer: int | None = None, step: int | None = None) -> Ref:
        return self.add(Read(run, Site(name, layer), step))

    def save(self, name: str, value: Ref) -> None:
        self.add(Save(name, value))

    def experiment(self) -> Experiment:
        places = tuple(Location("user.py", index + 1) for index in range(len(self.nodes)))
        return Experiment(tuple(self.nodes), places)
