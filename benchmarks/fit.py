"""Training through a model: model.fit beside the loop one writes by hand with hooks, and beside itself on a server.

    weft bench fit                        DAS and a head mask, GPT-2's width in 6 layers
    weft bench fit --quick                a small model: seconds
    weft bench fit --shuffle              no batch comes again, so that nothing is kept from step to step

The loops are those the tests hold fit to, number by number (tests/cpu/fit_plain.py). All contestants run in turn, `--repeats`
times; medians are shown, in seconds and in seconds of processor (where the machine is not idle, look at those).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "cpu"))

import fit_losses
import fit_plain
import torch
from fit_models import pairs
from transformers import GPT2Config, GPT2LMHeadModel

import weft
from weft.serve import ModelSpec, background

Losses = torch.Tensor


def made(given: argparse.Namespace) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=given.layers, n_head=given.heads, n_embd=given.width, vocab_size=given.vocab, n_positions=64,
        bos_token_id=0, eos_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def contestants(given: argparse.Namespace, task: str, model: Any, remote: Any) -> dict[str, Callable[[], Losses]]:
    """Each gives its losses, of the same batches from the same beginning."""
    data = pairs(given.rows, given.tokens, given.vocab)
    if given.shuffle:
        data = pairs(given.batch * given.steps, given.tokens, given.vocab)
    layer = given.layers // 2
    start = fit_losses.start_of(given.width) if task == "das" else torch.full((given.layers, given.heads), 0.5)

    def fit(where: Any) -> Losses:
        learned = start.clone()
        loss = fit_losses.exchange(learned, layer) if task == "das" else fit_losses.masked(learned, 0.01)
        project = "orthogonal" if task == "das" else ("clamp", 0, 1)
        return where.fit(
            loss, learned, data, steps=given.steps, lr=0.01, batch_size=given.batch, project=project, fresh=True
        ).loss

    def by_hand() -> Losses:
        if task == "das":
            return fit_plain.das(made(given), layer, start, data, given.batch, given.steps, 0.01)[0]
        return fit_plain.head_mask(made(given), start, data, given.batch, given.steps, 0.01, 0.01)[0]

    return {"hooks": by_hand, "weft": lambda: fit(model), "server": lambda: fit(remote)}


def processor(pids: list[int]) -> float:
    """Seconds of processor that this process and those have taken."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / 100


def rounds(given: argparse.Namespace, runs: dict[str, Callable[[], Losses]], pids: list[int]) -> dict[str, Any]:
    """Medians of seconds and of seconds of processor, and the largest difference of a loss from the hooks' own."""
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    losses: dict[str, Losses] = {}
    for _ in range(given.repeats):
        for name, run in runs.items():
            began, spent = time.perf_counter(), processor(pids)
            losses[name] = run()
            wall[name].append(time.perf_counter() - began)
            cpu[name].append(processor(pids) - spent)
    found: dict[str, Any] = {
        name: {"seconds": statistics.median(wall[name]), "processor": statistics.median(cpu[name])} for name in runs
    }
    found["difference"] = max(float((losses[name] - losses["hooks"]).abs().max()) for name in runs)
    for kind, times in (("seconds", wall), ("processor", cpu)):
        for one in ("hooks", "server"):
            each = [a / b for a, b in zip(times[one], times["weft"], strict=True)]
            found[f"{one}/weft, {kind}"] = statistics.median(each)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="weft bench fit", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a model of 4 layers of 128")
    parser.add_argument("--shuffle", action="store_true", help="every batch is new")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="das,mask", help="das, mask")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    given.layers, given.heads, given.width, given.vocab = (4, 4, 128, 1000) if given.quick else (6, 12, 768, 10_000)
    torch.set_num_threads(given.threads)
    os.environ["OMP_NUM_THREADS"] = str(given.threads)  # the server's worker has as many
    report = {}
    with tempfile.TemporaryDirectory() as folder:
        made(given).save_pretrained(folder)
        with background([ModelSpec("model", folder)], Path(folder) / "server") as url:
            server = weft.connect(url)
            remote, local = server.model("model"), weft.load(folder, name="model")
            pids = [int(each["worker"]) for each in server.models()]
            for task in given.only.split(","):
                report[task] = rounds(given, contestants(given, task, local, remote), pids)
    for task, found in report.items():
        if given.json:
            continue
        print(
            f"{task}, {given.steps} steps of {given.batch} × {given.tokens} tokens, {given.layers} layers of {given.width}"
        )
        for name in ("hooks", "weft", "server"):
            print(f"  {name:<8} {found[name]['seconds']:7.2f} s   {found[name]['processor']:7.2f} s of processor")
        for name, value in found.items():
            if "/" in name:
                print(f"  {name:<26} {value:.2f}")
        print(f"  largest difference of a loss from the hooks' {found['difference']:.1e}")
    if given.json:
        print(json.dumps(report, indent=2))
    return 0 if all(found["difference"] < 1e-4 for found in report.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
