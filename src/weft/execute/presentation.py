"""Between the rows as the user sees them (one batch, left-padded) and as they are run (by true length, never padded)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from weft.errors import ExecutionError
from weft.ir.nodes import Site

_POSITIONS = ("pos", "query_pos", "key_pos")


@dataclass(frozen=True, eq=False)
class Group:
    """Rows of one true length: their numbers in the batch, and their inputs without their `padding` positions."""

    rows: list[int]
    length: int
    inputs: dict[str, torch.Tensor]
    padding: int
    alone: bool

    def rows_of(self, value: torch.Tensor, axes: tuple[str, ...], whole: tuple[int, ...]) -> torch.Tensor:
        """This group's part of a value in the user's presentation: its rows, without their padding."""
        return value if self.alone else value[_place(self, axes, whole)]


def groups(inputs: dict[str, torch.Tensor]) -> list[Group]:
    """The rows of a run by true length, longest first."""
    start = inputs.get("start")
    tokens = {name: value for name, value in inputs.items() if name != "start"}
    first = next(iter(tokens.values()))
    batch = int(first.shape[0]) if first.dim() else 1
    if start is None:
        return [Group(list(range(batch)), int(first.shape[1]) if first.dim() > 1 else 1, tokens, 0, True)]
    found: dict[int, list[int]] = {}
    for row, at in enumerate(start.tolist()):
        found.setdefault(at, []).append(row)
    pos, alone = int(first.shape[1]), set(found) == {0}
    return [
        Group(rows, pos - at, {name: value[rows][:, at:] for name, value in tokens.items()}, at, alone)
        for at, rows in sorted(found.items())
    ]


def take(value: torch.Tensor, axes: tuple[str, ...]) -> torch.Tensor:
    """The last position."""
    axis = next((axes.index(name) for name in _POSITIONS if name in axes), None)
    return value if axis is None else value.narrow(axis, value.shape[axis] - 1, 1)


def onto(
    shape: tuple[int, ...], axes: tuple[str, ...], pieces: list[tuple[Group, torch.Tensor]], site: Site
) -> torch.Tensor:
    """The groups' parts put together, left-padded with 0."""
    if len(pieces) == 1 and pieces[0][0].alone:
        if tuple(pieces[0][1].shape) != shape:
            raise ExecutionError(f"{site} has shape {tuple(pieces[0][1].shape)} where its card says {shape}")
        return pieces[0][1]
    if "batch" not in axes:
        raise ExecutionError(
            f"{site} has no row axis that is known, so it cannot be read or written in a run of prompts of different "
            "lengths; give it prompts of one length"
        )
    whole = torch.zeros(shape, dtype=pieces[0][1].dtype, device=pieces[0][1].device)
    for group, part in pieces:
        place = _place(group, axes, shape)
        if whole[place].shape != part.shape:
            raise ExecutionError(
                f"{site} has shape {tuple(part.shape)} where its card says {tuple(whole[place].shape)}"
            )
        whole = whole.index_put(place, part)
    return whole


def _place(group: Group, axes: tuple[str, ...], shape: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    """Indices of this group's rows and positions in the whole (an open mesh)."""
    found = []
    for axis, (name, size) in enumerate(zip(axes, shape, strict=True)):
        if name == "batch":
            index = torch.tensor(group.rows)
        elif name in _POSITIONS and size > 1:
            index = torch.arange(group.padding, size)
        else:
            index = torch.arange(size)
        found.append(index.reshape([-1 if other == axis else 1 for other in range(len(shape))]))
    return tuple(found)
