"""Of how many directions of a head's query the predicate takes.

Per head, the right singular vectors V of W_Q are a basis of its d_head directions, and a mask m over them makes
P = (mV)ᵀ(mV); `q ← q + P (q_src − q)`. Loss: KL(gold ‖ patched) at the last token + λ‖m‖₁, λ rescaled as for the mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

import weft
from weft.methods.filtering.bench import stacked
from weft.methods.filtering.patch import Head

if TYPE_CHECKING:
    from weft.methods.filtering.bench import Bench
    from weft.methods.filtering.mask import Training
    from weft.methods.filtering.pairs import Pairs

THEIRS = 79 * 128
"""Masked directions in the model that the paper's λ is for."""
PENALTY = 1e-4


class Subspace(NamedTuple):
    """Per head: the basis, rows of [head, direction, d_head], and how much of each direction is kept, [head, direction]."""

    heads: tuple[Head, ...]
    basis: torch.Tensor
    mask: torch.Tensor
    stopped: str

    def projectors(self, keep: float = 0.5) -> dict[Head, torch.Tensor]:
        """P of the directions kept, by head: [d_head, d_head]."""
        kept = (self.mask > keep).float()
        return {head: (v.T * m) @ v for head, v, m in zip(self.heads, self.basis, kept, strict=True)}

    def shuffled(self, seed: int, keep: float = 0.5) -> dict[Head, torch.Tensor]:
        """As many directions of each head, drawn from all: the control."""
        draw = torch.Generator().manual_seed(seed)
        mask = torch.stack([row[torch.randperm(len(row), generator=draw)] for row in self.mask])
        return self._replace(mask=mask).projectors(keep)


def check_weights(model: Any) -> str:
    """Why the basis cannot be had of this model; "" if it can."""
    return (
        "" if "W_Q[0]" in model.card.params else f"{model.card.name} has no W_Q by head, whose directions are a basis"
    )


def learn_subspace(bench: Bench, pairs: Pairs, heads: Sequence[Head], how: Training) -> Subspace:
    """The directions of these heads' queries, at the last token, that make the patched run as gold is."""
    model = bench.model
    basis = _basis(bench, heads)
    mask = torch.ones(basis.shape[:2])
    weight = PENALTY * THEIRS / mask.numel()
    batch = min(how.batch_size, len(pairs))
    data = {"base": list(pairs.batch.prompts), "source": list(pairs.src.prompts), "gold": list(pairs.gold.prompts)}

    def loss(s: Any, rows: Any) -> Any:
        src, gold, run = s.run(rows["source"]), s.run(rows["gold"]), s.run(rows["base"])
        for number, (layer, head) in enumerate(heads):
            own = run.q[layer][:, -1][:, head]
            change = ((src.q[layer][:, -1][:, head] - own) @ basis[number].T) * mask[number] ** 2
            run.q[layer][:, -1, head] = own + change @ basis[number]
        apart = weft.kl(run.logits[:, -1], gold.logits[:, -1]).mean()
        return apart + weight * mask.abs().sum(), {"kl": apart}

    fit = model.fit(
        loss, {"mask": mask}, data, steps=how.steps(len(pairs)), lr=how.lr, optimizer="adamw", batch_size=batch,
        project=lambda m: m.clamp(0, 1) + 1e-4,
    )  # fmt: skip
    bench.records.append(fit.record)
    return Subspace(tuple(heads), basis, fit.params["mask"].detach().clamp(0, 1), fit.stopped)


def _basis(bench: Bench, heads: Sequence[Head]) -> torch.Tensor:
    with bench.session() as s:
        each = [torch.linalg.svd(s.model.W_Q[layer][head], full_matrices=False)[2] for layer, head in heads]
        found = stacked(each).save("basis")
    return found.value.detach().clone()
