"""What a traced tensor is a view of: a storage with versions.

    storage ::= known (its data is at hand: made by a factory function, not yet touched by a traced value)
              | a value of the program, whose current version is the node `ref`

A view names its storage and the chain of views that leads to it. Reading through it gives the version current at that
line; writing through it makes the next version. So code that keeps a view and changes the tensor later behaves as in
PyTorch, and yet every node of the program is immutable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from weft.errors import CausalityError, SessionError, SiteError
from weft.ir.nodes import Op, Ref, Site, Update, ViewStep, Write
from weft.trace.location import where
from weft.trace.places import check_padding

if TYPE_CHECKING:
    from weft.ir.card import SiteSpec
    from weft.trace.graph import Graph


@dataclass(slots=True)
class Origin:
    """The site whose value a storage is."""

    run: Any  # trace.run.Run
    site: Site
    spec: SiteSpec
    step: int | None


@dataclass(slots=True, eq=False)
class Storage:
    """One storage. Exactly one of `known` and `ref` is set."""

    graph: Graph
    owner: Any  # the session
    ref: Ref | None = None
    known: torch.Tensor | None = None
    origin: Origin | None = None
    root_size: tuple[int, ...] = ()
    layout: tuple[int, ...] = ()
    version: int = 0
    frozen: str = ""  # why it may not be written, e.g. a stack of sites
    views: dict[tuple[ViewStep, ...], Ref] = field(default_factory=dict)

    def read(self, chain: tuple[ViewStep, ...]) -> Ref:
        """The node of the current version seen through `chain` (view nodes are made when first needed)."""
        self.owner.check_usable()
        if self.ref is None:
            self._become_unknown()
        assert self.ref is not None
        if not chain:
            return self.ref
        found = self.views.get(chain)
        if found is None:
            step = chain[-1]
            base = self.read(chain[:-1])
            name = "reshape" if step.op in ("view", "_unsafe_view") else step.op
            found = self.views[chain] = self.graph.add(Op(name, (base, *step.args)))
        return found

    def write(self, chain: tuple[ViewStep, ...], value: Ref, nograd: bool, see: Any = None) -> None:
        """Replace what `chain` leads to by `value`: the next version. `see` leads from the site's shape to the region."""
        self.owner.check_usable()
        if self.frozen:
            raise SiteError(self.frozen, where=where())
        if self.ref is None:
            self._become_unknown()
        assert self.ref is not None
        if self.origin is not None:
            self._check_site(see)
            self.ref = self.graph.add(Write(self.ref, chain, value))
        else:
            self.ref = self.graph.add(Update(self.ref, chain, value, self.layout, nograd))
        self.version += 1
        self.views.clear()

    def _become_unknown(self) -> None:
        assert self.known is not None
        self.ref = self.graph.constant(self.known)
        self.known = None

    def _check_site(self, see: Any) -> None:
        origin = self.origin
        assert origin is not None
        if see is not None:
            check_padding(origin.run, origin.spec.axes, self.root_size, see)
        if not origin.spec.writable:
            raise SiteError(f"{origin.site} can be read but not written", where=where())
        shown = self.graph.shown.get(origin.run.index)
        if shown is not None and origin.run.order(origin.site, origin.step) <= shown[0]:
            raise CausalityError(
                f"this write to {origin.site} would change a value that .now() has already shown (at {shown[1]}); "
                "write first and look afterwards, or make the edit in a .fork() of the run",
                where=where(),
            )


def same_session(storages: list[Storage]) -> Graph:
    """The graph that all these storages belong to; SessionError if they come from different sessions."""
    graph = storages[0].graph
    if any(storage.graph is not graph for storage in storages):
        raise SessionError(
            "values of two sessions cannot be combined before they are computed; "
            "put both runs into one session, or save the value and use it after its block",
            where=where(),
        )
    return graph
