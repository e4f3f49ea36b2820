"""Sweeps by weft, by hand and by other tools: the same tasks, the same inputs, in alternation.

    weft bench sweeps --quick                       a tiny model, seconds
    weft bench sweeps --only a16,b --models gpt2    some rows
    weft bench sweeps --peers PYTHON --sample 12 --write-docs

To have all contestants in one process run it by the Python of an environment that has weft and the peers
(pip install weft[bench]); those that this one lacks run in processes of their own with the Python given as --peers.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # everything is built here; no tool may wait for a network
os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))  # an environment of peers alone has no weft installed
warnings.simplefilter("ignore")

from sweeping import machine, page, show, yardstick  # noqa: E402
from sweeping.contest import Row, contest, row_of  # noqa: E402
from sweeping.stand import RIVALS, Setting  # noqa: E402
from sweeping.tasks import TASKS  # noqa: E402


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="weft bench sweeps", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes on a model of 2 layers of 64")
    parser.add_argument("--only", default="", help=f"tasks, by commas: {', '.join(TASKS)}")
    parser.add_argument("--models", default="gpt2,llama", help="gpt2, llama, tiny, tiny-llama (with --quick: tiny)")
    parser.add_argument("--rivals", default=",".join(RIVALS), help=f"contestants, by commas: {', '.join(RIVALS)}")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; medians are shown")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads, for every contestant")
    parser.add_argument("--sample", type=int, default=0, help="loops run so many patches and their time is scaled up")
    parser.add_argument("--plan", default="auto", help="weft's plan: auto or reference")
    parser.add_argument("--peers", default="", help="a Python whose environment holds the other tools")
    parser.add_argument("--apart", action="store_true", help="every contestant in a process of its own")
    parser.add_argument("--no-yardstick", action="store_true", help="do not time weft's matrix products alone")
    parser.add_argument("--results", type=Path, help="rows are kept in this file, and those there are not run again")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument("--write-docs", action="store_true", help="write docs/performance.md and its picture")
    given = parser.parse_args()
    _check(parser, "--only", given.only, TASKS)
    _check(parser, "--rivals", given.rivals, RIVALS)
    return given


def _check(parser: argparse.ArgumentParser, option: str, text: str, known: object) -> None:
    for name in filter(None, text.split(",")):
        if name not in known:  # type: ignore[operator]
            parser.error(f"{option} {name!r} is not known; there are {', '.join(known)}")  # type: ignore[arg-type]


def chosen(given: argparse.Namespace) -> list[tuple[str, str]]:
    """Tasks and models to be run, a model's tasks together."""
    tasks = list(filter(None, given.only.split(","))) or list(TASKS)
    models = ["tiny"] if given.quick and given.models == "gpt2,llama" else given.models.split(",")
    pairs = [(task, model) for model in models for task in tasks if len(TASKS[task].models) > 1]
    return pairs + [(task, TASKS[task].models[0]) for task in tasks if len(TASKS[task].models) == 1]


def main() -> int:
    given = arguments()
    about = machine.describe(given.threads, given.peers)
    kept = json.loads(given.results.read_text()) if given.results and given.results.exists() else {"rows": []}
    rows = [row_of(data) for data in kept["rows"]]
    if kept["rows"]:
        about = kept["machine"]
    if not given.json:
        print(show.header(about), flush=True)
    for task, model in chosen(given):
        row = next((row for row in rows if (row.task, row.model, row.quick) == (task, model, given.quick)), None)
        if row is None:
            row = run(given, task, model)
            rows.append(row)
            _keep(given, about, rows)
        if not given.json:
            print("\n" + show.text(row), flush=True)
    if given.json:
        print(json.dumps({"machine": about, "rows": [row.to_data() for row in rows]}, indent=2))
    if given.write_docs:
        page.write(rows, about)
    # A row that is void for a busy machine says so and is no failure; one whose results differ is.
    return 1 if any("differs" in why or "gives" in why for row in rows for why in row.void) else 0


def run(given: argparse.Namespace, task: str, model: str) -> Row:
    """One row, with the yardstick where a plan's work was counted."""
    setting = Setting("", task, model, given.threads, given.quick, given.sample, given.plan)
    row = contest(setting, given.rivals.split(","), given.repeats, given.peers, given.apart)
    if row.counted and not given.no_yardstick and row.entries.get("weft") and row.entries["weft"].seconds:
        row.yardstick = yardstick.measure(task, model, given.quick, given.plan)
    gc.collect()
    return row


def _keep(given: argparse.Namespace, about: dict[str, object], rows: list[Row]) -> None:
    if given.results:
        given.results.write_text(json.dumps({"machine": about, "rows": [row.to_data() for row in rows]}, indent=1))


if __name__ == "__main__":
    sys.exit(main())
