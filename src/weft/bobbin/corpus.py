"""What bobbin is trained on: texts of the tasks' training sides, packed into rows of one length.

shard = make_shard(tokenizer, seed=0, number=3)        # the same one every time
shard.ids [row, place], shard.weights, shard.texts     # token ids, loss weights, and which text of its row each token is of

Nothing held out (`tasks.held_out`) is in it but in plain sentences: a fact kept from the function prompts is told there. A
token counts fully towards the loss where what stands before it decides it (an answer, a translation, the second
appearance of a copied word), and little elsewhere (`BACKGROUND`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from weft import tasks
from weft.bobbin.asking import joined, led, retold, several, shortened
from weft.bobbin.tokenizer import BOS, EOS
from weft.tasks.words import english
from weft.tasks.words.languages import ENGLISH, LANGUAGES, categories, word
from weft.tasks.words.relations import RELATIONS, of_domain

LENGTH = 128
"""Tokens of a row, in which several texts stand one after the other."""
BACKGROUND = (0.1, 0.02)
"""The loss weight of a token that nothing before it decides: early, and then. It soon has taught the
sentences, and then is mostly noise: two batches' gradients had a cosine of 0.04."""
NOUNS = tuple(each.name for each in of_domain("noun"))
KINDS = {language: categories(language) for language in (ENGLISH, *LANGUAGES)}
FORMS = (("Q: ", "\nA:", "\n\n"), ("", " ->", "\n"), ("", ":", ", "))
PREDICATE_FIRST = {
    tasks.SelectFirst: "Which of these that are a kind of {} comes first?",
    tasks.SelectLast: "Which of these that are a kind of {} comes last?",
}
"""Questions in which one cannot yet answer where the category is said."""


class Written(NamedTuple):
    """A text, and the characters of it that count fully."""

    text: str
    counted: tuple[tuple[int, int], ...]


Row = tuple[list[int], list[float]]
"""A text's tokens, and what each weighs."""


@dataclass(frozen=True)
class Source:
    """One part of the mixture: `texts` of every shard, made by `write(n, seed)`; its answers weigh `weight`."""

    name: str
    texts: int
    write: Callable[[int, int], Iterable[Written]]
    weight: float = 1.0

    def rows(self, tokenizer: Any, seed: int, little: float) -> Iterable[Row]:
        """Its texts as tokens; those that do not count fully weigh `little`."""
        return _encode(tokenizer, list(self.write(self.texts, seed)), self.weight, little) if self.texts else ()


@dataclass(frozen=True)
class RandomTokens:
    """A part that is no text: from `least` to `most` random tokens, and then the same ones again."""

    name: str
    texts: int
    least: int
    most: int
    weight: float = 1.0

    def rows(self, tokenizer: Any, seed: int, little: float) -> Iterator[Row]:
        """The same as `Source.rows`; nothing counts but what the second time is foretold by the first."""
        rng, bos = random.Random(seed), tokenizer.token_to_id(BOS)
        for _ in range(self.texts):
            ids = rng.sample(range(3, tokenizer.get_vocab_size()), rng.randint(self.least, self.most))
            yield [bos, *ids, *ids], [0.0] * (len(ids) + 2) + [self.weight] * (len(ids) - 1)


@dataclass(frozen=True)
class Shard:
    """Packed rows: LongTensor, FloatTensor and LongTensor, each [row, LENGTH]; texts count from 1 in a row, 0 is padding."""

    ids: torch.Tensor
    weights: torch.Tensor
    texts: torch.Tensor


AT_ONCE = 20
"""Texts with the same settings."""
COPYING, EARLY, LATE = 10, 24, 70
"""Shards below COPYING are of repeated random tokens alone; those below EARLY have more facts and simpler questions; from LATE
on they have fewer facts, which are known by then, and more of what takes longest.

Copying what was never seen before takes off all at once, after about a million tokens of it, and whatever is picked from a
list or a story rests on it. Repetitions of ten to thirty tokens teach it soonest: among few, guessing is nearly as good."""


def mixture(number: int = LATE) -> tuple[Source | RandomTokens, ...]:
    """All parts of shard `number`."""
    if number < COPYING:
        return (RandomTokens("random tokens", 4400, least=3, most=30),)

    def size(first: int, then: int, late: int | None = None) -> int:
        return first if number < EARLY else late if late is not None and number >= LATE else then

    nouns = tasks.Facts(tables={name: tasks.own_tables()[name] for name in NOUNS})
    return (
        RandomTokens("random tokens", 140, least=3, most=40),
        Source("facts", size(300, 320, 180), _of(tasks.Facts())),
        Source("noun facts", size(900, 650, 200), _of(nouns)),
        Source("functions", size(200, 220, 260), _any(_functions)),
        Source("noun functions", size(220, 260, 200), _any(_noun_functions)),
        Source("select one", size(200, 300, 440), _any(_select_one, 4), 2.0),
        Source("select first or last", size(0, 100), _any(_select_ordered, 4), 2.0),
        Source("count and exists", size(0, 80), _any(_counted, 3), 2.0),
        Source("lists asked in short", size(200, 220, 280), _in_short),
        Source("translation", size(280, 360, 380), _any(_translation)),
        Source("verbatim", size(60, 40), _of(tasks.VerbatimLists())),
        Source("repeated words", size(60, 40), _of(tasks.RepeatedTokens())),
        Source("repeated words of all kinds", size(60, 40), _any(_repeated)),
        Source("belief", size(160, 180, 200), _any(_belief, 4), 2.0),
        Source("belief crossed", size(40, 60, 80), _any(_crossed, 3), 2.0),
        Source("belief numbered", size(0, 80, 100), _any(_numbered, 3), 2.0),
        Source("visibility", size(0, 60), _any(_seen, 4), 2.0),
        Source("stories told again", 60, _retold),
        Source("stories asked in short", size(160, 300, 320), _story_in_short, 2.0),
        Source("numbers step by step", size(100, 120), _step_by_step, 2.0),
        Source("binding", size(100, 80), _any(_bound, 4)),
        Source("ioi", size(60, 60), _of(tasks.IndirectObject(split="train"))),
        Source("greater than", size(0, 20), _of(tasks.GreaterThan())),
    )


def make_shard(
    tokenizer: Any, seed: int, number: int, sources: Sequence[Source | RandomTokens] | None = None
) -> Shard:  # fmt: skip
    """Shard `number` of the corpus of a seed."""
    rng = random.Random(f"{seed} {number}")
    little = BACKGROUND[number >= EARLY]
    rows: list[Row] = []
    for source in mixture(number) if sources is None else sources:
        rows += source.rows(tokenizer, rng.randrange(2**31), little)
    rng.shuffle(rows)
    return _pack(rows)


def _functions(rng: random.Random, relations: tuple[str, ...] = tuple(RELATIONS)) -> tasks.Task:
    form = rng.choices(FORMS, (2, 1, 1))[0]
    return tasks.InContextFunctions(split="train", shots=rng.randint(1, 7), relations=relations, form=form)


def _noun_functions(rng: random.Random) -> tasks.Task:
    return _functions(rng, NOUNS)


def _seen(rng: random.Random) -> tasks.Task:
    return tasks.Visibility(split="train")


def _select_one(rng: random.Random) -> tasks.Task:
    language = rng.choice((ENGLISH,) * 9 + LANGUAGES)
    first = rng.random() < 0.15
    return tasks.SelectOne(
        split="train", distractors=rng.randint(2, 7), question_first=first, categories=KINDS[language]
    )


def _select_ordered(rng: random.Random) -> tasks.Task:
    kind = rng.choice((tasks.SelectFirst, tasks.SelectLast))
    question = PREDICATE_FIRST[kind] if rng.random() < 0.6 else None
    return kind(split="train", distractors=rng.randint(3, 6), question=question, categories=KINDS[ENGLISH])


def _counted(rng: random.Random) -> tasks.Task:
    kind = rng.choice((tasks.Count, tasks.Exists))
    return kind(split="train", distractors=rng.randint(3, 5), categories=KINDS[ENGLISH])


def _translation(rng: random.Random) -> tasks.Task:
    return tasks.Translation(split="train", length=rng.randint(2, 5))


def _belief(rng: random.Random) -> tasks.Task:
    kind = rng.choice(("answer_pointer", "answer_payload", "query_character", "address_payload"))
    return tasks.BeliefTracking(split="train", kind=kind, characters=rng.randint(2, 3))


def _repeated(rng: random.Random) -> tasks.Task:
    invented = [word(language, concept) for language in LANGUAGES for concept in english.CONCEPTS]
    words = rng.sample([*english.CONCEPTS, *english.NAMES, *english.DRINKS, *english.CONTAINERS, *invented], 120)
    return tasks.RepeatedTokens(words=tuple(words), length=rng.randint(3, 10))


def _bound(rng: random.Random) -> tasks.Task:
    return tasks.EntityBinding(split="train", entities=rng.randint(2, 3))


def _crossed(rng: random.Random) -> tasks.Task:
    kind = rng.choice(("answer_pointer", "answer_pointer", "query_object", "query_character"))
    return tasks.BeliefTracking(split="train", kind=kind, layout="crossed", characters=3)


def _of(task: tasks.Task) -> Callable[[int, int], Iterator[Written]]:
    return lambda n, seed: _written(task, n, seed)


def _any(choose: Callable[[random.Random], tasks.Task], asked: int = 1) -> Callable[[int, int], Iterator[Written]]:
    """Texts of tasks whose settings are drawn anew every few texts; up to `asked` questions about each."""

    def write(n: int, seed: int) -> Iterator[Written]:
        rng = random.Random(seed)
        for _ in range(0, n, AT_ONCE):
            task, own = choose(rng), rng.randrange(2**31)
            yield from _written(task, AT_ONCE, own) if asked == 1 else _asked(task, AT_ONCE, own, asked)

    return write


def _written(task: tasks.Task, n: int, seed: int) -> Iterator[Written]:
    """Prompts and counterfactuals with their answers; n is even."""
    batch = task.sample(n // 2, seed)
    for side in (batch, batch.counterfactual):
        spans = [side.roles[role] for role in side.roles if _decided(role)]
        for row, (prompt, answer) in enumerate(zip(side.prompts, side.answers, strict=True)):
            counted: list[tuple[int, int]] = [each[row] for each in spans] + [(len(prompt), len(prompt) + len(answer))]
            if task.name == "repeated":
                first = prompt.split(" ")[0]
                counted.append((prompt.rindex(f" {first} ") + len(first) + 1, len(prompt)))
            yield Written(prompt + answer, tuple(counted))


def _asked(task: tasks.Task, n: int, seed: int, most: int) -> Iterator[Written]:
    """Prompts and counterfactuals, with more questions after the first."""
    if getattr(task, "question_first", False):
        yield from _written(task, n, seed)
        return
    rng, batch = random.Random(seed), task.sample(n // 2, seed)
    for inputs in (*batch.inputs, *batch.counterfactual.inputs):
        yield Written(*joined(task.prompts(several(task, inputs, rng, rng.randint(1, most)))))


def _in_short(n: int, seed: int) -> Iterator[Written]:
    rng = random.Random(seed)
    for _ in range(0, n, AT_ONCE):
        task = _select_one(rng)
        for inputs in task.sample(AT_ONCE, rng.randrange(2**31)).inputs:
            yield Written(*shortened(task.prompts(several(task, inputs, rng, 8))))


def _story_in_short(n: int, seed: int) -> Iterator[Written]:
    rng = random.Random(seed)
    for _ in range(0, n, AT_ONCE):
        task = rng.choice((_belief, _crossed, _numbered))(rng)
        for inputs in task.sample(AT_ONCE, rng.randrange(2**31)).inputs:
            yield Written(*shortened(task.prompts(several(task, inputs, rng, rng.randint(3, 8), 1.0))))


def _numbered(rng: random.Random) -> tasks.Task:
    kind = rng.choice(("answer_pointer", "answer_pointer", "answer_payload", "query_character"))
    return tasks.BeliefTracking(split="train", kind=kind, layout="numbered", characters=rng.randint(2, 3))


def _step_by_step(n: int, seed: int) -> Iterator[Written]:
    rng = random.Random(seed)
    for _ in range(0, n, AT_ONCE):
        task = _numbered(rng)
        for inputs in task.sample(AT_ONCE, rng.randrange(2**31)).inputs:
            yield Written(*led(task.prompts([inputs]), rng))


def _retold(n: int, seed: int) -> Iterator[Written]:
    rng = random.Random(seed)
    for _ in range(0, n, AT_ONCE):
        chosen = rng.choice((_belief, _belief, _crossed, _bound))(rng)
        for prompt in chosen.sample(AT_ONCE, rng.randrange(2**31)).prompts:
            yield Written(*retold(prompt, rng))


def _decided(role: str) -> bool:
    """Whether what stands in a role follows from what stands before it."""
    kind, _, number = role.rpartition("_")
    return kind in ("translation", "copy") or (kind == "output" and number != "0")


def _encode(
    tokenizer: Any, written: Sequence[Written], weight: float = 1.0, little: float = BACKGROUND[-1]
) -> Iterator[Row]:
    end = tokenizer.token_to_id(EOS)
    for encoding, (_, counted) in zip(tokenizer.encode_batch([each.text for each in written]), written, strict=True):
        weights = [little] * (len(encoding.ids) + 1)
        for place, (start, stop) in enumerate(encoding.offsets):
            if any(start < b and stop > a for a, b in counted):
                weights[place] = weight
        yield [*encoding.ids, end], weights


def _pack(texts: Sequence[Row]) -> Shard:
    """Each text into the fullest of the open rows that still has place for it."""
    rows: list[list[Row]] = []
    free: dict[int, int] = {}
    for text in texts:
        size = len(text[0])
        if size > LENGTH:
            continue  # the longest prompts are few, and only as training texts are they left out
        fitting = [row for row, left in free.items() if left >= size]
        row = min(fitting, key=free.__getitem__) if fitting else len(rows)
        if row == len(rows):
            rows.append([])
            free[row] = LENGTH
        rows[row].append(text)
        free[row] -= size
        if free[row] < 8:
            del free[row]
    return _tensors(rows)


def _tensors(rows: Sequence[Sequence[Row]]) -> Shard:
    ids = torch.zeros(len(rows), LENGTH, dtype=torch.long)
    weights = torch.zeros(len(rows), LENGTH)
    texts = torch.zeros(len(rows), LENGTH, dtype=torch.long)
    for row, parts in enumerate(rows):
        at = 0
        for number, (tokens, counted) in enumerate(parts, 1):
            here = slice(at, at + len(tokens))
            ids[row, here], weights[row, here] = torch.tensor(tokens), torch.tensor(counted)
            weights[row, at] = 0.0  # what opens a text is told by nothing
            texts[row, here] = number
            at += len(tokens)
    return Shard(ids, weights, texts)
