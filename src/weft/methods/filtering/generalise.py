"""How far a predicate carries: unions, other tasks and formats, the items themselves."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

import weft
from weft.methods.filtering.bench import stacked
from weft.methods.filtering.pairs import ROWS, chosen
from weft.methods.filtering.patch import Head
from weft.methods.filtering.predicate import Predicate, answered, mean
from weft.methods.filtering.sheet import distinct

if TYPE_CHECKING:
    from weft.methods.filtering.bench import Bench
    from weft.methods.filtering.pairs import Pairs


def transfer(bench: Bench, given: Mapping[str, Predicate], pairs: Pairs, mode: str) -> list[bool | None]:
    """For each pair whether the predicate of src's category makes the model answer as the causal model has it.

    `given` may come from another task than the pairs; None where it has no such category.
    """
    asked = [inputs["category"] for inputs in pairs.src.inputs]
    rows = [row for row, name in enumerate(asked) if name in given]
    found: list[bool | None] = [None] * len(asked)
    if rows:
        said = answered(bench, pairs.batch.take(rows), [given[asked[row]] for row in rows], mode)
        for row, word in zip(rows, said, strict=True):
            found[row] = word == pairs.batch.expected[row]
    return found


class Union(NamedTuple):
    """Of lists that hold a word of one of two categories: how often it is chosen by their sum, and by one alone."""

    summed: tuple[bool, ...]
    centred: tuple[bool, ...]
    single: tuple[bool, ...]


def union(bench: Bench, task: Any, given: Mapping[str, Predicate], n: int, mode: str, seed: int) -> Union:
    """Two predicates' queries summed, against the first of the two; each list has a word of one of them, by turns.

    A sum that only did what its first predicate does would be right in half the lists, as that one is.
    """
    draw = random.Random(f"union {seed}")
    drawn = [_told_apart(bench, task, draw, sorted(given), number, mode) for number in range(n)]
    prompts = task.prompts(row for row, _, _ in drawn)
    wanted = [f" {row['wanted']}" for row, _, _ in drawn]
    middle = mean(list(given.values()))
    ways = (
        [given[a].combine(given[b]) for _, a, b in drawn],
        [given[a].combine(given[b], centre=middle) for _, a, b in drawn],
        [given[a] for _, a, _ in drawn],
    )
    found = [answered(bench, prompts, each, mode) for each in ways]
    return Union(*(tuple(said == word for said, word in zip(each, wanted, strict=True)) for each in found))


def _told_apart(
    bench: Bench, task: Any, draw: random.Random, names: Sequence[str], number: int, mode: str
) -> tuple[dict[str, Any], str, str]:
    """A list whose words are scored apart: by first tokens, no two that begin alike."""
    for _ in range(1000):
        found = _either(task, draw, names, number)
        if mode == "answer" or distinct(
            bench.model, task.render(found[0]).prompt, [f" {word}" for word in found[0]["items"]]
        ):
            return found
    raise weft.errors.ProgramError('hardly a list has words that all begin differently; ask for score="answer"')


def _either(task: Any, draw: random.Random, names: Sequence[str], number: int) -> tuple[dict[str, Any], str, str]:
    """A list with a word of a (or b) and one of the question's own category, c; the wanted word among the inputs."""
    from weft.tasks.words.english import EXCLUDED

    for _ in range(1000):
        a, b, c = draw.sample(names, 3)
        barred = {a, b, c}.union(*(EXCLUDED.get(x, ()) for x in (a, b, c)))
        rest = sorted(set(task.categories) - barred)
        apart = not any(y in EXCLUDED.get(x, ()) for x in (a, b, c) for y in (a, b, c))
        if apart and len(rest) >= task.distractors - 1:
            there = (a, b)[number % 2]
            words = [
                draw.choice(list(task.categories[name]))
                for name in (there, c, *draw.sample(rest, task.distractors - 1))
            ]
            return {"items": tuple(draw.sample(words, len(words))), "category": c, "wanted": words[0]}, a, b
    raise weft.errors.ProgramError("no three categories are apart from one another, as lists for a union need")


def probe(
    bench: Bench, task: Any, given: Mapping[str, Predicate], n: int, seed: int
) -> tuple[dict[Head, torch.Tensor], float]:
    """The training-free probe: each item's category is that whose predicate its key agrees with best.

    cos(W_K^h · LN(x[l−1, item's last token]), q_c), keys before rotary; the rate right by head, and chance.
    """
    names, heads = list(given), next(iter(given.values())).heads
    aim = torch.stack([given[name].vectors[:, 0] for name in names], 1)  # [head, category, d_head]
    batch, model = task.sample(n, seed), bench.model
    owner = {word: name for name in names for word in task.categories[name]}
    share = model.n_heads // model.n_kv_heads
    right: dict[Head, list[torch.Tensor]] = {head: [] for head in heads}
    for start in range(0, n, ROWS):
        part = batch.take(range(start, min(start + ROWS, n)))
        kinds = torch.tensor(
            [[names.index(owner[w]) if w in owner else -1 for w in row["items"]] for row in part.inputs]
        )
        with bench.session() as s:
            run = s.run(list(part.prompts))
            places = torch.stack([part.positions(run, f"option_{number}") for number in range(kinds.shape[1])], 1)
            keys = [run.k[layer][run.rows[:, None], places][:, :, head // share] for layer, head in heads]
            seen = stacked(keys).save("keys")  # [head, row, item, d_head]
        near = torch.nn.functional.cosine_similarity(seen.value[:, :, :, None], aim[:, None, None], dim=-1).argmax(-1)
        for head, best in zip(heads, near, strict=True):
            right[head].append((best == kinds)[kinds >= 0])
    return {head: torch.cat(each) for head, each in right.items()}, 1 / len(names)


def residual_swap(bench: Bench, pairs: Pairs) -> list[torch.Tensor]:
    """Per layer whether dst answers the target when its items' residuals come from gold: the same list, asked src's question.

    Where items were flagged as they were read (eagerly, the question coming first), the flags move the answer.
    """
    found: list[list[torch.Tensor]] = [[] for _ in range(bench.model.n_layers)]
    for part in pairs.chunks():
        gold = part.gold
        each = part.dst.each
        spread = part.batch.take([row for row in range(len(part)) for _ in range(each)])
        with bench.session() as s:
            base, other = s.run(part.dst.texts), s.run(list(gold.prompts))
            rows, here, there = _items(base, spread, other, gold, each)
            saved = []
            for layer in range(len(found)):
                fork = base.fork()
                fork.resid_post[layer][rows, here] = other.resid_post[layer][rows // each, there]
                saved.append(part.dst.scores(fork))
            scores = stacked(saved).save("scores")
        best = chosen(scores.value, part.dst.options)
        for layer, said in enumerate(best):
            found[layer].append(said == part.target)
    return [torch.cat(rows) for rows in found]


def _items(base: Any, mine: Any, other: Any, theirs: Any, each: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Row of the base run, position there, position in the other run, of every token of every item."""
    rows, here, there = [], [], []
    for role in [name for name in mine.roles if name.startswith("option_")]:
        first, last = (mine.positions(base, role, end).tolist() for end in ("first", "last"))
        begin = theirs.positions(other, role, "first").tolist()
        for row, (low, high) in enumerate(zip(first, last, strict=True)):
            rows += [row] * (high - low + 1)
            here += range(low, high + 1)
            there += range(begin[row // each], begin[row // each] + high - low + 1)
    return torch.tensor(rows), torch.tensor(here), torch.tensor(there)
