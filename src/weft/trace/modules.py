"""Raw modules as sites: `run.module("transformer.h.5.mlp.c_fc").output`, whatever the module takes and gives."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from weft.errors import SiteError
from weft.ir.nodes import Site
from weft.trace.location import where

if TYPE_CHECKING:
    from weft.trace.run import Run
    from weft.trace.tensor import Traced


class ModuleSite:
    """The input and output of one call of one module; both may be assigned."""

    def __init__(self, run: Run, path: str, call: int | None = None) -> None:
        object.__setattr__(self, "_run", run)
        object.__setattr__(self, "_path", path)
        object.__setattr__(self, "_call", call)
        calls = {spec.site.call for spec in run.card.sites if spec.site.path == path}
        if not calls:
            raise SiteError(_unknown(run, path), where=where())
        if call is not None and call not in calls:
            raise SiteError(
                f"module {path} is called {len(calls)} times: .call(0) to .call({len(calls) - 1})", where=where()
            )
        if call is None and len(calls) > 1:
            object.__setattr__(self, "_call", -1)

    def call(self, number: int) -> ModuleSite:
        """One call of a module that the forward pass calls several times."""
        return ModuleSite(self._run, self._path, number)

    @property
    def input(self) -> Traced | ModuleItems:
        """The module's first tensor; the others by name in `module(path).inputs["name"]`."""
        return self._get("module.input")

    @input.setter
    def input(self, value: Any) -> None:
        self._run.assign(self._one("module.input"), value)

    @property
    def inputs(self) -> ModuleItems:
        """All the tensors the module is given: `.inputs["position_ids"]`; the first is `.input`."""
        return ModuleItems(self._run, self._sites("module.input"))

    @property
    def output(self) -> Traced | ModuleItems:
        """What the module gives (`.output[0]` where that is a tuple)."""
        return self._get("module.output")

    @output.setter
    def output(self, value: Any) -> None:
        self._run.assign(self._one("module.output"), value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in ("input", "output"):
            raise SiteError(f"a module has .input and .output, not .{name}", where=where())
        object.__setattr__(self, name, value)

    def _sites(self, name: str) -> list[Site]:
        if self._call == -1:
            raise SiteError(
                f"module {self._path} is called several times in a pass; say which: "
                f'run.module("{self._path}").call(0).{name.removeprefix("module.")}',
                where=where(),
            )
        sites = [spec.site for spec in self._run.card.sites]
        return [s for s in sites if s.path == self._path and s.name == name and s.call == (self._call or 0)]

    def _get(self, name: str) -> Traced | ModuleItems:
        sites = self._sites(name)
        if not sites:
            raise SiteError(f"module {self._path} has no tensor as its {name.removeprefix('module.')}", where=where())
        plain = [site for site in sites if site.item == ""]
        return self._run.site(plain[0]) if plain else ModuleItems(self._run, sites)

    def _one(self, name: str) -> Site:
        sites = self._sites(name)
        plain = [site for site in sites if site.item == ""]
        if plain:
            return plain[0]
        if len(sites) != 1:
            items = ", ".join(site.item for site in sites) or "none"
            raise SiteError(
                f"module {self._path} has several tensors there ({items}); assign one of them", where=where()
            )
        return sites[0]

    def __getattr__(self, name: str) -> Any:
        if name in ("input", "output"):  # a SiteError is an AttributeError, so Python comes here with a property's own
            return self._get(f"module.{name}")
        raise SiteError(f"a module has .input, .output and .call(i), not .{name}", where=where())


class ModuleItems:
    """Several tensors that go into or come out of one module: `.output[0]`, `.input["hidden_states"]`."""

    def __init__(self, run: Run, sites: list[Site]) -> None:
        self._run = run
        self._by_item = {site.item: site for site in sites}

    def __getitem__(self, item: int | str) -> Traced:
        return self._run.site(self._find(item))

    def __setitem__(self, item: int | str, value: Any) -> None:
        self._run.assign(self._find(item), value)

    def _find(self, item: int | str) -> Site:
        if str(item) not in self._by_item:
            raise SiteError(f"there is no {item!r} here; there is {', '.join(self._by_item)}", where=where())
        return self._by_item[str(item)]

    def __repr__(self) -> str:
        return f"<several tensors: {', '.join(self._by_item)}; pick one with [...]>"


def _unknown(run: Run, path: str) -> str:
    paths = list(dict.fromkeys(spec.site.path for spec in run.card.sites if spec.site.path))
    near = difflib.get_close_matches(path, paths, n=3, cutoff=0.4)
    hint = f"; did you mean {', '.join(near)}?" if near else f"; it calls {', '.join(paths[:5])} …" if paths else ""
    return f"this model calls no module {path!r} in a forward pass{hint}"
