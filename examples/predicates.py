"""Where a model keeps "is a fruit": its filter heads, found, tested against controls, and used on other lists.

python examples/predicates.py                          # the planted model, in this process
python examples/predicates.py http://127.0.0.1:7787    # the same on a server: weft serve planted/predicates
python examples/predicates.py --figures docs/images    # and the figures of docs/data-types/predicates.md
"""

from __future__ import annotations

import sys
from pathlib import Path

import weft
from weft import tasks
from weft.methods import FilterHeads, filter_heads
from weft.planted.predicates import CATEGORIES

TASK = tasks.SelectOne(categories=CATEGORIES, question="Which among these objects mentioned above is a {}?")


def find(model: weft.Model) -> FilterHeads:
    """So few pairs and steps are enough for a planted model only; leave them out for one that was trained."""
    return filter_heads(model, TASK, pairs=8, train_pairs=8, epochs=54, batch_size=4, tasks={"select_one": TASK})


def use(model: weft.Model, found: FilterHeads) -> dict[str, str]:
    """What the model answers to "which is a bird?" of one list, with the predicate of each category put in."""
    asked = TASK.prompts([{"items": ("owl", "saw", "tea", "plum", "tram"), "category": "bird"}])
    return {name: found.apply(model, asked, name)[0] for name in ("bird", "tool", "drink", "fruit", "vehicle")}


def figures(found: FilterHeads, folder: Path) -> list[Path]:
    """The grid of heads, and what the heads kept look at before and after the patch."""
    from weft.plot import heatmap

    (head,) = found.heads
    grid = heatmap(found["causality"], title="Each head's query patched alone: causality", mark=head)
    looks = heatmap(found["looks"], title="What the heads kept attend to")
    folder.mkdir(parents=True, exist_ok=True)
    return [grid.png(folder / "predicates-heads.png"), looks.png(folder / "predicates-attention.png")]


if __name__ == "__main__":
    given = [each for each in sys.argv[1:] if each.startswith("http")]
    model = weft.connect(given[0]).model("planted/predicates") if given else weft.load("planted/predicates")
    found = find(model)
    print(found)
    print(found["sets"].to_pandas())
    print(use(model, found))
    if "--figures" in sys.argv:
        print(*figures(found, Path(sys.argv[sys.argv.index("--figures") + 1])))
