"""Do the methods find functions and predicates in a trained bobbin? By weft's own calls, on held-out samples.

    weft bench bobbin                      the weights in the package: some minutes
    weft bench bobbin --model FOLDER       those of another training run

Asked of function vectors: zero-shot accuracy ≥ 0.7 with the vector and ≤ 0.4 without, and random vectors as long within 0.05
of that. Of filter heads: their patched queries decide in ≥ 80 % of pairs, those of as many random heads in ≤ 10 %. Of both,
that they are at most 15 % of all heads. Status 1 if something asked is not met.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import weft
from weft import tasks
from weft.bobbin.measure import suite
from weft.methods import filter_heads, function_vector

SHARE = 0.15
PARTS = ("grid", "mask", "sets", "same_answer", "question_first", "predicates", "union")


class Line(NamedTuple):
    """One figure, and what is asked of it."""

    what: str
    value: float
    asked: str = ""
    met: bool = True
    interval: str = ""

    def __str__(self) -> str:
        asked = f"   asked {self.asked}: {'met' if self.met else 'NOT MET'}" if self.asked else ""
        return f"    {self.what:<52}{self.value:5.2f} {self.interval:<16}{asked}"


def functions(model: Any, relation: str, quick: bool) -> Iterator[Line]:
    """A relation's vector, looked for on prompts without examples: bobbin answers shuffled ones rightly."""
    sizes = {"n_means": 8, "n_effects": 4, "controls": 1} if quick else {"n_means": 100, "n_effects": 25, "controls": 5}
    found = function_vector(model, relation, shots=5, effects_on="zero-shot", progress=False, **sizes)
    table = found["accuracy"]
    rows = {name: table.sel(condition=name) for name in table.coords["condition"].values.tolist()}
    bare, name = float(rows["zero-shot"].sel(value="value")), "zero-shot, function vector"
    yield Line(f"heads of {found['aie'].size}: {spelled(found.heads)}", len(found.heads) / found["aie"].size, "≤ 0.15",
               len(found.heads) <= SHARE * found["aie"].size)  # fmt: skip
    yield _accuracy("zero-shot", rows["zero-shot"], "≤ 0.4", bare <= 0.4)
    value = float(rows[name].sel(value="value"))
    yield _accuracy(f"{name}, after layer {found.layer}", rows[name], "≥ 0.7", value >= 0.7)
    yield _accuracy("zero-shot, random heads", rows["zero-shot, random heads"])
    random = float(rows["zero-shot, random vectors"].sel(value="value"))
    within = abs(random - bare) <= 0.05 + 1e-9
    yield _accuracy("zero-shot, random vectors", rows["zero-shot, random vectors"], "within 0.05 of zero-shot", within)


def _accuracy(what: str, row: Any, asked: str = "", met: bool = True) -> Line:
    value, low, high, n = (float(row.sel(value=each)) for each in ("value", "low", "high", "n"))
    return Line(f"{what} (n = {n:.0f})", value, asked, met, f"{low:.2f} to {high:.2f}")


def predicates(model: Any, quick: bool) -> Iterator[Line]:
    """Filter heads by the paper's recipe and its penalty."""
    sizes = {"pairs": 16, "train_pairs": 32, "epochs": 1} if quick else {}
    found = filter_heads(model, tasks.SelectOne(), parts=PARTS, progress=False, **sizes)
    size, sets = found["causality"].size, found["sets"]
    yield Line(
        f"heads of {size}: {spelled(found.heads)}",
        len(found.heads) / size,
        "≤ 0.15",
        0 < len(found.heads) <= SHARE * size,
    )
    for name, asked in (("mask", "≥ 0.8"), ("random", "≤ 0.1"), ("attention", ""), ("single", "")):
        if name in sets.coords["set"].values:
            value, low, high = (float(sets.sel(set=name, measure=each)) for each in ("causality", "low", "high"))
            met = value >= 0.8 if name == "mask" else value <= 0.1 or name != "random"
            yield Line(f"causality, {name}", value, asked, met, f"{low:.2f} to {high:.2f}")
    for part in ("same_answer", "format", "union"):
        if part in found.arrays:
            print("   ", found[part].to_pandas().round(2).to_string().replace("\n", "\n    "))
    for part, why in found.left_out.items():
        print(f"    {part} was left out: {why}")


def answering(source: str) -> tuple[Any, float]:
    """The model, and how long it takes, all being imported, to load it and have a prompt of each task answered."""
    import transformers.models.llama.modeling_llama  # noqa: F401

    began = time.perf_counter()
    model = weft.load(source)
    for task in suite().values():
        task.evaluate(model, n=1, seed=3)
    return model, time.perf_counter() - began


def spelled(heads: Any) -> str:
    return ", ".join(f"{layer}.{head}" for layer, head in heads) or "none"


def main() -> int:
    parser = argparse.ArgumentParser(prog="weft bench bobbin", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="bobbin", help="a folder as `python -m weft.bobbin.train` leaves it")
    parser.add_argument("--functions", default="to_tavi,category", help="relations, by commas")
    parser.add_argument("--quick", action="store_true", help="few prompts: to see that it runs")
    given = parser.parse_args()
    model, seconds = answering(given.model)
    print(
        f"loading, and a prompt of each of {len(suite())} tasks: {seconds:.1f} s (asked ≤ 3 on idle cores)\n",
        flush=True,
    )
    failed = 0
    parts = [(f"function vector of {name}", functions(model, name, given.quick)) for name in given.functions.split(",")]
    for title, lines in [*parts, ("filter heads", predicates(model, given.quick))]:
        print(title, flush=True)
        began = time.monotonic()
        for line in lines:
            print(line, flush=True)
            failed += not line.met
        print(f"    {time.monotonic() - began:.0f} s\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
