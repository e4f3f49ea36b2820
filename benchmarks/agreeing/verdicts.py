"""What comes of holding one engine's values against weft's, by checkpoint and site, and the page that says so."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from agreeing.identity import CLOSE, Truth, Values, differ

SITES = (
    "embed", "q", "k", "v", "q_rot", "k_rot", "scores", "pattern", "z", "head_out", "attn_out", "resid_mid", "mlp_pre",
    "mlp_post", "router_logits", "expert_weights", "expert_out", "mlp_out", "resid_post", "final_norm", "logits",
)  # fmt: skip
WORDS = {
    "=": "the same number",
    "W": "they differ, and weft's is the one for which the site's identity holds",
    "T": "they differ, and theirs is the one for which it holds",
    "N": "they differ, and it holds for neither",
    "?": "they differ, and it holds for both, or there is none to decide",
    "–": "it has no such value",
    "+": "it has a value under that name where weft says that the model has none",
    "": "neither has one",
}
RANK = ("N", "T", "?", "W", "+", "=", "–", "")
"""The worst of the layers is shown."""


_METHOD = """
{kinds} tiny checkpoints, every weight random, are read by weft and by others, on the same tokens, in float32 with eager
attention ({versions}). A site is compared at every layer, and the worst layer is shown. Who is right is said by the site's
identity ([sites](sites.md)), held to what the model's own layers take and give. That is weft's definition: a hook that is
another point by its own (before a norm of q, before a mask) is not wrong for whoever means that point. *Plain hooks* and
*nnsight* read the module whose name suggests the site, at face value, which is what one writes by hand: both would give the
right value, were they told where it is. TransformerLens's is the hook that has the site's name; its `HookedTransformer` is
no more since version 4.
"""


@dataclass
class Verdicts:
    """Of one engine: cells by checkpoint and site, what it failed at, and details of where it differs from weft."""

    engine: str
    cells: dict[str, dict[str, str]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    details: list[str] = field(default_factory=list)

    def count(self, mark: str) -> int:
        return sum(cell == mark for row in self.cells.values() for cell in row.values())


@dataclass
class Own:
    """How many of weft's own values have an identity, and where one fails."""

    held: int = 0
    undecided: int = 0
    broken: list[str] = field(default_factory=list)

    def add(self, kind: str, truth: Truth) -> None:
        for key in truth.weft:
            off = truth.off(key, truth.weft)
            if off is None:
                self.undecided += 1
            elif off > CLOSE:
                self.broken.append(f"{kind} {key}: {off:.1e}")
            else:
                self.held += 1


def judge(verdicts: Verdicts, kind: str, theirs: Values, truth: Truth) -> None:
    """Put one checkpoint's row into the verdicts."""
    cells: dict[str, list[str]] = defaultdict(list)
    for key in sorted(theirs.keys() | truth.weft.keys()):
        site = key.partition(".")[0]
        cells[site].append(_cell(verdicts, kind, key, theirs, truth))
    verdicts.cells[kind] = {site: min(cells.get(site, [""]), key=RANK.index) for site in SITES}


def _cell(verdicts: Verdicts, kind: str, key: str, theirs: Values, truth: Truth) -> str:
    if key not in theirs:
        return "–"
    if key not in truth.weft:
        return "+"
    difference = differ(key, theirs[key], truth.weft[key])
    if difference <= CLOSE:
        return "="
    ours, other = truth.off(key, truth.weft), truth.off(key, theirs)
    verdicts.details.append(
        f"{kind} {key}: {difference:.1e} apart; weft {_told(ours)}, {verdicts.engine} {_told(other)}"
    )
    if ours is None or (ours <= CLOSE and other is not None and other <= CLOSE):
        return "?"
    if ours <= CLOSE:
        return "W"
    return "T" if other is not None and other <= CLOSE else "N"


def _told(off: float | None) -> str:
    return "has no identity" if off is None else f"is {off:.1e} off its identity"


def page(found: list[Verdicts], own: Own, versions: str, absent: dict[str, str]) -> str:
    """docs/agreement.md."""
    kinds = max((len(each.cells) for each in found), default=0)
    lines = [
        "# Agreement between engines", "",
        "<!-- Written by `weft bench agreement --write-docs`. -->", "",
        *_wrapped(_METHOD.format(kinds=kinds, versions=versions)), "",
        *(f"* `{mark}` {said}" for mark, said in WORDS.items() if mark),
        "* blank: " + WORDS[""], "",
        *_wrapped(
            f"Of weft's own values {own.held} hold to their identity and {len(own.broken)} do not; {own.undecided} have "
            "none to be held to (what weight an expert has is seen only in what it adds)."
        ), "",
        "| | " + " | ".join(f"`{mark}`" for mark in WORDS if mark) + " | cannot open |",
        "|---|" + "--:|" * len(WORDS),
    ]  # fmt: skip
    for each in found:
        counts = " | ".join(str(each.count(mark)) for mark in WORDS if mark)
        lines.append(f"| {each.engine} | {counts} | {len(each.failed)} |")
    lines += ["", *(f"Not run: {engine}, {why}." for engine, why in absent.items())]
    for each in found:
        lines += ["", f"## {each.engine}", "", *_table(each), "", *_by_site(each)]
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), 125, break_on_hyphens=False)


def _table(verdicts: Verdicts) -> list[str]:
    head = "| | " + " | ".join(f"`{site}`" for site in SITES) + " |"
    rows = [
        f"| {kind} | " + " | ".join(cells[site] or " " for site in SITES) + " |"
        for kind, cells in verdicts.cells.items()
    ]
    return [head, "|---|" + ":-:|" * len(SITES), *rows]


def _by_site(verdicts: Verdicts) -> list[str]:
    lines: list[str] = []
    for mark in ("N", "T", "?", "W"):
        for site in SITES:
            kinds = [kind for kind, cells in verdicts.cells.items() if cells[site] == mark]
            if kinds:
                lines.append(f"* `{mark}` `{site}`: {', '.join(kinds)}")
    whys: dict[str, list[str]] = defaultdict(list)
    for kind, why in verdicts.failed.items():
        whys[why.split(". Available")[0]].append(kind)
    lines += [f"* cannot open {', '.join(kinds)}: {why}" for why, kinds in whys.items()]
    return lines


def wrong(verdicts: Verdicts) -> list[str]:
    """Where weft's value is not the engine's and its identity does not hold, or does not decide."""
    return [
        f"{verdicts.engine}: {kind} {site}"
        for kind, cells in verdicts.cells.items()
        for site, mark in cells.items()
        if mark in ("N", "T") or (mark == "?" and verdicts.engine == "plain hooks")
    ]


PAGE = Path(__file__).parents[2] / "docs" / "agreement.md"
