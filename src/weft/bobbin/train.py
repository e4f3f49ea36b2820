"""Train bobbin: `python -m weft.bobbin.train --out FOLDER`, and again with `--resume` if it was stopped.

FOLDER holds checkpoint.safetensors (weights, optimiser, step: written beside and moved into place, so a kill at any time
leaves the last one whole), log.jsonl (loss and held-out accuracies), and model/, a folder that any tool loads.
`--steps` may be raised on resuming: the learning rate falls to nothing over all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

from weft.bobbin import corpus, measure, model, optim, tokenizer
from weft.bobbin.forward import forward, products
from weft.errors import ModelError

WARM = 100
"""Steps over which the learning rate rises."""
LOOKED = 0.2
"""The share of tokens of little weight whose loss is computed."""
PER_SHARD = 50
"""Steps fed by one shard of the corpus; at 24 rows a step, nearly all of it."""


@dataclass(frozen=True)
class Recipe:
    """What a training run is: all but `steps`, `every` and `n` must stay the same on resuming."""

    steps: int = 9_000
    rows: int = 24
    seed: int = 0
    rate: float = 1.0
    every: int = 500
    n: int = 64
    size: model.Size = model.BOBBIN


def train(out: Path, recipe: Recipe, resume: bool = False, sources: Sequence[corpus.Source] | None = None) -> Any:
    """Train, leaving checkpoints and a log in `out`; gives the model. Without `resume`, `out` may hold no checkpoint."""
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.safetensors"
    if checkpoint.exists() != resume:
        raise ModelError(
            f"{checkpoint} {'exists; resume from it, or give another folder' if not resume else 'is not there to resume from'}"
        )
    words = tokenizer.build()
    net = model.make(words.get_vocab_size(), words.token_to_id(tokenizer.EOS), recipe.seed, recipe.size)
    optimizer = optim.Optimizer(net, recipe.rate)
    start = load(checkpoint, net, optimizer, recipe) if resume else 0
    began, losses = time.monotonic(), []
    for step, batch in batches(words, recipe, start, sources):
        losses.append(update(net, optimizer, batch, scale(step, recipe.steps)))
        done = step + 1
        if done % PER_SHARD == 0:
            print(f"{done} {sum(losses[-PER_SHARD:]) / PER_SHARD:.3f} {time.monotonic() - began:.0f}s", flush=True)
        if done % recipe.every == 0 or done == recipe.steps:
            save(checkpoint, net, optimizer, done, recipe)
            write(out / "model", net, words)
            accuracies = measure.measure(net, words, recipe.n)
            took = time.monotonic() - began
            note(out, {"step": done, "loss": sum(losses) / len(losses), "seconds": took, **accuracies})
            losses = []
    return net


def scale(step: int, steps: int) -> float:
    """The learning rate's share: up over WARM steps, and down to nothing in a line."""
    return min((step + 1) / WARM, 1 - step / steps)


def batches(words: Any, recipe: Recipe, start: int, sources: Any = None) -> Iterator[tuple[int, corpus.Shard]]:
    """Every step from `start` on with its rows; a step has the same rows whenever training was stopped."""
    shard = corpus.make_shard(words, recipe.seed, start // PER_SHARD, sources)
    for step in range(start, recipe.steps):
        number, at = divmod(step, PER_SHARD)
        if at == 0 and step > start:
            shard = corpus.make_shard(words, recipe.seed, number, sources)
        rows = torch.arange(at * recipe.rows, (at + 1) * recipe.rows) % len(shard.ids)
        yield step, corpus.Shard(shard.ids[rows], shard.weights[rows], shard.texts[rows])


def update(net: Any, optimizer: optim.Optimizer, batch: corpus.Shard, scale: float) -> float:
    """One step; gives the loss, in nats per token that counts."""
    loss = loss_of(net, batch)
    loss.backward()
    optimizer.step(scale)
    return loss.item()


def loss_of(net: Any, batch: corpus.Shard) -> torch.Tensor:
    """The weighted mean of the tokens' losses. A text sees nothing of the others in its row.

    Of the tokens that count little, a random share is looked at and counts for the others too: logits cost a third of a step.
    """
    weights = batch.weights[:, 1:]
    chance = torch.rand(weights.shape, generator=torch.Generator().manual_seed(int(batch.ids.sum())))
    little = weights < 1
    looked = (weights > 0) & (~little | (chance < LOOKED))
    before = F.pad(looked, (0, 1))  # a token is foretold at the place before it
    logits = forward(net, batch.ids, batch.texts, products(), before)
    each = F.cross_entropy(logits, batch.ids[:, 1:][looked], reduction="none")
    share = torch.where(little, weights / LOOKED, weights)[looked]
    return (each * share).sum() / share.sum()


def save(path: Path, net: Any, optimizer: optim.Optimizer, step: int, recipe: Recipe) -> None:
    """Weights, optimiser and step in one file, whole or not at all."""
    tensors = {f"model.{name}": each.detach() for name, each in net.named_parameters()}
    tensors |= {f"optimizer.{name}": each for name, each in optimizer.state().items()}
    beside = path.with_suffix(".new")
    save_file(tensors, beside, metadata={"step": str(step), "recipe": fixed(recipe)})
    os.replace(beside, path)


def load(path: Path, net: Any, optimizer: optim.Optimizer, recipe: Recipe) -> int:
    """Put a checkpoint into the model and the optimiser; gives the number of steps done."""
    with safe_open(path, "pt") as file:
        notes = file.metadata()
        if notes["recipe"] != fixed(recipe):
            raise ModelError(f"{path} was trained with {notes['recipe']}, which {fixed(recipe)} cannot go on from")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
    with torch.no_grad():
        for name, each in net.named_parameters():
            each.copy_(tensors[f"model.{name}"])
    own = "optimizer."
    optimizer.restore({name[len(own) :]: each for name, each in tensors.items() if name.startswith(own)})
    return int(notes["step"])


def fixed(recipe: Recipe) -> str:
    """What may not change on resuming, as text."""
    return json.dumps({"rows": recipe.rows, "seed": recipe.seed, "size": recipe.size._asdict()})


def note(out: Path, entry: dict[str, float]) -> None:
    """A line of the log, and on the screen."""
    with (out / "log.jsonl").open("a") as file:
        file.write(json.dumps({name: round(value, 4) for name, value in entry.items()}) + "\n")
    print(measure.line(entry), flush=True)


def write(folder: Path, net: Any, words: Any) -> None:
    """A folder as the hub has them: weights, configuration, tokenizer."""
    from transformers import PreTrainedTokenizerFast

    net.save_pretrained(folder, safe_serialization=True)
    names = {"bos_token": tokenizer.BOS, "eos_token": tokenizer.EOS, "unk_token": tokenizer.UNKNOWN}
    longest = net.config.max_position_embeddings
    PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=longest, **names).save_pretrained(folder)
    config = folder / "tokenizer_config.json"
    settings = json.loads(config.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}  # older releases know it
    config.write_text(json.dumps(settings, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m weft.bobbin.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint, the log and the model")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in that folder")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--rate", type=float, default=Recipe.rate, help="multiplies both learning rates")
    parser.add_argument("--every", type=int, default=Recipe.every, help="steps from one checkpoint to the next")
    given = parser.parse_args()
    recipe = Recipe(steps=given.steps, seed=given.seed, rate=given.rate, every=given.every)
    train(given.out, recipe, given.resume)


if __name__ == "__main__":
    main()
