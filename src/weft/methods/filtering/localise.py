"""Other ways to find the heads, and what becomes of the model without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from weft.methods.filtering.bench import stacked
from weft.methods.filtering.effects import Effect, Sets
from weft.methods.filtering.pairs import chosen
from weft.methods.filtering.patch import Head, patched, queries
from weft.methods.filtering.sheet import sheet

if TYPE_CHECKING:
    from weft.methods.filtering.bench import Bench
    from weft.methods.filtering.pairs import Pairs


def attention(bench: Bench, pairs: Pairs) -> torch.Tensor:
    """How much the last token attends to the right option's tokens, mean over pairs: [layer, head]."""
    total = torch.zeros(bench.model.n_layers, bench.model.n_heads)
    for part in pairs.chunks():
        with bench.session() as s:
            run = s.run(list(part.batch.prompts))
            first, last = (part.batch.positions(run, "answer", end) for end in ("first", "last"))
            place = torch.arange(run.pos)[None, :]
            item = ((place >= first[:, None]) & (place <= last[:, None])).float()
            each = [(run.pattern[layer][:, :, -1] * item[:, None]).sum(-1).sum(0) for layer in range(len(total))]
            found = stacked(each).save("attention")
        total += found.value
    return total / len(pairs)


def strongest(grid: torch.Tensor, count: int) -> list[Head]:
    """The `count` heads of highest value."""
    order = grid.flatten().argsort(descending=True, stable=True)[:count]
    return sorted(divmod(int(at), grid.shape[1]) for at in order)


def knocked_out(bench: Bench, pairs: Pairs, sets: Sets) -> dict[Any, Effect]:
    """How often dst is answered rightly when the last token of these heads may attend to the first token (BOS) alone."""
    found: dict[Any, list[torch.Tensor]] = {name: [] for name in sets}
    for part in pairs.chunks():
        with bench.session() as s:
            base = s.run(part.dst.texts)
            block = _block(base, part)
            saved = {name: part.dst.scores(_blocked(base, block, heads)).save() for name, heads in sets.items()}
        for name, scores in saved.items():
            found[name].append(scores.value)
    chance = float((1 / pairs.dst.options.sum(-1)).mean())
    return {
        name: Effect(chosen(torch.cat(scores), pairs.dst.options) == pairs.answer, torch.zeros(len(pairs)), chance)
        for name, scores in found.items()
    }


def _block(run: Any, pairs: Pairs) -> torch.Tensor:
    """−inf on every key but the row's first, for queries from the prompt's last token on: [row, query, key].

    Queries are counted from the end; words of several tokens are read by those tokens too, so they are blocked as well.
    """
    sheet = pairs.dst
    tails = torch.zeros(run.batch, dtype=torch.long) if sheet.mode == "first_token" else sheet.tails.reshape(-1)
    late = int(tails.max()) + 1
    queries = torch.arange(-late, 0)[None, :] >= -1 - tails[:, None]
    keys = torch.arange(run.pos)[None, :] != run.start[:, None]
    return torch.zeros(run.batch, late, run.pos).masked_fill_(queries[:, :, None] & keys[:, None, :], -torch.inf)


def _blocked(run: Any, block: torch.Tensor, heads: Sequence[Head]) -> Any:
    fork = run.fork()
    late = block.shape[1]
    for layer, head in heads:
        fork.scores[layer][:, head, -late:] += block
    return fork


def check_scores(model: Any) -> str:
    """Why attention cannot be blocked in this model; "" if it can."""
    return model.support("scores")


def looks(bench: Bench, pairs: Pairs, heads: Sequence[Head], at: Sequence[Any]) -> torch.Tensor:
    """What these heads attend to from the last token, [before/after the patch, answer/target/mean of the other options]."""
    total = torch.zeros(2, 3)
    for part in pairs.chunks():
        width = len(part.batch.inputs[0]["items"])
        places = [[row["items"].index(word.strip()) for row, word in zip(part.batch.inputs, said, strict=True)]
                  for said in (part.batch.answers, part.batch.expected)]  # fmt: skip
        asked = sheet(bench.model, part.batch, [()] * len(part), "first_token")
        with bench.session() as s:
            run = s.run(list(part.batch.prompts))
            fork = patched(run, asked, at, queries(s, part.src, heads, at))
            ends = [[part.batch.positions(run, f"option_{n}", end) for end in ("first", "last")] for n in range(width)]
            place = torch.arange(run.pos)[None, :]
            items = torch.stack([((place >= low[:, None]) & (place <= high[:, None])).float() for low, high in ends], 1)
            each = [_looked(one, heads, items) for one in (run, fork)]
            stacked(each).save("looks")  # [when, row, item]
        seen, rows = s.results["looks"], torch.arange(len(part))
        mine, theirs = (seen[:, rows, torch.tensor(place)] for place in places)
        others = (seen.sum(-1) - mine - theirs) / max(1, width - 2)
        total += torch.stack([mine, theirs, others], -1).sum(1)
    return total / len(pairs)


def _looked(run: Any, heads: Sequence[Head], items: torch.Tensor) -> Any:
    each = [(run.pattern[layer][:, head, -1][:, None, :] * items).sum(-1) for layer, head in heads]
    return torch.stack(each).mean(0)
