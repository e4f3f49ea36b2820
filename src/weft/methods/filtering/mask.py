"""The learned mask over heads: `q ← q + m (q_src − q)` in all heads at once, by gradients through the patched run.

Loss: −score[target] + mean score[other options of dst, and src's answer] + λ‖m‖₁; AdamW at 1e-2 from m = 1; after each step
m is clamped to [0, 1] and 1e-4 added; kept are heads with m > 0.5. λ multiplies a sum over all heads. The paper's 2e-2 is
for 5,120 of them: here λ = 2e-2 · 5120 / (layers · heads), so that the whole mask costs the same in a model of any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from weft.methods.filtering.patch import spot

if TYPE_CHECKING:
    from weft.methods.filtering.bench import Bench
    from weft.methods.filtering.pairs import Pairs
    from weft.methods.filtering.sheet import Place, Sheet

THEIRS = 5120
"""Layers times heads of the model that the paper's λ is for."""


class Learned(NamedTuple):
    """A mask and how its training went."""

    mask: torch.Tensor
    loss: torch.Tensor
    """Of each step, before its change."""
    stopped: str


class Training(NamedTuple):
    """`epochs` over the pairs, `batch_size` pairs a step."""

    epochs: int
    batch_size: int
    penalty: float
    lr: float = 1e-2

    def steps(self, pairs: int) -> int:
        return max(1, self.epochs * pairs // min(self.batch_size, pairs))


def learn_mask(bench: Bench, pairs: Pairs, at: Sequence[Place], how: Training) -> Learned:
    """The mask [layer, head] in [0, 1], learned where the model is."""
    model, sheet = bench.model, pairs.dst
    mask = torch.ones(model.n_layers, model.n_heads)
    weight = how.penalty * THEIRS / mask.numel()
    data, here, there = _columns(model, pairs, at)
    batch = min(how.batch_size, len(pairs))

    def loss(s: Any, rows: Any) -> Any:
        src, run = s.run(rows["source"]), s.run(rows["base"])
        for layer in range(model.n_layers):
            for mine, theirs in zip(here, there, strict=True):
                own = run.q[layer][spot(run, rows.get(mine, mine))]
                other = src.q[layer][spot(src, rows.get(theirs, theirs))]
                run.q[layer][spot(run, rows.get(mine, mine))] = own + mask[layer][:, None] * (other - own)
        told = (_scored(sheet, run, rows) * rows["weigh"]).sum() / batch
        return told + weight * mask.abs().sum(), {"effect": told}

    fit = model.fit(
        loss, {"mask": mask}, data, steps=how.steps(len(pairs)), lr=how.lr, optimizer="adamw",
        batch_size=batch * sheet.each, project=lambda m: m.clamp(0, 1) + 1e-4,
    )  # fmt: skip
    bench.records.append(fit.record)
    return Learned(fit.params["mask"].detach().clamp(0, 1), fit.loss, fit.stopped)


def _scored(sheet: Sheet, run: Any, rows: Any) -> Any:
    """Scores of the words, [row, word]; of whole answers [row, 1], as each word has a row of its own."""
    if sheet.mode == "first_token":
        return run.logits[:, -1].gather(-1, rows["ids"])
    longest = int(sheet.tails.max())
    logs = torch.log_softmax(run.logits[:, -1 - longest : -1], -1)
    return (logs.gather(-1, rows["said"][..., None])[..., 0] * rows["mine"]).sum(-1, keepdim=True)


def _columns(model: Any, pairs: Pairs, at: Sequence[Place]) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """The data of `fit`, and for each place how a step finds it in dst and in src: a position, or a column's name."""
    sheet = pairs.dst
    sources = [prompt for prompt in pairs.src.prompts for _ in range(sheet.each)]
    data: dict[str, Any] = {"base": sheet.texts, "source": sources}
    weigh = _weights(pairs)
    if sheet.mode == "first_token":
        data |= {"ids": sheet.ids, "weigh": weigh}
    else:
        longest, tails = int(sheet.tails.max()), sheet.tails.reshape(-1, 1)
        mine = (torch.arange(-longest, 0)[None, :] >= -tails).float()
        said = model.tokens.encode(sheet.texts).ids[:, -longest:]
        data |= {"said": said, "mine": mine, "weigh": weigh.reshape(-1, 1)}
    with model.session(run=False) as s:
        run, other = s.run(sheet.texts), s.run(sources)
        here = [_column(data, f"here {n}", place) for n, place in enumerate(sheet.places(run, at))]
        repeated = pairs.src.take([row for row in range(len(pairs)) for _ in range(sheet.each)])
        theirs = [repeated.positions(other, place) if isinstance(place, str) else place for place in at]
        there = [_column(data, f"there {n}", place) for n, place in enumerate(theirs)]
    return data, here, there


def _column(data: dict[str, Any], name: str, place: Any) -> Any:
    if isinstance(place, int):
        return place
    data[name] = place
    return name


def _weights(pairs: Pairs) -> torch.Tensor:
    """What each word's score counts in the loss: −1 the target, all others one part of their number; [pair, word]."""
    rows = torch.arange(len(pairs))
    others = pairs.dst.valid.clone()
    others[rows, pairs.target] = False
    weigh = others / others.sum(-1, keepdim=True)
    weigh[rows, pairs.target] = -1
    return weigh.float()
