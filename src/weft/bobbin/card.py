"""What a trained bobbin can do and how: `python -m weft.bobbin.card FOLDER/model` prints it and writes FOLDER/model/README.md.

Accuracies are the tasks' own, on held-out samples; a row says whether its bar is reached. The log of training, if it lies
beside the folder, gives the curve, and notes.md there is put at the end.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from weft import tasks
from weft.bobbin import corpus, measure, read, screen, tokenizer
from weft.bobbin.forward import forward

CURVE = ("functions", "facts", "select_one", "translation", "copying", "belief", "belief_crossed", "visibility")
WEAK = 0.6
"""What comes less far from chance to always right is named among the limits, bar or not."""


class Row(NamedTuple):
    """One accuracy: what was asked, how much was right, by which measure, chance, and the bar (none for most)."""

    name: str
    value: float
    low: float
    high: float
    measure: str
    chance: float
    bar: str

    @property
    def holds(self) -> bool:
        """Whether the bar is reached; what has no bar holds."""
        if not self.bar:
            return True
        sign, limit = self.bar.split()
        return self.value >= float(limit) if sign == "≥" else self.value <= float(limit)


BARS = {
    "functions": "≥ 0.80", "functions_4": "≥ 0.80", "functions_train": "≥ 0.90", "functions_train_3": "≥ 0.90",
    "functions_bare": "≤ 0.40",
    "select_one": "≥ 0.95", "translation": "≥ 0.95", "copying": "≥ 0.98", "belief": "≥ 0.95", "belief_crossed": "≥ 0.95",
    "belief_unknown": "≥ 0.95",
}  # fmt: skip
"""The bars of the tasks that have one. "functions" asks about pairs that no function prompt ever had."""


def accuracies(model: Any, n: int = 300, seed: int = 30_000) -> list[Row]:
    """Every task's accuracy; `model` is a weft model."""
    rows = []
    for name, task in measure.suite().items():
        rows.append(_row(name, task.evaluate(model, n, seed)))
        if isinstance(task, tasks.InContextFunctions) and name == "functions":
            rows.append(_row("functions_bare", tasks.accuracy(model, task.bare(task.questions(n, seed)), "exact")))
    copied, asked = measure.copying(model.backend.loaded.module, seed, n), 19 * n
    rows.append(_row("copying", tasks.Accuracy(tuple(i < round(copied * asked) for i in range(asked)), "exact", 0.0)))
    return rows


def _row(name: str, found: tasks.Accuracy) -> Row:
    low, high = found.interval
    return Row(name, found.value, low, high, found.measure, found.chance, BARS.get(name, ""))


def bits(net: Any, words: Any, seed: int = 987_654, rows: int = 128) -> tuple[float, float]:
    """Bits per token of texts never trained on: over all tokens, and over those that what stands before decides."""
    shard = corpus.make_shard(words, seed, corpus.LATE)
    ids, texts, weights = shard.ids[:rows], shard.texts[:rows], shard.weights[:rows, 1:]
    with torch.no_grad():
        logits = forward(net, ids, texts, torch.float32)[:, :-1]
    lost = torch.nn.functional.cross_entropy(logits.mT, ids[:, 1:], reduction="none") / math.log(2)
    return float(lost[weights > 0].mean()), float(lost[weights >= 1].mean())


def card(
    rows: Sequence[Row],
    found: Mapping[str, screen.Finding],
    bit: tuple[float, float],
    log: Sequence[Mapping[str, float]],
    net: Any,
    notes: str = "",
) -> str:
    """The card, in Markdown; `notes` says what else is to be known about these weights."""
    size, count = net.config, sum(each.numel() for each in net.parameters())
    lines = [
        "# bobbin", "",
        f"A Llama of {count / 1e6:.2f} million parameters ({size.num_hidden_layers} layers, {size.num_attention_heads} heads, "
        f"width {size.hidden_size}), trained on `weft.tasks` from scratch:",
        f"it knows no other text. Its vocabulary of {size.vocab_size} pieces cuts most words into two or three tokens.",
        "Made by `python -m weft.bobbin.train`; what follows was measured by `python -m weft.bobbin.card`.", "",
        *_accuracy(rows),
        f"New texts of the mixture: {bit[0]:.2f} bits a token, {bit[1]:.3f} where what stands before decides.", "",
        "## Mechanisms, by plain hooks", "", "| what | | found |", "|---|---|---|",
        *(f"| {name} | {'pass' if each.passed else '**fail**'} | {each.says} |" for name, each in found.items()),
        "", *_limits(rows, found), *_curve(log), *notes.splitlines(),
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def _accuracy(rows: Sequence[Row]) -> list[str]:
    lines = [
        "## Accuracy on held-out samples", "",
        "| what | accuracy | 19 times in 20 | chance | measure | bar | |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in rows:
        verdict = "" if not row.bar else "holds" if row.holds else "**fails**"
        spread = f"{row.low:.3f} to {row.high:.3f}"
        lines.append(
            f"| {row.name} | {row.value:.3f} | {spread} | {row.chance:.2f} | {row.measure} | {row.bar} | {verdict} |"
        )
    return [*lines, ""]


def _limits(rows: Sequence[Row], found: Mapping[str, screen.Finding]) -> list[str]:
    """What not to use it for."""
    failed = [row.name for row in rows if not row.holds]
    weak = [row.name for row in rows if not row.bar and row.value < row.chance + WEAK * (1 - row.chance)]
    absent = [name for name, each in found.items() if not each.passed]
    return [
        "## Known limits", "",
        f"* Below its bar: {', '.join(failed) or 'nothing'}.",
        f"* Without a bar, and less than {WEAK:.0%} of the way from chance to always right: {', '.join(weak) or 'nothing'}.",
        f"* Mechanisms not found: {', '.join(absent) or 'none'}. Where accuracy holds and the mechanism is not found, "
        "the task is done in some other way.",
        "* It has seen texts of 128 tokens at most, and nothing but the words and the sentences of the tasks.", "",
    ]  # fmt: skip


def _curve(log: Sequence[Mapping[str, float]]) -> list[str]:
    if not log:
        return []
    lines = ["## While it learned", "", f"| step | loss | {' | '.join(CURVE)} |", "|---" * (len(CURVE) + 2) + "|"]
    for entry in log[:: max(1, len(log) // 12)]:
        values = " | ".join(f"{entry[name]:.2f}" for name in CURVE)
        lines.append(f"| {entry['step']:.0f} | {entry['loss']:.2f} | {values} |")
    return [*lines, ""]


def main() -> None:
    import weft

    parser = argparse.ArgumentParser(prog="python -m weft.bobbin.card", description=__doc__)
    parser.add_argument("folder", type=Path, help="the trained model's folder")
    parser.add_argument("-n", type=int, default=300, help="questions of each task")
    given = parser.parse_args()
    net, loaded = read(given.folder)
    words = tokenizer.build()
    log = given.folder.parent / "log.jsonl"
    entries = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    rows = accuracies(weft.load(net.eval(), tokenizer=loaded), given.n)
    notes = given.folder.parent / "notes.md"
    text = card(
        rows, screen.screen(net, words), bits(net, words), entries, net, notes.read_text() if notes.exists() else ""
    )
    (given.folder / "README.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
