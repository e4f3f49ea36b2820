"""One batch as an experiment: the sites asked for, at the rows and positions asked for, and nothing else.

Prompts of a batch need not be of one length, and nothing of their padding is saved: each site is read at its rows and
positions, [rows, …]. The engine runs all of a batch's rows in one pass without padding, which ends with the last site.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch

from weft.collect.batches import Batch
from weft.collect.prompts import Prompt
from weft.errors import ProgramError, SiteError
from weft.ir.nodes import Experiment, Site
from weft.models.names import resolve
from weft.trace.location import where
from weft.trace.session import Session

if TYPE_CHECKING:
    from weft.trace.model import Model
    from weft.trace.tensor import Traced


class Column(NamedTuple):
    """A site that is collected: its name, dtype in the model, and the axes and sizes of one row."""

    name: str
    site: Site
    dtype: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]


class Unrun(Session):
    """A session whose experiment is written, and not run at its end."""

    def _run(self) -> None:
        self._experiment = self.graph.experiment()
        self.state, self.outcome = "done", None


def columns(model: Model, sites: Any) -> tuple[Column, ...]:
    """The sites named: "resid_post[3]", "resid_post" for every layer of it, "blocks.3.hook_mlp_out", or a list of these."""
    names: list[str] = [sites] if isinstance(sites, str) else list(sites)
    found: dict[Site, Column] = {}
    for name in names:
        for site in _sites(model, name):
            found[site] = _column(model, site)
    if not found:
        raise SiteError("collect needs at least one site, e.g. sites=['resid_post[3]']", where=where())
    return tuple(found.values())


def _sites(model: Model, name: str) -> list[Site]:
    card = model.card
    if name == "resid_pre":
        return [resolve(name, layer, card) for layer in range(card.layers_of.get("resid_post", 0))]
    if name in card.layers_of:
        return [spec.site for spec in card.sites if spec.site.name == name and not spec.site.path]
    try:
        return [resolve(name, None, card)]
    except SiteError as error:
        raise error.at(where()) from None


def _column(model: Model, site: Site) -> Column:
    spec = model.card.by_site[site][1]
    tail = [dim for axis, dim in zip(spec.axes, spec.dims, strict=True) if axis not in ("batch", "pos")]
    if spec.axes[:2] != ("batch", "pos") or any(dim._replace(const=0) != (0, 0, 0, 0, 0) for dim in tail):
        raise SiteError(
            f"collect takes sites with one row of fixed size for each token; {site} is [{', '.join(spec.axes)}]: "
            "save it in a session",
            where=where(),
        )
    return Column(str(site), site, spec.dtype, spec.axes[2:], tuple(dim.const for dim in tail))


def written(model: Model, batch: Batch, wanted: tuple[Column, ...]) -> Experiment:
    """The experiment that saves, for site i, the batch's rows as "i.0", and those of its second half as "i.1".

    Two runs, because the engine takes on what has something to share or to batch; a single run it leaves as it is.
    """
    half = (len(batch.prompts) + 1) // 2
    halves = [part for part in (batch.prompts[:half], batch.prompts[half:]) if any(each.positions for each in part)]
    places = [_places(part) for part in halves]
    session = Unrun(model)
    with session:
        for number, (part, (rows, positions)) in enumerate(zip(halves, places, strict=True)):
            run = session.run([list(prompt.ids) for prompt in part])
            for index, column in enumerate(wanted):
                session.save(cast("Traced", run.site(column.site)[rows, positions]), f"{index}.{number}")
    return session.experiment


def _places(prompts: tuple[Prompt, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and position of each activation in the run's presentation, which is padded on the left."""
    longest = max(len(prompt.ids) for prompt in prompts)
    rows = [row for row, prompt in enumerate(prompts) for _ in prompt.positions]
    found = [longest - len(prompt.ids) + position for prompt in prompts for position in prompt.positions]
    return torch.tensor(rows), torch.tensor(found)


def parts(values: Any, index: int) -> list[torch.Tensor]:
    """What came of site `index`, in the order of its rows."""
    found = [values[name] for number in (0, 1) if (name := f"{index}.{number}") in values]
    if not found:
        raise ProgramError("this batch has no rows")
    return found


def bytes_per_token(model: Model, wanted: tuple[Column, ...]) -> int:
    """About how much memory a token of a batch takes: what is read of it, once more while it is written, and one layer."""
    sizes = model.card.sizes
    item = 2 if model.card.dtype in ("float16", "bfloat16") else 8 if model.card.dtype == "float64" else 4
    read = sum(_numel(column) for column in wanted)
    return item * (2 * read + 8 * sizes["d_model"] + 5 * sizes["d_mlp"])


def _numel(column: Column) -> int:
    return int(torch.Size(column.shape).numel())
