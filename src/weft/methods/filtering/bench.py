"""Where a method's sessions are opened: it keeps their records, shows how far it is, and knows that it was stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from weft.methods.parts import Parts


@dataclass
class Bench:
    """The model and the records of what ran on it."""

    model: Any
    progress: bool = False
    only_right: bool = True
    """Whether prompts that the model answers wrongly are left out."""
    records: list[Any] = field(default_factory=list)
    stopped: str = ""

    @contextlib.contextmanager
    def session(self) -> Iterator[Any]:
        """A session whose record is kept."""
        session = self.model.session()
        with session as s:
            yield s
        self.records.append(session.record)

    def parts(self, what: str, parts: Sequence[Any]) -> Iterator[Any]:
        """Goes through them; the first Ctrl-C ends it after the part it is in."""
        with Parts(what, parts, self.progress) as work:
            yield from work
        self.stopped = self.stopped or work.stopped


def stacked(values: Sequence[Any], dim: int = 0) -> Any:
    """`torch.stack` of a session's values."""
    return torch.stack(list(values), dim)
