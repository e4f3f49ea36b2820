"""Each everyday experiment written by hand with hooks: `BY_HAND["head_grid"](plain, example)` gives its results."""

from __future__ import annotations

from typing import Any

import torch
from plain import Plain, replaced

Results = dict[str, torch.Tensor]


def _last_diff(logits: torch.Tensor, right: int, wrong: int) -> torch.Tensor:
    return logits[0, -1, right] - logits[0, -1, wrong]


def _log_prob(logits: torch.Tensor, answer: int) -> torch.Tensor:
    return torch.log_softmax(logits[0, -1], -1)[answer]


def head_grid(p: Plain, e: Any) -> Results:
    def mean(prompts: list[str], edits_of: Any = lambda row: []) -> torch.Tensor:
        rows = zip(prompts, e.RIGHT, e.WRONG, strict=True)
        diffs = [_last_diff(p.logits(t, edits_of(i)), p.token(r), p.token(w)) for i, (t, r, w) in enumerate(rows)]
        return torch.stack(diffs).mean()

    top, bottom = mean(e.CLEAN), mean(e.CORRUPT)
    grid = torch.zeros(p.n_layers, p.n_heads)
    for layer, head in p.heads:
        place = (slice(None), -1, p.columns(head))
        clean = [p.z(layer, text)[place] for text in e.CLEAN]
        edit = lambda row: [p.before(p.o(layer), lambda x: replaced(x, place, clean[row]))]  # noqa: B023, E731
        grid[layer, head] = (mean(e.CORRUPT, edit) - bottom) / (top - bottom)
    return {"grid": grid}


def path_patching(p: Plain, e: Any) -> Results:
    (first, sender), (last, receiver) = e.SENDER, e.RECEIVER
    place, asked = (..., p.columns(sender)), (..., p.columns(receiver))
    clean = p.z(first, e.CLEAN)[place]
    edits = [p.before(p.o(first), lambda x: replaced(x, place, clean))]
    for layer in range(first, last):
        edits.append(p.after(p.mlp(layer), _constant(p.taken(p.mlp(layer), e.CORRUPT))))
    for layer in range(first + 1, last):
        edits.append(p.after(p.attention(layer), _constant(p.taken(p.attention(layer), e.CORRUPT))))
    direct, base = p.taken(p.q(last), e.CORRUPT, edits=edits)[asked], p.taken(p.q(last), e.CORRUPT)[asked]
    before = p.logits(e.CORRUPT)[:, -1]
    after = p.logits(e.CORRUPT, [p.after(p.q(last), lambda x: replaced(x, asked, direct))])[:, -1]
    log_p, log_q = before.log_softmax(-1), after.log_softmax(-1)
    return {
        "query moved by": (direct - base).norm(dim=-1),
        "logits moved by": after - before,
        "kl": (log_p.exp() * (log_p - log_q)).sum(-1),
    }


def _constant(value: torch.Tensor) -> Any:
    return lambda _: value


def collect_and_probe(p: Plain, e: Any) -> Results:
    x = [torch.stack([p.resid(layer, text)[0, -1].double() for text in e.PROMPTS]) for layer in range(p.n_layers)]
    probes, right = [], []
    for rows in x:
        one = torch.cat([rows, torch.ones(len(rows), 1).double()], 1)
        probes.append(torch.linalg.solve(one.T @ one + e.RIDGE * torch.eye(one.shape[1]).double(), one.T @ e.IS_ANIMAL))
        right.append(((one @ probes[-1]).sign() == e.IS_ANIMAL).double().mean())
    return {"probes": torch.stack(probes), "right": torch.stack(right)}


def logit_lens(p: Plain, e: Any) -> Results:
    rows, leading, last = [], [], []
    for text, answer in zip(e.PROMPTS, e.ANSWERS, strict=True):
        with torch.no_grad():
            lens = [p.module.lm_head(p.norm(p.resid(layer, text)))[:, -1:] for layer in range(p.n_layers)]
        rows.append(torch.stack([_log_prob(each, p.token(answer)) for each in lens]))
        leading.append(torch.stack([each[0, -1].argmax() for each in lens]))
        last.append((lens[-1][:, -1] - p.logits(text)[:, -1]).abs().max())
    return {
        "log-probability": torch.stack(rows, 1),
        "leading": torch.stack(leading, 1),
        "last layer against the model": torch.stack(last).max(),
    }


def steering(p: Plain, e: Any) -> Results:
    means = [torch.stack([p.resid(e.LAYER, t)[0, -1] for t in texts]).mean(0) for texts in (e.GLAD, e.SAD)]
    vector = means[0] - means[1]

    def steered(text: str, schedule: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
        """The whole text again at each step, so no cache is trusted: earlier steps' edits stay where they were made."""
        ids = p.ids(text)
        start = ids.shape[1] - 1
        for step in range(len(schedule)):
            change = torch.zeros(ids.shape[1], 1)
            change[start:, 0] = torch.tensor(schedule[: step + 1])
            logits = p.logits(ids, [p.after(p.layers[e.LAYER], lambda x: x + change * vector)])[:, -1]  # noqa: B023
            ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], 1)
        return ids[0, start + 1 :], logits[0]

    plain = [steered(text, [0.0] * len(e.SCHEDULE))[0] for text in e.PROMPTS]
    found = [steered(text, e.SCHEDULE) for text in e.PROMPTS]
    return {
        "vector": vector,
        "plain": torch.stack(plain),
        "steered": torch.stack([tokens for tokens, _ in found]),
        "last logits": torch.stack([logits for _, logits in found]),
    }


def sae_splice(p: Plain, e: Any) -> Results:
    sae, strongest, effect = e.SAE(p.d_model), [], []
    for text in e.PROMPTS:
        with torch.no_grad():
            x = p.resid(e.LAYER, text)
            features = sae(x)
            error = x - (features @ sae.decoder + sae.bias)
            best = features[0, -1].argmax()
            features[0, -1, best] = 0
            new = features @ sae.decoder + sae.bias + error
        strongest.append(best)
        effect.append((p.logits(text, [p.after(p.layers[e.LAYER], _constant(new))]) - p.logits(text))[0, -1])
    return {"strongest feature": torch.stack(strongest), "effect": torch.stack(effect)}


def function_vector(p: Plain, e: Any) -> Results:
    mean = [torch.stack([p.z(layer, text)[0, -1] for text in e.SHOWN]).mean(0) for layer in range(p.n_layers)]
    answers = [p.token(answer) for answer in e.ANSWERS]

    def prob(edits: Any) -> torch.Tensor:
        found = [_log_prob(p.logits(t, edits), a).exp() for t, a in zip(e.SHUFFLED, answers, strict=True)]
        return torch.stack(found)

    effect = torch.zeros(p.n_layers, p.n_heads)
    for layer, head in p.heads:
        place = (slice(None), -1, p.columns(head))
        edit = p.before(p.o(layer), lambda x: replaced(x, place, mean[layer][p.columns(head)]))  # noqa: B023
        effect[layer, head] = (prob([edit]) - prob([])).mean()
    said = torch.stack([mean[layer][p.columns(head)] @ p.w_o(layer, head) for layer, head in p.heads])
    vector = said[effect.flatten().topk(e.TOP).indices].sum(0)
    kl = []
    for text in e.ZERO_SHOT:
        edit = p.after(p.layers[e.LAYER], lambda x: replaced(x, (0, -1), x[0, -1] + vector))
        new, old = p.logits(text, [edit])[0, -1].log_softmax(-1), p.logits(text)[0, -1].log_softmax(-1)
        kl.append((old.exp() * (old - new)).sum())
    return {"effect": effect, "vector": vector, "kl": torch.stack(kl)}


def filter_heads(p: Plain, e: Any) -> Results:
    width = max(p.ids(text).shape[1] for text in e.TARGET)
    more, patterns, moved = [], [], []
    for source, target, wanted in zip(e.SOURCE, e.TARGET, e.WANTED, strict=True):
        query = p.taken(p.q(e.LAYER), source)[0, p.place(source, "?"), p.columns(e.HEAD)]
        here = p.place(target, "?")
        change = lambda x: replaced(x, (0, here, p.columns(e.HEAD)), query)  # noqa: B023, E731
        with torch.no_grad():
            old = p.call(target, output_attentions=True)
            new = p.call(target, [p.after(p.q(e.LAYER), change)], output_attentions=True)
        before, after = (each.attentions[e.LAYER][0, e.HEAD, here] for each in (old, new))
        more.append((after - before)[p.place(target, wanted)])
        patterns.append(torch.cat([torch.zeros(width - len(after)), after]))
        moved.append((new.logits - old.logits)[0, -1])
    return {
        "more attention": torch.stack(more),
        "pattern": torch.stack(patterns),
        "logits moved by": torch.stack(moved),
    }


def attention_knockout(p: Plain, e: Any) -> Results:
    lost = torch.zeros(p.n_layers - e.WINDOW + 1, len(e.PROMPTS))
    for row, (text, answer) in enumerate(zip(e.PROMPTS, e.ANSWERS, strict=True)):
        key = p.place(text, answer)
        for first in range(len(lost)):
            edits = [p.masked(layer, -1, key) for layer in range(first, first + e.WINDOW)]
            whole, blocked = p.logits(text), p.logits(text, edits)
            lost[first, row] = _log_prob(whole, p.token(answer)) - _log_prob(blocked, p.token(answer))
    return {"lost": lost}


def gradient_attribution(p: Plain, e: Any) -> Results:
    zs: list[torch.Tensor] = []

    def leaf(x: torch.Tensor) -> torch.Tensor:
        zs.append(x.detach().requires_grad_() if not zs else x)
        zs[-1].retain_grad()
        return zs[-1]

    logits = p.call(e.CORRUPT, [p.before(p.o(layer), leaf) for layer in range(p.n_layers)]).logits
    metric = _last_diff(logits, p.token(" Paris"), p.token(" Rome"))
    gradients = torch.autograd.grad(metric, zs)
    change = [p.z(layer, e.CLEAN) - z.detach() for layer, z in enumerate(zs)]
    products = [(c * g).unflatten(-1, (p.n_heads, -1)).sum((0, 1, 3)) for c, g in zip(change, gradients, strict=True)]
    return {"attribution": torch.stack(products), "metric": metric.detach()}


def submit_and_fetch(p: Plain, e: Any) -> Results:
    whole, ablated = [], []
    for text, answer in [
        ("The Eiffel Tower is in Paris. The Eiffel Tower is in", " Paris"),
        ("A red cat and a red", " cat"),
    ]:
        edit = p.after(p.attention(p.n_layers - 1), lambda x: replaced(x, (0, -1), 0.0))
        whole.append(_log_prob(p.logits(text), p.token(answer)))
        ablated.append(_log_prob(p.logits(text, [edit]), p.token(answer)))
    return {"whole": torch.stack(whole), "ablated": torch.stack(ablated)}


def das(plain: Plain, ex: Any) -> Results:
    """A training loop of its own: gradients by autograd, torch's SGD, the basis made orthogonal again."""
    words = torch.tensor([plain.token(word) for word in ex.ANIMALS])
    plane = torch.linalg.qr(torch.randn(plain.d_model, 2, generator=torch.Generator().manual_seed(0))).Q
    plane.requires_grad_()
    optimiser = torch.optim.SGD([plane], lr=0.1, momentum=0.9)
    base, source = (plain.tokenizer(texts, return_tensors="pt").input_ids for texts in (ex.BASE, ex.SOURCE))
    there = plain.resid(ex.LAYER, source)[:, -1]
    losses, right = [], []
    for _ in range(30):
        put = lambda x: replaced(x, (slice(None), -1), x[:, -1] + (there - x[:, -1]) @ plane @ plane.T)  # noqa: E731
        said = plain.call(base, [plain.after(plain.layers[ex.LAYER], put)]).logits[:, -1][:, words]
        loss = torch.nn.functional.cross_entropy(said, ex.ANSWERS)
        losses.append(loss.detach())
        right.append((said.argmax(-1) == ex.ANSWERS).float().mean())
        (plane.grad,) = torch.autograd.grad(loss, plane)
        optimiser.step()
        with torch.no_grad():
            q, r = torch.linalg.qr(plane)
            plane.copy_(q * torch.where(r.diagonal() < 0, -1.0, 1.0))
    return {"plane": plane.detach(), "loss": torch.stack(losses).double(), "right": torch.stack(right).double()}


BY_HAND = {
    each.__name__: each
    for each in (
        head_grid, path_patching, logit_lens, steering, sae_splice, function_vector, filter_heads, attention_knockout,
        gradient_attribution, submit_and_fetch, collect_and_probe, das,
    )
}  # fmt: skip
