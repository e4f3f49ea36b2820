"""How much of each task a model in training has learned, on held-out samples.

measure(model, tokenizer)                              # {"select_one": 0.98, …}: every token of the answer the likeliest

Quick, and stricter than a task's own measure where that is a choice among options; the card's figures are the tasks' own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from weft import tasks
from weft.tasks.words.languages import categories


def suite() -> dict[str, tasks.Task]:
    """The tasks that are measured, by a name for each setting."""
    held: dict[str, Any] = {"split": "held_out"}
    return {
        "functions": tasks.InContextFunctions(shots=5, **held),
        "functions_4": tasks.InContextFunctions(shots=4, **held),
        "functions_train": tasks.InContextFunctions(shots=5, split="train"),
        "functions_train_3": tasks.InContextFunctions(shots=3, split="train"),
        "facts": tasks.Facts(),
        "select_one": tasks.SelectOne(**held),
        "select_one_tavi": tasks.SelectOne(categories=categories("tavi"), **held),
        "select_first": tasks.SelectFirst(**held),
        "select_last": tasks.SelectLast(**held),
        "count": tasks.Count(**held),
        "exists": tasks.Exists(**held),
        "translation": tasks.Translation(**held),
        "verbatim": tasks.VerbatimLists(language="nonsense"),
        "repeated": tasks.RepeatedTokens(),
        "belief": tasks.BeliefTracking(**held),
        "belief_unknown": tasks.BeliefTracking(kind="answer_payload", **held),
        "belief_crossed": tasks.BeliefTracking(layout="crossed", characters=3, **held),
        "belief_numbered": tasks.BeliefTracking(layout="numbered", **held),
        "visibility": tasks.Visibility(**held),
        "binding": tasks.EntityBinding(**held),
        "ioi": tasks.IndirectObject(**held),
        "greater_than": tasks.GreaterThan(),
    }


def measure(model: Any, tokenizer: Any, n: int = 64, seed: int = 10_000) -> dict[str, float]:
    """The share of `n` questions of each task whose answer the model gives in full; "copying" is of random tokens."""
    found = {}
    for name, task in suite().items():
        asked = task.questions(n, seed)
        found[name] = exact(model, tokenizer, asked.prompts, asked.answers)
        if name == "functions":
            bare = task.bare(asked)  # type: ignore[attr-defined]
            found["functions_bare"] = exact(model, tokenizer, bare.prompts, bare.answers)
    found["copying"] = copying(model, seed)
    return found


def exact(model: Any, tokenizer: Any, prompts: Sequence[str], answers: Sequence[str]) -> float:
    """The share of prompts after which each token of the answer is the likeliest one."""
    whole = tokenizer.encode_batch([p + a for p, a in zip(prompts, answers, strict=True)])
    size = max(len(each.ids) for each in whole)
    ids = torch.tensor([each.ids + [0] * (size - len(each.ids)) for each in whole])
    with torch.no_grad():
        best = model(input_ids=ids, use_cache=False).logits.argmax(-1)
    right = 0
    for row, (each, prompt) in enumerate(zip(whole, prompts, strict=True)):
        places = [place for place, (_, stop) in enumerate(each.offsets) if stop > len(prompt)]
        right += all(int(best[row, place - 1]) == each.ids[place] for place in places)
    return right / len(prompts)


def copying(model: Any, seed: int, n: int = 64, length: int = 20) -> float:
    """Of random tokens said a second time, the share foretold (all but the first, which nothing tells)."""
    generator = torch.Generator().manual_seed(seed)
    vocabulary = int(model.config.vocab_size)
    once = torch.stack([torch.randperm(vocabulary - 3, generator=generator)[:length] + 3 for _ in range(n)])
    ids = torch.cat([torch.zeros(n, 1, dtype=torch.long), once, once], 1)
    with torch.no_grad():
        best = model(input_ids=ids, use_cache=False).logits.argmax(-1)
    return float((best[:, length + 1 : -1] == ids[:, length + 2 :]).float().mean())


def line(accuracies: Mapping[str, float]) -> str:
    """One line of a log."""
    return " ".join(f"{name}={value:.2f}" for name, value in accuracies.items())
