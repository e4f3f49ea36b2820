"""The parts of the whole model: the layers through which the stream goes, what enters them, and what reads them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from weft.errors import ModelError
from weft.models.inspecting.watch import Seen, Watch, same

Facts = dict[str, Any]


def layers(watch: Watch, seen: Seen) -> str:
    """The list of modules that a stream [batch, pos, d_model] goes through one after another."""
    found: list[tuple[int, str]] = []
    for path, module in watch.modules.items():
        children = list(module._modules)
        if isinstance(module, nn.ModuleList | nn.Sequential) and children == [str(n) for n in range(len(children))]:
            inside = [f"{path}.{n}" for n in range(len(children))]
            if inside and _chained(seen, inside):
                found.append((sum(each.numel() for each in module.parameters()), path))
    if not found:
        raise ModelError(
            f"{type(watch.original).__name__} has no list of layers (nn.ModuleList) through which a stream [batch, pos, "
            "d_model] goes one after another, so weft's sites are not there; its modules are, by path: run.module(path)"
        )
    return max(found)[1]


def _chained(seen: Seen, inside: list[str]) -> bool:
    """Each takes what the one before gave, as a stream of two batch rows."""
    for before, after in zip([*inside[:1], *inside], inside, strict=False):
        out = seen.gave(after)
        if out is None or out.dim() != 3 or not out.is_floating_point() or seen.took(after, out.shape) is None:
            return False
        if after != inside[0] and not same(seen.gave(before), seen.took(after, out.shape)):
            return False
    return True


def causal(watch: Watch, seen: Seen) -> None:
    """ModelError where what comes later moves what came before."""
    ids = watch.ids.clone()
    ids[:, -1] = (ids[:, -1] + 1) % 2
    other = watch.run(ids=ids).logits
    assert seen.logits is not None and other is not None
    if not same(other[:, :-1], seen.logits[:, :-1]):
        raise ModelError(
            f"{type(watch.original).__name__} is no decoder: another last token moves what it gives at earlier positions. Its "
            "modules are there by path: weft.load(model), run.module(path)"
        )


def end(watch: Watch, seen: Seen, stack: str, last: torch.Tensor) -> Facts:
    """`unembed` and `final_norm`, and what is done to the logits."""
    assert seen.logits is not None
    logits = seen.logits
    outside = [path for path in seen.given if path and not path.startswith(f"{stack}.")]
    for path in outside:
        out, into = seen.gave(path), seen.took(path)
        if out is None or into is None or out.shape != logits.shape or watch.linear(seen, path) is None:
            continue
        done = _logits(out.double(), logits.double())
        if done is not None:
            return {"unembed": path, "final_norm": _final_norm(watch, seen, outside, into, last), **done}
    raise ModelError(
        f"no module of {type(watch.original).__name__} outside its layers gives the logits, as they are, multiplied or capped "
        "by a tanh; weft's tables need an unembedding that is a module (nn.Linear; its weight may be tied)"
    )


def _final_norm(watch: Watch, seen: Seen, outside: list[str], into: torch.Tensor, last: torch.Tensor) -> str:
    found = [path for path in outside if same(seen.gave(path), into) and same(seen.took(path, last.shape), last)]
    if not found:
        raise ModelError(
            "no module takes what the last layer gives and gives what the unembedding takes, so there is no final_norm; where "
            "there is no norm an nn.Identity() in its place will do"
        )
    return min(found, key=lambda path: len(list(watch.modules[path].modules())))


def _logits(given: torch.Tensor, logits: torch.Tensor) -> Facts | None:
    """What makes the logits of what the unembedding gives; None where nothing simple does."""
    if same(given, logits):
        return {}
    times = float((given * logits).sum() / (given * given).sum())
    if times and same(given * times, logits):
        return {"logits_times": round(times, 6)}
    at = logits.abs().argmax()
    value, target = given.flatten()[at].abs(), logits.flatten()[at].abs()
    low, high = float(target), float(target) * 1e4
    for _ in range(200):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if float(middle * torch.tanh(value / middle)) > float(target) else (middle, high)
    cap = float(f"{(low * high) ** 0.5:.5g}")
    return {"softcap": cap} if same(torch.tanh(given / cap) * cap, logits) else None


def start(watch: Watch, seen: Seen, stack: str, first: torch.Tensor, notes: list[str]) -> Facts:
    """`embed` and `positions`; it is noted where more is done between them and layer 0."""
    tokens = positions = ""
    facts: Facts = {}
    for path in (path for path in seen.given if path and not path.startswith(f"{stack}.")):
        weight, out = getattr(watch.modules[path], "weight", None), seen.gave(path)
        if weight is None or weight.dim() != 2 or out is None or out.shape[-1] != weight.shape[1]:
            continue
        rows, width = weight.detach().double(), out.shape[-1]
        into = seen.took(path)
        if not tokens and into is not None and torch.equal(into.cpu(), watch.ids) and out.shape[:2] == watch.ids.shape:
            got, stored = out.double(), rows[watch.ids]
            times = float((got * stored).sum() / (stored * stored).sum())
            if same(got, stored * times):
                tokens = path
        elif not positions and out.reshape(-1, width).shape[0] >= watch.ids.shape[1]:
            mine = out.reshape(-1, width)[: watch.ids.shape[1]].double()
            begins = [at for at in range(len(rows) - len(mine) + 1) if same(rows[at : at + len(mine)], mine)]
            if begins:
                positions, facts = path, {"positions_from": begins[0]} if begins[0] else {}
    if not tokens:
        raise ModelError("no module gives a row of its weight for each token id, so there is no embed (nn.Embedding)")
    made = seen.gave(tokens)
    place = seen.gave(positions) if positions else None
    whole = made if place is None or made is None else made + place.reshape(-1, *place.shape[-2:])
    if whole is None or not same(whole, first):
        notes.append(
            f"between {tokens} and layer 0 more is done than adding positions (a multiplier, a norm); embed is after it"
        )
    return {"embed": tokens, "positions": positions, **facts}


def subtracts_mean(watch: Watch, path: str, value: torch.Tensor) -> bool:
    """Whether a norm gives the same of x and x + 1: a LayerNorm does, an RMS norm does not."""
    with torch.no_grad():
        module = watch.modules[path]
        return same(module(value + 1.0), module(value), close=1e-2)
