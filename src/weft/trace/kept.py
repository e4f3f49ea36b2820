"""Values that stay where the model is, used in later sessions without being sent.

h.keep("mean")                           # in a session
with model.session() as s:
    x = s.run("…").resid_post[3] - model.kept["mean"]
model.kept                               # what is there, how large, until when
model.kept["mean"].value, model.kept.free("mean")
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from weft.errors import NotFoundError
from weft.ir.nodes import Const, ConstantData
from weft.ir.outcome import Kept
from weft.trace.location import where
from weft.trace.run import contiguous
from weft.trace.storage import Storage
from weft.trace.tensor import Traced

if TYPE_CHECKING:
    from weft.trace.model import Model


class KeptValue:
    """One value that stays: `shape`, `dtype`, `nbytes`, `created`, `expires`, and its numbers in `.value`."""

    def __init__(self, model: Model, entry: Kept) -> None:
        self._model, self._entry = model, entry
        self.name = entry.name
        self.shape = torch.Size(entry.data.type.shape)
        self.dtype = getattr(torch, entry.data.type.dtype)
        self.nbytes = entry.data.type.nbytes
        self.created = dt.datetime.fromtimestamp(entry.created, dt.UTC)
        self.expires = None if entry.expires is None else dt.datetime.fromtimestamp(entry.expires, dt.UTC)

    @property
    def digest(self) -> str:
        """SHA-256 of its type and bytes: what it is known by."""
        return self._entry.data.digest()

    @property
    def value(self) -> torch.Tensor:
        """The numbers, fetched from where they are."""
        return self._model.backend.fetch(self._entry.data)

    def free(self) -> None:
        """Give its memory back."""
        self._model.backend.free(self.name)

    def __repr__(self) -> str:
        until = "as long as the model" if self.expires is None else f"until {self.expires:%Y-%m-%d %H:%M} UTC if unused"
        return f"<kept {self.name!r}: {self._entry.data.type}, {self.nbytes:,} bytes, {until}>"


class KeptValues(Mapping[str, Any]):
    """What is kept with a model, by name. In an open session an entry is a traced value, outside a `KeptValue`."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def __getitem__(self, name: str) -> Any:
        entry = next((each for each in self._model.backend.kept() if each.name == name), None)
        if entry is None:
            known = ", ".join(self) or "nothing"
            raise NotFoundError(
                f"no value is kept as {name!r} with this model: it was never kept, was freed, or has expired; "
                f"there is {known}",
                where=where(),
            )
        if self._model.sessions:
            return held(self._model.sessions[-1], entry.data)
        return KeptValue(self._model, entry)

    def __iter__(self) -> Iterator[str]:
        return iter([each.name for each in self._model.backend.kept()])

    def __len__(self) -> int:
        return len(self._model.backend.kept())

    @property
    def nbytes(self) -> int:
        """Bytes of all of them together."""
        return sum(each.data.type.nbytes for each in self._model.backend.kept())

    def free(self, name: str) -> None:
        """Give the memory of a value back; NotFoundError if there is none of that name."""
        self._model.backend.free(name)

    def __repr__(self) -> str:
        lines = [repr(KeptValue(self._model, each)) for each in self._model.backend.kept()]
        return "\n".join(lines) or "<nothing is kept with this model>"


def held(session: Any, data: ConstantData) -> Traced:
    """A value known by its digest as a traced value of an open session."""
    session.check_usable()
    kind = data.type
    storage = Storage(session.graph, session, session.graph.add(Const(data)), root_size=kind.shape)
    storage.frozen = "a kept value cannot be changed; use a .clone() of it"
    return Traced(storage, (getattr(torch, kind.dtype), kind.shape, contiguous(kind.shape)))
