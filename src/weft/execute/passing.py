"""A site of packed tokens as it passes: each run of a pass reads its own part, and puts back what it wrote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from weft.execute.lazy import Patch, SiteValue
from weft.execute.rollouts import Reads, Rollout
from weft.ir.nodes import EACH, Read, Write


class Passing:
    """The value of a site at a step, [token, …]; `changed` once a run has written to it.

    `by_slot`: it has one token for each slot, at step 0 too. `normed` and `unembed`: the value is logits, and this is how
    those of the other positions are made.
    """

    def __init__(
        self,
        packed: torch.Tensor,
        step: int,
        by_slot: bool = False,
        normed: torch.Tensor | None = None,
        unembed: Callable[..., torch.Tensor] | None = None,
    ) -> None:
        self.packed, self.step, self.by_slot = packed, step, by_slot or step > 0
        self.normed, self.unembed = normed, unembed
        self.changed: torch.Tensor | None = None

    def seen(self, rollout: Rollout, read: Read, again: bool) -> SiteValue:
        """A run's part, in the presentation that it reads. `again`: it has written to it before."""
        packed = self.packed
        if again and self.changed is not None:
            packed = self.changed.clone()  # it may be written to once more
        if read.step == 0 and self.unembed is not None:
            return self._logits(rollout, packed, again)
        return SiteValue(rollout.layout(self._places(rollout, read)), None, packed, tuple(packed.shape[1:]))

    def _places(self, rollout: Rollout, read: Read) -> torch.Tensor:
        if self.by_slot:
            return rollout.slots[:, None]
        return rollout.places[:, -1:] if read.step == EACH else rollout.places

    def _logits(self, rollout: Rollout, ends: torch.Tensor, again: bool) -> SiteValue:
        """The logits at all positions of the prompt, of which those at the end are there already."""
        rows, last = torch.arange(rollout.batch), torch.full((rollout.batch,), rollout.pos - 1)
        there = Patch(rows, last, ends.index_select(0, rollout.slots))
        value = SiteValue(
            rollout.layout(rollout.places), None, self.normed, (ends.shape[-1],), finish=self.unembed, entries=True
        )
        return _with(value, there, again)

    def put(self, rollout: Rollout, read: Read, value: SiteValue) -> None:
        """What a run wrote goes on with the model; nothing goes into padding or into rows that have ended."""
        places = self._places(rollout, read)
        if read.step == 0 and self.unembed is not None:  # what the other positions would choose is not asked for
            places = torch.full_like(rollout.places, -1)
            places[:, -1] = rollout.slots
        if self.changed is None:
            self.changed = self.packed.clone(memory_format=torch.contiguous_format)
        for patch in value.patches:
            into = places[patch.rows, patch.positions]
            inside = into >= 0
            new = patch.values.to(self.changed.dtype)
            self.changed.index_copy_(0, into[inside], new if bool(inside.all()) else new[inside])


class Chain:
    """What one run reads of one site at one step, in the order written; each goes on from what the last one wrote."""

    def __init__(self, rollout: Rollout, reads: Reads) -> None:
        self.rollout, self.reads = rollout, reads
        self.done, self.told, self.wrote = 0, False, False

    def go(self, passing: Passing) -> bool:
        """Go on as far as the values are there; True when all is read and written."""
        owner, step = self.rollout.owner, passing.step
        while self.done < len(self.reads):
            index, read = self.reads[self.done]
            if not self.told:
                self.rollout.deliver(index, read, step, passing.seen(self.rollout, read, self.wrote))
                self.told = True
            final = owner.uses.final[index]
            if final != index:
                key = (final, step if final in owner.flow.stepped else None)
                if not owner.flow.has(key):
                    return False
                passing.put(self.rollout, read, owner.flow.values[key][0])
                owner.applied.update(_writes(owner.nodes, final))
                self.wrote = True
            self.done, self.told = self.done + 1, False
        return True


def _with(value: SiteValue, there: Patch, written: bool) -> SiteValue:
    return replace(value, patches=(there,)) if written else replace(value, ready=there)


def _writes(nodes: tuple[object, ...], final: int) -> list[int]:
    found, node = [], nodes[final]
    while isinstance(node, Write):
        found.append(final)
        final = node.prev.node
        node = nodes[final]
    return found
