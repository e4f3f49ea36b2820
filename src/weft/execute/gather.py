"""Experiments that only look: of runs without edits some rows and positions of some sites are saved, and nothing more.

That is what collecting activations asks for. All rows go through the layers in one pass, packed, each distinct row once;
what is asked of a site is taken as it passes, and nothing else is kept, neither keys nor the site itself. The pass ends
with the last site.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from weft.errors import JobCancelledError
from weft.execute import planned, reference
from weft.execute.attend import Group, attend
from weft.execute.constants import to_tensor
from weft.execute.packed import Packed
from weft.execute.planned import unplanned
from weft.execute.reference import Progress
from weft.execute.trial import distrust
from weft.ir.nodes import Const, Experiment, Op, Read, Ref, Run, Save, Site
from weft.ir.outcome import Edits, Outcome
from weft.models.hooks import installed
from weft.plan.forks import IN_LAYER

SITES = frozenset({"embed", "resid_post", *IN_LAYER})
LOOKING = frozenset({Const, Op, Run, Read, Save})
Row = tuple[int, ...]


class Wanted(NamedTuple):
    """What one save asks for: rows and positions (constants) of a site of a run."""

    name: str
    run: int
    site: Site
    rows: Ref
    positions: Ref


def wanted(experiment: Experiment) -> list[Wanted]:
    """What an experiment saves, if it only looks; empty if it does anything else."""
    nodes, found = experiment.nodes, list[Wanted]()
    if not LOOKING.issuperset(map(type, nodes)):  # most experiments are let go here
        return []
    for node in nodes:
        match node:
            case Const() | Op():
                pass
            case Run(kind="tokens", options=()):
                pass
            case Read(_, site, None) if site.name in SITES and not site.path:
                pass
            case Save(name, value):
                each = _asked(nodes, name, value)
                if each is None:
                    return []
                found.append(each)
            case _:
                return []
    asked = sum(isinstance(node, Op) for node in nodes)
    return found if asked == len({(each.run, each.site, each.rows, each.positions) for each in found}) else []


def _asked(nodes: tuple[Any, ...], name: str, value: Ref) -> Wanted | None:
    op = nodes[value.node]
    match op:
        case Op("index.Tensor", (Ref() as base, (Ref() as rows, Ref() as positions))):
            read = nodes[base.node]
            plain = all(_one_axis(nodes[each.node]) for each in (rows, positions))
            return Wanted(name, read.run, read.site, rows, positions) if isinstance(read, Read) and plain else None
        case _:
            return None


def _one_axis(node: Any) -> bool:
    return isinstance(node, Const) and node.data.type.dtype == "int64" and len(node.data.type.shape) == 1


def run(
    loaded: Any, experiment: Experiment, progress: Progress | None = None, cancelled: Callable[[], bool] | None = None
) -> Outcome | None:
    """What an experiment that only looks gives; None for any other, and for a model whose layers cannot be packed."""
    asked = wanted(experiment)
    if not asked or unplanned(loaded) or distrust(loaded, planned._trusted, reference.run):
        return None
    started = time.perf_counter()
    try:
        look = _Look(loaded, experiment, asked, progress or _silent, cancelled or bool)
    except IndexError:  # a place outside a run: the dataflow says where and on which line
        return None
    with torch.no_grad():
        look.through()
    tokens, layers = int(look.ids.shape[0]), look.last + 1
    work = {
        "runs": len(look.places), "passes": 1, "rows": len(look.rows), "layer_tokens_asked": layers * look.asked_tokens,
        "layer_tokens_done": layers * tokens, "flops": 2 * tokens * sum(look.packed.weights[:layers]),
    }  # fmt: skip
    notes = (f"gathered       {len(look.places)} runs on {len(look.rows)} distinct rows, {layers} layers",)
    return Outcome(look.values, Edits(0, 0, 0), work, time.perf_counter() - started, "planned", notes)


def _silent(done: float, text: str) -> None:
    pass


class _Look:
    """One pass: the distinct rows of all runs, longest first, one after another."""

    def __init__(
        self,
        loaded: Any,
        experiment: Experiment,
        asked: list[Wanted],
        progress: Progress,
        cancelled: Callable[[], bool],
    ) -> None:
        self.nodes: tuple[Any, ...] = experiment.nodes
        self.loaded, self.progress, self.cancelled = loaded, progress, cancelled
        self.packed = Packed(loaded)
        self.runs = {index: _rows(node, self.nodes) for index, node in enumerate(self.nodes) if isinstance(node, Run)}
        self.asked_tokens = sum(len(row) for rows, _, _ in self.runs.values() for row in rows)
        self.rows = sorted({row for rows, _, _ in self.runs.values() for row in rows}, key=lambda row: (-len(row), row))
        self.ids = torch.tensor([token for row in self.rows for token in row])
        self.begin: dict[Row, int] = {}
        at = 0
        for row in self.rows:
            self.begin[row] = at
            at += len(row)
        self.places = {index: self._places(*found) for index, found in self.runs.items()}
        self.asked: dict[Site, list[tuple[str, torch.Tensor]]] = defaultdict(list)
        for each in asked:
            self.asked[each.site].append((each.name, self._tokens(each)))
        self.last = max(-1 if site.layer is None else site.layer for site in self.asked)
        self.values: dict[str, torch.Tensor] = {}

    def through(self) -> None:
        """Go through the layers, taking what is asked for as it passes."""
        packed, groups = self.packed, self._groups()
        inner = {site for site in self.asked if site.name in IN_LAYER}
        positions = torch.cat([torch.arange(len(row)) for row in self.rows])
        with packed.open():
            arguments = packed.arguments(self.ids.to(self.loaded.device), positions.to(self.loaded.device))
            packed.attend = lambda layer, q, k, v, how: attend(groups, layer, q, k, v, how)
            hidden = arguments.hidden
            self._take(Site("embed"), hidden)
            with installed(self.loaded.module, self.loaded.family, self.loaded.card.sizes, inner, self._take, _no_raw):
                for layer in range(self.last + 1):
                    if self.cancelled():
                        raise JobCancelledError("the job was cancelled while it ran")
                    hidden = packed.layer(layer, hidden, *arguments.at(layer, None))
                    self._take(Site("resid_post", layer), hidden)
                    self.progress((layer + 1) / (self.last + 1), f"layer {layer + 1} of {self.last + 1}")

    def _take(self, site: Site, value: torch.Tensor) -> None:
        for name, tokens in self.asked.get(site, ()):
            places = tokens.to(value.device)
            taken = value[0].index_select(0, places.clamp(min=0))
            padding = (places < 0).reshape(-1, *[1] * (taken.dim() - 1))
            self.values[name] = taken.masked_fill_(padding, 0) if bool(padding.any()) else taken

    def _tokens(self, each: Wanted) -> torch.Tensor:
        """The packed tokens that a save is of, -1 for padding, which reads as 0."""
        rows, positions = (
            to_tensor(self.nodes[ref.node].data, torch.device("cpu")) for ref in (each.rows, each.positions)
        )
        rows, positions = torch.broadcast_tensors(rows, positions)
        return self.places[each.run][rows, positions]

    def _places(self, rows: list[Row], starts: list[int], pos: int) -> torch.Tensor:
        """For each row and position of the presentation the packed token, -1 for padding."""
        found = torch.full((len(rows), pos), -1)
        for number, (row, start) in enumerate(zip(rows, starts, strict=True)):
            found[number, start:] = self.begin[row] + torch.arange(len(row))
        return found

    def _groups(self) -> list[Group]:
        """Rows of one length lie side by side and attend together."""
        counts: dict[int, int] = defaultdict(int)
        for row in self.rows:
            counts[len(row)] += 1
        groups, at = list[Group](), 0
        for length, count in counts.items():
            groups.append(Group(at + torch.arange(count * length).reshape(count, length), at, ()))
            at += count * length
        return groups


def _rows(run: Run, nodes: tuple[Any, ...]) -> tuple[list[Row], list[int], int]:
    """A run's rows without padding, where each begins, and how many positions there are."""
    inputs = {name: to_tensor(nodes[ref.node].data, torch.device("cpu")) for name, ref in run.inputs}
    ids = inputs["tokens"]
    starts = inputs["start"].tolist() if "start" in inputs else [0] * ids.shape[0]
    return [tuple(row[start:]) for row, start in zip(ids.tolist(), starts, strict=True)], starts, int(ids.shape[1])


def _no_raw(path: str, name: str, call: int, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {}
