"""The prompts of many generations as packed tokens: what equal prompts have in common is computed once.

A prompt's own tokens begin at the first position that its generation edits in the prompt's pass; those before are the same
for every generation on that prompt.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from weft.execute.attend import Group, Store, attend, part, stored
from weft.models.attention import How

Row = tuple[int, ...]


@dataclass(eq=False)
class Stretch:
    """Tokens [first, len(row)) of a row, at `at` in the packed tokens; those before are computed by `before`."""

    row: Row
    first: int = 0
    before: Stretch | None = None
    number: int = 0
    at: int = 0

    @property
    def length(self) -> int:
        return len(self.row) - self.first

    def places(self) -> list[int]:
        """Where each token of the row is, in its own stretch or in the one before."""
        known = [] if self.before is None else self.before.places()[: self.first]
        return [*known, *range(self.at, self.at + self.length)]


@dataclass(eq=False)
class Prompts:
    """All stretches, those that others go on from first; and each prompt's, in the order given."""

    shared: list[Stretch] = field(default_factory=list)
    own: list[Stretch] = field(default_factory=list)
    of: list[Stretch] = field(default_factory=list)
    store: Store = field(default_factory=lambda: Store(0, {}, {}))

    @property
    def all(self) -> list[Stretch]:
        return [*self.shared, *self.own]

    def tokens(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The packed token ids, and the position of each in its row."""
        ids = [token for each in self.all for token in each.row[each.first :]]
        positions = [place for each in self.all for place in range(each.first, len(each.row))]
        return torch.tensor(ids), torch.tensor(positions)

    def groups(self) -> list[Group]:
        """The stretches as attention takes them: by length, and by whether there is anything before."""
        alike: dict[tuple[int, bool], list[Stretch]] = defaultdict(list)
        for each in self.all:
            alike[each.length, each.before is not None].append(each)
        return [_group(length, members, self.store) for (length, _), members in alike.items()]

    def keep(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """The shared stretches' keys and values, [1, kv head, token, d_head] packed."""
        if self.own and self.shared:
            starts, lengths = [each.at for each in self.shared], [each.length for each in self.shared]
            self.store.keys[layer], self.store.values[layer] = stored(k, starts, lengths), stored(v, starts, lengths)

    def attend(
        self, groups: list[Group], layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, how: How
    ) -> torch.Tensor:
        """Attention of all stretches at a layer."""
        self.keep(layer, k, v)
        z = attend(groups, layer, q, k, v, how)
        self.store.keys.pop(layer, None)  # nobody attends to them again
        self.store.values.pop(layer, None)
        return z


def _group(length: int, members: Sequence[Stretch], store: Store) -> Group:
    starts = torch.tensor([each.at for each in members])
    tokens = starts[:, None] + torch.arange(length)
    straight = bool((starts == starts[0] + length * torch.arange(len(starts))).all())
    before = [each.before for each in members if each.before is not None]
    found = (
        part(store, torch.tensor([b.number for b in before]), torch.tensor([m.first for m in members]))
        if before
        else None
    )
    return Group(tokens, int(starts[0]) if straight else None, () if found is None else (found,))


def prompts(rows: Sequence[Row], first: Sequence[int]) -> Prompts:
    """The stretches of rows that are edited from position `first` on (a row's length: nowhere)."""
    most: dict[Row, int] = {}
    together: dict[Row, int] = {}
    for row, at in zip(rows, first, strict=True):
        most[row] = max(at, most.get(row, 0))
        together[row] = at + together.get(row, 0)
    found = Prompts()
    shared = {row: Stretch(row[:until]) for row, until in most.items() if together[row] > until}
    found.shared = list(shared.values())
    for row, at in zip(rows, first, strict=True):
        before = shared.get(row)
        if before is not None and at == len(row):
            found.of.append(before)
            continue
        found.own.append(Stretch(row, at, before) if before is not None and at else Stretch(row))
        found.of.append(found.own[-1])
    _place(found)
    found.store = Store(len(found.shared), {}, {})
    return found


def _place(found: Prompts) -> None:
    at = 0
    for number, each in enumerate(found.all):
        each.number, each.at = number, at
        at += each.length


__all__ = ["Prompts", "Row", "Stretch", "prompts"]
