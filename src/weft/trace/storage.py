"""What a traced tensor is a view of: a storage with versions.

    storage ::= known (its data is at hand: made by a factory function, not yet written by a traced value)
              | a value of the program, whose current version is the node `ref`

A view names its storage and the chain of views that leads to it. Reading through it gives the version current at that
line; writing through it makes the next version. So code that keeps a view and changes the tensor later behaves as in
PyTorch, and yet every node of the program is immutable.

A known storage stays known when it is read: the constant made of it (`ref`) holds until the next change in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from weft.errors import CausalityError, ProgramError, SiteError
from weft.ir.nodes import Const, Op, Ref, Site, Update, ViewStep, Write
from weft.trace.constants import COPIED, TensorConstant
from weft.trace.location import where
from weft.trace.places import check_padding

if TYPE_CHECKING:
    from weft.ir.card import SiteSpec
    from weft.trace.graph import Graph

NOGRAD = ViewStep("alias", ())
"""A step that changes nothing: it stands where a view was taken under no_grad, through which no gradient may pass."""
_STOPS = frozenset({"alias", "detach"})


@dataclass(slots=True)
class Origin:
    """The site whose value a storage is."""

    run: Any  # trace.run.Run
    site: Site
    spec: SiteSpec
    step: int | None
    padded: bool | None = None

    def has_padding(self) -> bool:
        """Whether rows of the run are of different lengths."""
        if self.padded is None:
            start = self.run.inputs.get("start")
            self.padded = start is not None and bool((start > 0).any())
        return self.padded


class Storage:
    """One storage. Where `known` is None, `ref` is not."""

    __slots__ = (
        "frozen",
        "graph",
        "known",
        "layout",
        "origin",
        "owner",
        "ref",
        "root_size",
        "signature",
        "version",
        "views",
    )

    def __init__(
        self,
        graph: Graph,
        owner: Any,  # the session
        ref: Ref | None = None,
        known: torch.Tensor | None = None,
        root_size: tuple[int, ...] = (),
        layout: tuple[int, ...] = (),
    ) -> None:
        self.graph = graph
        self.owner = owner
        self.ref = ref
        self.known = known
        self.root_size = root_size
        self.layout = layout
        self.origin: Origin | None = None
        self.signature: Any = None  # of a site: dtype, size and strides
        self.version = 0
        self.frozen = ""  # why it may not be written, e.g. a stack of sites
        self.views: dict[tuple[ViewStep, ...], Ref] | None = None

    def read(self, chain: tuple[ViewStep, ...]) -> Ref:
        """The node of the current version seen through `chain` (view nodes are made when first needed)."""
        if self.owner.state != "open":
            self.owner.check_usable()
        if self.ref is None:
            self.ref = self._constant()
        if not chain:
            return self.ref
        if self.views is None:
            self.views = {}
        found = self.views.get(chain)
        if found is None:
            step = chain[-1]
            base = self.read(chain[:-1])
            name = "reshape" if step.op == "view" else step.op
            found = self.views[chain] = self.graph.add(Op(name, (base, *step.args), step is NOGRAD))
            if step.op == "detach":
                self.graph.stops.add(found.node)
        return found

    def write(self, chain: tuple[ViewStep, ...], value: Ref, nograd: bool, see: Any = None) -> None:
        """Replace what `chain` leads to by `value`: the next version. `see` leads from the site's shape to the region.

        With `nograd`, or through a detached view, PyTorch's autograd would not see the change: no gradient may pass.
        """
        if self.owner.state != "open":
            self.owner.check_usable()
        if self.frozen:
            raise SiteError(self.frozen, where=where())
        base = self.ref or self._constant()
        if any(step.op in _STOPS for step in chain):
            nograd = True
            chain = tuple(step for step in chain if step.op not in _STOPS)
        if self.origin is None:
            self.ref = self.graph.add(Update(base, chain, value, self.layout, nograd))
        else:
            self._check_site(see)
            self.ref = self.graph.add(Write(base, chain, self.graph.without_gradient(value) if nograd else value))
        self.known = None
        self.changed()

    def changed(self) -> None:
        """What was read before holds no longer (of a known storage: not the constant either)."""
        self.version += 1
        self.views = None
        if self.known is not None:
            self.ref = None

    def _constant(self) -> Ref:
        known = self.known
        assert known is not None
        # Large tensors are held, not copied, and this one may still be changed.
        return self.graph.add(Const(TensorConstant(known.clone() if known.nbytes > COPIED else known)))

    def _check_site(self, see: Any) -> None:
        origin = self.origin
        assert origin is not None
        if see is not None:
            check_padding(origin.run, origin.spec.axes, self.root_size, see)
        if not origin.spec.writable:
            raise SiteError(f"{origin.site} can be read but not written", where=where())
        if origin.step is not None and origin.run.written_otherwise(origin.site, origin.step):
            raise ProgramError(
                f"{origin.site} is written both at each step and at one step of the same generation, in no certain order "
                "(a standing edit writes at every one by itself); write it at g.step(i) for every i, or at g.each alone",
                where=where(),
            )
        shown = self.graph.shown.get(origin.run.index)
        if shown is not None and origin.run.order(origin.site, origin.step) <= shown[0]:
            raise CausalityError(
                f"this write to {origin.site} would change a value that .now() has already shown (at {shown[1]}); "
                "write first and look afterwards, or make the edit in a .fork() of the run",
                where=where(),
            )
