"""`weft models`: the families weft has tables for, what one of them has, and docs/models.md."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weft.errors import NotFoundError
from weft.models.described import BY_PATH, Described, described, model_types
from weft.models.families import FAMILIES, STANDARD_SITES
from weft.models.tables import ROWS, other
from weft.models.tables.without import WITHOUT

PAGE = Path(__file__).parents[3] / "docs" / "models.md"
_HEAD = """# Models

<!-- Written by `weft models --write-docs`, from the tables {mark}. -->

Each row is a `model_type` of transformers, as its default configuration makes it; each column a standard site
([sites](sites.md)). A dot is a site that is there and held to its equation. A number says, below, why there is none:
everywhere, or (with `*`) in some layers. Every model, these and all others, has its modules by path:
`run.module(path).input` and `.output`.

`weft models NAME` shows one; `model.support("pattern")` gives the reason for the model that is loaded.

"""


def list_families(as_json: bool) -> None:
    """Print every family with its model types."""
    if as_json:
        print(json.dumps({name: list(family.model_types) for name, family in FAMILIES.items()}, indent=2))
        return
    families = {**FAMILIES, **{family.name: family for family in other.BY_TYPE.values()}}
    width = max(map(len, families))
    for name, family in families.items():
        print(f"{name:<{width}}  {', '.join(family.model_types)}")
    print(
        f"\n{len(model_types())} model types. weft models NAME shows the sites of one; others have their modules by path."
    )


def show_model(name: str, as_json: bool) -> None:
    """Print the sites of a model type, or of the model in a folder, and the reasons for those it has not."""
    found = _found(name)
    if as_json:
        print(json.dumps({**vars(found), "sites": list(found.sites)}, indent=2, default=list))
        return
    print(f"{found.model_type} ({found.model}), table {found.family or 'none'}\n")
    if found.failed:
        print(f"nothing could be found out: {found.failed}")
    for site in found.sites:
        some = f"   not in every layer: {_somewhere(found, site)}" if _somewhere(found, site) else ""
        print(f"  {site:<15} {' '.join(found.axes[site])}{some}")
    for site, why in found.absent.items():
        if "[" not in site:
            print(f"  {site:<15} none: {why}")


def _found(name: str) -> Described:
    if Path(name).is_dir():
        from weft.models.described import of_module
        from weft.models.load import load

        loaded = load(name, weights=False)
        kind = str(getattr(loaded.module.config, "model_type", "?"))
        return of_module(loaded.module, kind, loaded.family.name if loaded.family else "")
    return described(FAMILIES[name].model_types[0] if name in FAMILIES and name not in model_types() else name)


def write_page() -> Path:
    """Write docs/models.md anew."""
    if not PAGE.parent.is_dir():
        raise NotFoundError(
            f"the page comes with a clone of the repository, not with the package: no folder {PAGE.parent}"
        )
    PAGE.write_text(page([described(kind) for kind in model_types()]))
    return PAGE


def mark() -> str:
    """What the tables say, as a few digits: the page has those of the tables it was written from."""
    return hashlib.sha256(repr((ROWS, other.BY_TYPE, WITHOUT, STANDARD_SITES)).encode()).hexdigest()[:12]


def page(found: Sequence[Described]) -> str:
    """The page's text: a table of types and sites, the reasons, and what a configuration may change."""
    reasons: dict[str, int] = {}
    head = "| model type | table | " + " | ".join(f"`{site}`" for site in STANDARD_SITES) + " |"
    lines = [head, "|---|---|" + ":-:|" * len(STANDARD_SITES)]
    lines += [row(each, reasons) for each in found]
    numbered = [f"{number}. {why[0].upper()}{why[1:]}." for why, number in reasons.items()]
    text = _HEAD.format(mark=mark()) + "\n".join(lines) + "\n\n## Why not\n\n" + "\n".join(numbered) + "\n"
    return "\n".join((text, _conditions(), _others()))


def row(found: Described, reasons: dict[str, int]) -> str:
    """A type's line; reasons met for the first time are numbered."""
    cells = [f"`{found.model_type}`", found.family]
    for site in STANDARD_SITES:
        somewhere = _somewhere(found, site)
        why = found.failed or ("" if site in found.sites else found.absent.get(site, "it has none")) or somewhere
        number = str(reasons.setdefault(why, len(reasons) + 1)) if why else "·"
        cells.append(f"{number}\\*" if why and why is somewhere else number)
    return f"| {' | '.join(cells)} |"


def _somewhere(found: Described, site: str) -> str:
    """Why some layers lack a site that others have; "" where none does."""
    return next((why for name, why in found.absent.items() if name.startswith(f"{site}[")), "")


def _conditions() -> str:
    lines = [
        "## What hangs on the configuration", "",
        "With another value a table does not hold, and there are modules by path alone:", "",
    ]  # fmt: skip
    lines += [
        f"* {', '.join(f'`{kind}`' for kind in family.model_types)}: "
        + ", ".join(f"`{name}` must be {_shown(value)}" for name, value in family.needs)
        for family in (*FAMILIES.values(), *{each.name: each for each in other.BY_TYPE.values()}.values())
        if family.needs
    ]
    parallel = [f"`{kind}` (`{family.parallel_if}`)" for family in FAMILIES.values() if family.parallel_if
                for kind in family.model_types]  # fmt: skip
    lines += ["", f"Parallel blocks, and so no `resid_mid`, where the configuration says so: {', '.join(parallel)}."]
    return "\n".join(lines) + "\n"


def _others() -> str:
    lines = [
        "## By path alone",
        "",
        "Every module of these is read and written by its path, on the tensors that they take:",
        "",
    ]
    lines += [f"* {kind}: {types}" for kind, types in BY_PATH.items()]
    lines += ["", "Decoders that are not of the form that a table describes, and in what they differ:", ""]
    for why in dict.fromkeys(WITHOUT.values()):
        lines.append(f"* {', '.join(kind for kind, other_why in WITHOUT.items() if other_why == why)}: {why}")
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    return f"`{value!r}`"
