"""Induction heads: at a token seen before, they look at what followed it then, or a few places further on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import xarray as xr

import weft
from weft.methods.places import numbers
from weft.methods.result import Result

FURTHEST = 4
"""Places after a token's first time at which heads are looked for."""


@dataclass(frozen=True, kw_only=True)
class InductionHeads(Result):
    """What `induction_heads` found: "attention" and "previous" [layer, head], "later" [after, layer, head], "copied" [].

    "attention" is "later" at 1; "copied" is the share of tokens foretold.
    """

    method: str = "induction_heads"

    def title(self, name: str | None = None) -> str:
        where = {
            "attention": "to what followed it before",
            "previous": "to the token just before",
            "later": "to a place after its first time",
        }
        return f"Attention at a repeated token {where.get(name or self.main, '')} ({self.model})"

    def above(self, least: float = 0.5, after: int = 1) -> list[tuple[int, int]]:
        """(layer, head) of the heads whose score `after` places on is at least `least`, the strongest first."""
        known = self["later"].coords["after"].values.tolist()
        if after not in known:
            raise weft.errors.ProgramError(f"after is one of {', '.join(map(str, known))} places, not {after!r}")
        scores = self["later"].sel(after=after).values
        order = sorted(
            ((float(scores[i, h]), i, h) for i, h in zip(*(scores >= least).nonzero(), strict=True)), reverse=True
        )
        return [(int(i), int(h)) for _, i, h in order]

    def strongest(self) -> int:
        """How many places after the first time the strongest head looks: 1 in the textbook."""
        return int(self["later"].max(("layer", "head")).idxmax("after"))


def induction_heads(model: Any, *, n: int = 16, length: int = 20, seed: int = 0, plan: str = "auto") -> InductionHeads:
    """How much each head attends, from a repeated token, to what followed it the first time (prefix matching).

        found = weft.methods.induction_heads(model)
        found.above(0.5), found.plot(), float(found["copied"])

    `n` rows of `length` different random tokens said twice, without text: any decoder with the site `pattern` will do, and it
    needs no tokenizer (the token that one puts before every text comes first). attention[l, h] = mean of
    pattern[l][row, h, t, t − length + 1] over t of the second time; previous[l, h] is the mean attention to the token just
    before, which such heads need in a lower layer. "copied": how often the likeliest next token is the right one there.
    "later" has the same for places 2, 3 and 4 after the first time: where lower heads have carried its neighbours along, a
    head may find there what the textbook's finds at 1 (in bobbin it does): `found.strongest()`, `found.above(after=4)`.

    Olsson et al. (arXiv 2209.11895), "prefix matching"; Todd et al. (2310.15213), appendix. It misleads where a head looks
    there and writes nothing: patch it to know. SiteError, with the reason, where the model has no `pattern`.
    """
    if n < 1 or length < 3:
        raise weft.errors.ProgramError(
            f"n={n}, length={length}: at least one row of three tokens, as in n=16, length=20"
        )
    generator = torch.Generator().manual_seed(seed)
    draws = [torch.randperm(model.d_vocab, generator=generator)[:length] for _ in range(n)]
    once = torch.stack(draws)
    opens = torch.tensor([[model.tokens.bos_id]] * n if model.tokens and model.tokens.adds_bos else [[]] * n).long()
    ids = torch.cat([opens, once, once], 1)
    here = opens.shape[1] + torch.arange(length, 2 * length - 1)
    places = range(1, min(FURTHEST, length - 1) + 1)
    with model.session(plan=plan) as s:
        run = s.run(ids)
        patterns = [run.pattern[layer] for layer in range(model.n_layers)]
        for after in places:
            seen = torch.stack([each[:, :, here, here - length + after].mean((0, 2)) for each in patterns])
            seen.save(f"after {after}")  # type: ignore[attr-defined]
        torch.stack([each[:, :, here, here - 1].mean((0, 2)) for each in patterns]).save("previous")  # type: ignore[attr-defined]
        (run.logits[:, here].argmax(-1) == ids[:, here + 1]).float().mean().save("copied")
    axes = {"layer": range(model.n_layers), "head": range(model.n_heads)}
    grids = {
        name: xr.DataArray(numbers(s.results[saved]), dims=("layer", "head"), coords=axes)
        for name, saved in (("attention", "after 1"), ("previous", "previous"))
    }
    later = [numbers(s.results[f"after {after}"]) for after in places]
    grids["later"] = xr.DataArray(later, dims=("after", "layer", "head"), coords={"after": list(places), **axes})
    return InductionHeads(
        model=model.card.name,
        mediator="attention heads",
        search="exhaustive",
        intervention="none: attention is read",
        metric="mean attention to what followed the same token before",
        control=f"even attention to all before: about {1 / (1.5 * length):.3f}",
        seeds=(seed,),
        settings={"n": n, "length": length},
        arrays=grids | {"copied": xr.DataArray(float(s.results["copied"]))},
        records=(s.record,),
    )
