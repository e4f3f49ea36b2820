"""Whether bobbin's mechanisms are there, by plain hooks: accuracy alone does not say so.

found = screen(model, tokenizer)                       # {"predicates": Finding(passed=True, …), …}

induction    heads that, at a repeated token, look at what followed it before or a few places on (prefix matching), and without
             which copying falls to less than half
functions    few heads' mean outputs, put into prompts without examples, bring the answer (indirect effect)
predicates   few heads' queries, from the "?" on, taken from a question about another category, make it choose by that one
concepts     few heads' outputs at the last token, taken from a list in other languages, bring that list's concept in the
             prompt's own language (Feucht et al., arXiv 2504.03022); the stream at the word's end is shown beside it
pointers     the stream at the last token, taken from a reversed story of other states, brings neither story's own answer but
             what stands at that place here
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from weft import tasks
from weft.bobbin import hooks

RELATIONS = (
    "plural",
    "category",
    "noun_capitals",
    "to_tavi",
    "gerund",
    "opposite",
    "superlative",
    "capital",
    "nationality",
)
FEW = 4
"""Heads patched together, where a few are to suffice."""
ENOUGH = 0.5
"""From here on a rate passes."""
FURTHEST = 4
"""Places after a token's first time at which its induction head is looked for."""


@dataclass(frozen=True)
class Finding:
    """One row of the card: whether it was found, by which measure, and the figures by head or layer."""

    passed: bool
    says: str
    figures: dict[str, Any]


class Sheet:
    """Prompts as token ids, padded on the right, with places and first tokens of answers."""

    def __init__(self, tokenizer: Any, prompts: tasks.Prompts) -> None:
        self.tokenizer = tokenizer
        self.encoded = tokenizer.encode_batch(list(prompts.prompts))
        self.size = max(len(each.ids) for each in self.encoded)
        self.ids = torch.tensor([each.ids + [0] * (self.size - len(each.ids)) for each in self.encoded])
        self.last = torch.tensor([[len(each.ids) - 1] for each in self.encoded])
        self.prompts = prompts

    def end_of(self, role: str) -> torch.Tensor:
        """The place of a role's last token: [row, 1]."""
        return torch.tensor([
            [next(place for place, (_, stop) in enumerate(each.offsets) if stop >= span.end)]
            for each, span in zip(self.encoded, self.prompts.roles[role], strict=True)
        ])  # fmt: skip

    def from_role(self, role: str, count: int) -> torch.Tensor:
        """The last `count` places: from the role's end on, which must be as far from the end in every row."""
        assert bool((self.last - self.end_of(role) == count - 1).all())
        return self.last + torch.arange(1 - count, 1)

    def first(self, answer: str) -> int:
        """The first token of an answer."""
        return self.tokenizer.encode(answer, add_special_tokens=False).ids[0]


def screen(model: Any, tokenizer: Any, n: int = 96, seed: int = 20_000) -> dict[str, Finding]:
    """All five mechanisms, pointers in stories of three layouts, on `n` pairs each; half a minute on two cores."""
    return {
        "induction": induction(model, seed),
        "functions": functions(model, tokenizer, n, seed),
        "predicates": predicates(model, tokenizer, n, seed),
        "concepts": concepts(model, tokenizer, n, seed),
        "pointers": pointers(model, tokenizer, n, seed),
        "pointers_crossed": pointers(model, tokenizer, n, seed, layout="crossed", characters=3),
        "pointers_numbered": pointers(model, tokenizer, n, seed, layout="numbered"),
    }


def induction(model: Any, seed: int = 20_000, n: int = 32, length: int = 20) -> Finding:
    """Heads that find a repeated random token's first time: their attention to the places after it, and copying without them.

    The place that follows is the textbook's. Where lower heads have moved a token's neighbours along, a head may look a few
    places further on and find the same there.
    """
    generator = torch.Generator().manual_seed(seed)
    once = torch.stack(
        [torch.randperm(model.config.vocab_size - 3, generator=generator)[:length] + 3 for _ in range(n)]
    )
    ids = torch.cat([torch.zeros(n, 1, dtype=torch.long), once, once], 1)
    here = torch.arange(length + 1, 2 * length)
    patterns = _patterns(model, ids)
    after = {step: patterns[..., here, here - length + step].mean((1, 3)) for step in range(1, FURTHEST + 1)}
    step = max(after, key=lambda each: float(after[each].max()))
    best, at = _best(after[step])
    found = [divmod(int(cell), after[step].shape[1]) for cell in (after[step].flatten() >= ENOUGH).nonzero()]
    silent = {
        ("z", layer): hooks.put(torch.zeros(n, 2 * length + 1, *_head_sizes(model)), _everywhere(ids), heads)
        for layer, heads in _grouped(found).items()
    }
    whole, without = (_copied(hooks.run(model, ids, edits), ids, here) for edits in ({}, silent))
    says = (
        f"head {at} looks {step} after the same token's first time with {best:.2f} of its attention; "
        f"copying is {whole:.2f}, and {without:.2f} without the {len(found)} heads that do"
    )
    figures = {"by_head": _rounded(after[step]), "after": step, "copied": whole, "without": without}
    return Finding(bool(found) and whole >= ENOUGH and without <= whole / 2, says, figures)


def _patterns(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Attention [layer, row, head, query, key]."""
    kind = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the only one that gives its patterns
    try:
        with torch.no_grad():
            return torch.stack(model(input_ids=ids, use_cache=False, output_attentions=True).attentions)
    finally:
        model.set_attn_implementation(kind)


def _head_sizes(model: Any) -> tuple[int, int]:
    return model.config.num_attention_heads, model.config.head_dim


def _everywhere(ids: torch.Tensor) -> torch.Tensor:
    return torch.arange(ids.shape[1]).expand(ids.shape)


def _copied(logits: torch.Tensor, ids: torch.Tensor, here: torch.Tensor) -> float:
    """The share of tokens foretold that follow the places `here`."""
    here = here[:-1]
    return round(float((logits[:, here].argmax(-1) == ids[:, here + 1]).float().mean()), 3)


def functions(model: Any, tokenizer: Any, n: int, seed: int) -> Finding:
    """The average indirect effect of every head on prompts without examples, and the share of it all in few.

    Not on prompts with shuffled examples: an output of most relations shows by itself which one it is.
    """
    task, each = tasks.InContextFunctions(shots=5), max(8, n // 6)
    batch = task.sample(60 * each, seed)
    sides = [batch, batch.counterfactual]
    right = [_right(model, tokenizer, side) for side in sides]
    effects: list[torch.Tensor] = []
    for name in RELATIONS:
        rows = [
            (a, b) for a in (0, 1) for b in range(len(batch)) if sides[a].inputs[b]["relation"] == name and right[a][b]
        ]
        if len(rows) < each:
            return Finding(False, f"the model is right in {len(rows)} cases of {name} alone", {"pairs": len(rows)})
        shown = task.prompts(sides[a].inputs[b] for a, b in rows[:each])
        clean, base = Sheet(tokenizer, shown), Sheet(tokenizer, task.bare(shown))
        means = {layer: hooks.taken(z, clean.last).mean(0) for layer, z in hooks.record(model, clean.ids, "z").items()}
        effects.append(_indirect(model, base, means, torch.tensor([base.first(answer) for answer in shown.answers])))
    mean = torch.stack(effects).mean(0)
    best, at = _best(mean)
    positive = mean.clamp(min=0)
    share = float(positive.flatten().topk(FEW + 2).values.sum() / positive.sum())
    says = (
        f"head {at} alone raises the answer's probability by {best:.3f}; {FEW + 2} heads have {share:.0%} of all effect"
    )
    return Finding(best >= 0.05 and share >= ENOUGH, says, {"effect": _rounded(mean, 4), "share": round(share, 3)})


def _indirect(model: Any, base: Sheet, means: dict[int, torch.Tensor], answers: torch.Tensor) -> torch.Tensor:
    rows = torch.arange(len(answers))

    def probability(logits: torch.Tensor) -> torch.Tensor:
        return logits[rows, base.last[:, 0]].softmax(-1)[rows, answers].mean()

    plain = probability(hooks.run(model, base.ids))
    found = torch.zeros(model.config.num_hidden_layers, model.config.num_attention_heads)
    for layer in range(found.shape[0]):
        source = means[layer].expand(len(answers), *means[layer].shape)
        for head in range(found.shape[1]):
            edit = hooks.put(source, base.last, [head])
            found[layer, head] = probability(hooks.run(model, base.ids, {("z", layer): edit})) - plain
    return found


def predicates(model: Any, tokenizer: Any, n: int, seed: int) -> Finding:
    """How often patched queries make the model choose by the other question's category: single heads, few, all, random."""
    batch = _clear(model, tokenizer, tasks.SelectOne(distractors=4), n, seed)
    if few := _too_few(batch, n):
        return few
    base, other = Sheet(tokenizer, batch), Sheet(tokenizer, batch.counterfactual)
    places = (base.from_role("question_mark", 4), other.from_role("question_mark", 4))
    patch = _Patch(model, "q", base, hooks.record(model, other.ids, "q"), places, batch.expected)
    return _few(patch, "the other question's category decides")


def concepts(model: Any, tokenizer: Any, n: int, seed: int) -> Finding:
    """How often few heads' outputs carry what is to be said, and the stream at the end of the word asked about, by layer."""
    batch = _clear(model, tokenizer, tasks.Translation(), n, seed)
    if few := _too_few(batch, n):
        return few
    base, other = Sheet(tokenizer, batch), Sheet(tokenizer, batch.counterfactual)
    places = (base.end_of("asked"), other.end_of("asked"))
    patch = _Patch(model, "x", base, hooks.record(model, other.ids, "x"), places, batch.expected)
    rates = [patch.rate({layer: None}) for layer in range(model.config.num_hidden_layers)]
    heads = _Patch(model, "z", base, hooks.record(model, other.ids, "z"), (base.last, other.last), batch.expected)
    carried = _few(heads, "the other list's concept comes")
    best = max(rates)
    says = f"{carried.says}; the stream at the word's end brings it in {best:.2f} at layer {rates.index(best)}"
    return Finding(carried.passed, says, {"by_layer": rates, "heads": carried.figures})


def pointers(model: Any, tokenizer: Any, n: int, seed: int, **settings: Any) -> Finding:
    """How often the stream at the last token carries which place is meant (pointer), and the word (payload), by layer."""
    task = tasks.BeliefTracking(**settings)
    batch = _clear(model, tokenizer, task, n, seed)
    if few := _too_few(batch, n):
        return few
    base, other = Sheet(tokenizer, batch), Sheet(tokenizer, batch.counterfactual)
    source, places = hooks.record(model, other.ids, "x"), (base.last, other.last)
    layers = range(model.config.num_hidden_layers)
    pointer = [_Patch(model, "x", base, source, places, batch.expected).rate({layer: None}) for layer in layers]
    payload = [_Patch(model, "x", base, source, places, other.prompts.answers).rate({layer: None}) for layer in layers]
    says = f"a pointer with {max(pointer):.2f} at layer {pointer.index(max(pointer))}"
    return Finding(max(pointer) >= ENOUGH, says, {"pointer": pointer, "payload": payload})


class _Patch:
    """A site of some layers and heads taken from the counterfactual, and how often that brings what is wanted."""

    def __init__(
        self, model: Any, site: str, base: Sheet, source: dict[int, torch.Tensor],
        places: tuple[torch.Tensor, torch.Tensor], wanted: Sequence[str],
    ) -> None:  # fmt: skip
        self.model, self.site, self.base, self.at = model, site, base, places[0]
        self.source = {layer: hooks.taken(value, places[1]) for layer, value in source.items()}
        self.wanted = torch.tensor([base.first(answer) for answer in wanted])

    def logits(self, heads: dict[int, list[int] | None]) -> torch.Tensor:
        """At each row's last token: [row, token]."""
        edits = {(self.site, layer): hooks.put(self.source[layer], self.at, some) for layer, some in heads.items()}
        return hooks.taken(hooks.run(self.model, self.base.ids, edits), self.base.last)[:, 0]

    def rate(self, heads: dict[int, list[int] | None]) -> float:
        """How often what is wanted begins with the likeliest token."""
        return round(float((self.logits(heads).argmax(-1) == self.wanted).float().mean()), 3)

    def rise(self, heads: dict[int, list[int] | None]) -> float:
        """The mean log-probability of what is wanted."""
        rows = torch.arange(len(self.wanted))
        return float(self.logits(heads).log_softmax(-1)[rows, self.wanted].mean())


def _few(patch: _Patch, what: str) -> Finding:
    """Single heads, the few best of them together, all of them, and as many of the others at random."""
    model = patch.model
    sizes = (model.config.num_hidden_layers, model.config.num_attention_heads)
    plain = patch.rise({})
    rise, rate = torch.zeros(sizes), torch.zeros(sizes)
    for layer in range(sizes[0]):
        for head in range(sizes[1]):
            rise[layer, head], rate[layer, head] = patch.rise({layer: [head]}) - plain, patch.rate({layer: [head]})
    chosen = _grouped([divmod(int(at), sizes[1]) for at in rise.flatten().topk(FEW).indices])
    rng = random.Random(0)
    cells = [
        (layer, head) for layer in range(sizes[0]) for head in range(sizes[1]) if head not in (chosen.get(layer) or [])
    ]
    chance = max(patch.rate(_grouped(rng.sample(cells, FEW))) for _ in range(5))
    together, everything = patch.rate(chosen), patch.rate(dict.fromkeys(range(sizes[0])))
    best, at = _best(rate)
    names = ", ".join(f"{layer}.{head}" for layer, some in sorted(chosen.items()) for head in some or [])
    says = f"{what} in {together:.2f} with {FEW} heads ({names}), {best:.2f} with one ({at}), {everything:.2f} with all"
    figures = {"rate": _rounded(rate), "rise": _rounded(rise), "few": together, "all": everything, "random": chance}
    return Finding(together >= ENOUGH and chance <= together / 2, says, figures)


def _grouped(cells: Sequence[tuple[int, int]]) -> dict[int, list[int] | None]:
    grouped: dict[int, Any] = {}
    for layer, head in cells:
        grouped.setdefault(layer, []).append(head)
    return grouped


def _clear(model: Any, tokenizer: Any, task: tasks.Task, n: int, seed: int) -> Any:
    """Up to `n` pairs that the model gets right on both sides, what is expected beginning unlike either's own answer.

    Of a model that guesses, a patch that does nothing would bring what is expected about as often as not.
    """
    batch = task.sample(4 * n, seed)
    right = [
        a and b
        for a, b in zip(*(_right(model, tokenizer, each) for each in (batch, batch.counterfactual)), strict=True)
    ]

    def first(answer: str) -> int:
        return tokenizer.encode(answer, add_special_tokens=False).ids[0]

    def clear(row: int) -> bool:
        return first(batch.expected[row]) not in (first(batch.answers[row]), first(batch.counterfactual.answers[row]))

    return batch.take([row for row in range(len(batch)) if right[row] and clear(row)][:n])


def _right(model: Any, tokenizer: Any, prompts: tasks.Prompts) -> list[bool]:
    """Of which prompts the likeliest token begins the answer."""
    sheet = Sheet(tokenizer, prompts)
    best = hooks.taken(hooks.run(model, sheet.ids), sheet.last)[:, 0].argmax(-1)
    return [int(token) == sheet.first(answer) for token, answer in zip(best, prompts.answers, strict=True)]


def _too_few(batch: Any, n: int) -> Finding | None:
    if len(batch) >= n // 4:
        return None
    return Finding(
        False, f"the model is right on both sides of {len(batch)} pairs of {4 * n} alone", {"pairs": len(batch)}
    )


def _best(scores: torch.Tensor) -> tuple[float, str]:
    layer, head = divmod(int(scores.argmax()), scores.shape[1])
    return float(scores.max()), f"{layer}.{head}"


def _rounded(scores: torch.Tensor, digits: int = 3) -> list[list[float]]:
    return [[round(float(value), digits) for value in row] for row in scores]
