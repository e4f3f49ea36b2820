"""weft: each task as its user writes it, with no thought for speed."""

from __future__ import annotations

import torch

import weft
from sweeping.models import shared, tokenizer
from sweeping.tasks import Data

LIBRARY = "weft"
CANNOT: dict[str, str] = {}
PLAN = "auto"


def setup(name: str, memory: int | None = None):
    model = shared(name)
    return weft.load(model, tokenizer=tokenizer(model.config.vocab_size), name=name, memory=memory)


def _metric(logits, data: Data):
    if data.others:
        return weft.logit_diff(logits, data.answers, data.others)
    return weft.log_prob(logits, data.answers)


def heads(model, data: Data) -> torch.Tensor:
    with model.session(plan=PLAN) as s:
        clean, corrupt = s.run(data.clean), s.run(data.corrupt)
        found = []
        for layer, head in data.patches:
            patched = corrupt.fork()
            if data.at:
                places = patched.start + torch.tensor(data.at)
                patched.z[layer][patched.rows, places, head] = clean.z[layer][clean.rows, places, head]
            else:
                patched.z[layer][:, -1, head] = clean.z[layer][:, -1, head]
            found.append(_metric(patched.logits[:, -1], data))
        torch.stack(found).save("result")
    return _done(s)


def positions(model, data: Data) -> torch.Tensor:
    with model.session(plan=PLAN) as s:
        clean, corrupt = s.run(data.clean), s.run(data.corrupt)
        found = []
        for layer, place in data.patches:
            patched = corrupt.fork()
            patched.resid_post[layer][:, place] = clean.resid_post[layer][:, place]
            found.append(_metric(patched.logits[:, -1], data))
        torch.stack(found).save("result")
    return _done(s)


def attribution(model, data: Data) -> torch.Tensor:
    with model.session(plan=PLAN) as s:
        clean, corrupt = s.run(data.clean), s.run(data.corrupt)
        names = ("z", "attn_out", "mlp_out", "resid_post")
        metric = _metric(corrupt.logits[:, -1], data).sum()
        sites = [site for name in names for site in getattr(corrupt, name)]
        before = [site for name in names for site in getattr(clean, name)]
        gradients = weft.grad(metric, sites)
        effects = [((a - b) * g).flatten(1).sum(1) for a, b, g in zip(before, sites, gradients, strict=True)]
        torch.stack(effects).save("result")
    return _done(s)


def lens(model, data: Data) -> torch.Tensor:
    with model.session(plan=PLAN) as s:
        run = s.run(data.clean)
        found = [_metric(model.unembed(model.final_norm(h[:, -1])), data) for h in run.resid_post]
        torch.stack(found).save("result")
    return _done(s)


def one_edit(model, data: Data) -> torch.Tensor:
    with model.trace(torch.tensor(data.clean), plan=PLAN) as run:
        run.resid_post[0][:, -1] += data.vectors[0]
        logits = run.logits[:, -1].save()
    return logits.value


def together(model, data: Data) -> torch.Tensor:
    with model.session(plan=PLAN) as s:
        found = []
        for layer, row in data.patches:
            run = s.run([data.clean[row]])
            run.resid_post[layer][:, data.at[row] if data.at else -1] += data.vectors[row]
            found.append(weft.log_prob(run.logits[:, -1], data.answers[row]))
        torch.cat(found).save("result")
    return _done(s)


prefixes = together


def generation(model, data: Data) -> torch.Tensor:
    with model.session(plan=PLAN) as s:
        made = s.generate(data.clean, max_new_tokens=data.steps)
        made.each.resid_post[data.layer] += data.vectors[0]
        made.tokens.save("result")
    return _done(s)


def _done(session) -> torch.Tensor:
    WORK.clear()
    WORK.update(session.outcome.work)
    return session.results["result"]


WORK: dict[str, float] = {}
"""What the last session says of its work."""
