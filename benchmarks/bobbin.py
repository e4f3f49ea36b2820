"""Do the methods find functions and predicates in a trained bobbin? By weft's own calls, on held-out samples.

    weft bench bobbin                      the weights in the package: some minutes
    weft bench bobbin --model FOLDER       those of another training run

Asked of function vectors, of all relations with more than 25 held-out pairs together: zero-shot accuracy ≥ 0.7 with the vector
and ≤ 0.4 without, and random vectors as long within 0.05 of that. Of filter heads: their patched queries decide in ≥ 80 % of
pairs, those of as many random heads in ≤ 10 %. Of both, that they are at most 15 % of all heads. Status 1 where one of these
is not met.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import weft
from weft import tasks
from weft.bobbin.measure import suite
from weft.methods import filter_heads, function_vector
from weft.tasks.words import relations as relation_words

SHARE = 0.15
RELATIONS = ("plural", "category", "noun_capitals", "to_tavi", "to_moru", "to_selk")
"""Those with more than 25 held-out pairs; the others have less than ten."""
CONDITIONS = ("zero-shot", "zero-shot, function vector", "zero-shot, random heads", "zero-shot, random vectors")
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


def functions(model: Any, relations: list[str], quick: bool) -> Iterator[Line]:
    """Relations' vectors, looked for on prompts without examples (bobbin answers shuffled ones rightly), and all of them."""
    sizes = {"n_means": 8, "n_effects": 4, "controls": 1} if quick else {"n_means": 100, "n_effects": 25, "controls": 5}
    # Pooled: of one relation there are some thirty queries, and five draws of a control move it by more than 0.05.
    right, asked, most = dict.fromkeys(CONDITIONS, 0.0), dict.fromkeys(CONDITIONS, 0.0), 0
    for relation in relations:
        found = function_vector(model, relation, shots=5, effects_on="zero-shot", progress=False, **sizes)
        table, total = found["accuracy"], found["aie"].size
        most = max(most, len(found.heads))
        told = []
        for name in CONDITIONS:
            value, n = (float(table.sel(condition=name, value=each)) for each in ("value", "n"))
            right[name] += value * n
            asked[name] += n
            told.append(f"{value:.2f}")
        print(f"    {relation:<16} {told[0]} -> {told[1]} after layer {found.layer}, by {len(found.heads)} of {total}: "
              f"{spelled(found.heads)}; random heads {told[2]}, vectors {told[3]}; "
              f"n = {n / sizes['controls']:.0f}", flush=True)  # fmt: skip
    together = {name: _pooled(round(right[name]), round(asked[name])) for name in CONDITIONS}
    bare, vector, _, random = (together[name].value for name in CONDITIONS)
    yield Line(f"the most heads of one: {most} of {total}", most / total, "≤ 0.15", most <= SHARE * total)
    yield _line("zero-shot", together, "≤ 0.4", bare <= 0.4)
    yield _line("zero-shot, function vector", together, "≥ 0.7", vector >= 0.7)
    yield _line("zero-shot, random heads", together)
    yield _line("zero-shot, random vectors", together, "within 0.05 of zero-shot", abs(random - bare) <= 0.05)


def _pooled(right: int, n: int) -> tasks.Accuracy:
    return tasks.Accuracy(tuple(i < right for i in range(n)), "first token", 0.0)


def _line(name: str, together: dict[str, tasks.Accuracy], asked: str = "", met: bool = True) -> Line:
    each = together[name]
    return Line(
        f"{name} (n = {each.n})", each.value, asked, met, f"{each.interval.low:.2f} to {each.interval.high:.2f}"
    )


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
    import_module("transformers.models.llama.modeling_llama")
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
    parser.add_argument("--functions", default=",".join(RELATIONS), help="relations, by commas")
    parser.add_argument("--quick", action="store_true", help="few prompts: to see that it runs")
    given = parser.parse_args()
    relations = given.functions.split(",")
    if unknown := [name for name in relations if name not in relation_words.RELATIONS]:
        parser.error(f"--functions: no relation {', '.join(unknown)}; there are {', '.join(relation_words.RELATIONS)}")
    model, seconds = answering(given.model)
    print(
        f"loading, and a prompt of each of {len(suite())} tasks: {seconds:.1f} s (asked ≤ 3 on idle cores)\n",
        flush=True,
    )
    failed = 0
    vectors = functions(model, relations, given.quick)
    for title, lines in (("function vectors", vectors), ("filter heads", predicates(model, given.quick))):
        print(title, flush=True)
        began = time.monotonic()
        for line in lines:
            print(line, flush=True)
            failed += not line.met
        print(f"    {time.monotonic() - began:.0f} s\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
