"""An experiment as text for people, and back.

    print(render(experiment, checked.types))
    parse(render(experiment)) == experiment

    weft experiment, schema 1
    %0 = const int64[2, 7] sha256:9f86…
    %1 = run tokens (tokens=%0)
    %2 = read run=%1 z[5]                                               # float32[2, 7, 12, 64]
    %3 = write %2 [select.int(1, -1), select.int(1, 3)] <- %5
    %6 = op softmax.int %3, -1                                          # float32[2, 7, 12, 64]  probe.py:12
    save "diff" %6

One node a line. A node without a value (save, keep) shows no number but has one. What follows `#` is for the reader
alone: types, the user's lines. Constants are named by digest; `parse` takes their data from a mapping.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import cast

from weft.errors import ProgramError
from weft.ir import nodes as n
from weft.ir.nodes import SCHEMA, Experiment, Node, Ref, Site
from weft.ir.types import DTYPES, TensorType

__all__ = ["HEAD", "parse", "render"]

HEAD = f"weft experiment, schema {SCHEMA}"
NAME = re.compile(r"[A-Za-z_][\w.]*", re.ASCII)


def render(experiment: Experiment, types: Sequence[Sequence[TensorType]] | None = None) -> str:
    """The text form. Given the types that `check` derived, each line ends with those of its node."""
    lines = [HEAD]
    for index, node in enumerate(experiment.nodes):
        notes = [", ".join(map(str, types[index]))] if types is not None and index < len(types) else []
        place = experiment.where(index)
        notes += [f"{place.file}:{place.line}"] if place else []
        comment = "  ".join(_printable(note) for note in notes if note)
        try:
            line = node_text(index, node)
        except (KeyError, TypeError, AttributeError) as error:
            raise ProgramError(f"node {index} cannot be written as text: {error}", where=place) from None
        lines.append(f"{line:<56}  # {comment}" if comment else line)
    return "\n".join(lines) + "\n"


def parse(text: str, constants: Mapping[str, n.ConstantData] | None = None) -> Experiment:
    """The experiment that `text` writes out; FormatError with line and column where it does not follow the grammar."""
    from weft.ir.textparse import Parser

    return Parser(text, constants or {}).experiment()


def node_text(index: int, node: Node) -> str:
    """One node as its line (a loop: as its lines)."""
    if isinstance(node, n.Save | n.Keep):
        return f"{'save' if isinstance(node, n.Save) else 'keep'} {json.dumps(node.name)} {ref_text(node.value)}"
    return f"%{index} = {_right(node)}"


def _right(node: Node) -> str:
    match node:
        case n.Run(kind, inputs, options):
            given = ", ".join(f"{name_text(name)}={ref_text(ref)}" for name, ref in inputs)
            chosen = ", ".join(f"{name_text(name)}={arg_text(value)}" for name, value in options)
            return f"run {name_text(kind)} ({given})" + (f" with ({chosen})" if options else "")
        case n.Read(run, site, step):
            at = "" if step is None else f" step={'each' if step == n.EACH else step}"
            return f"read run=%{run}{at} {site_text(site)}"
        case n.Write(prev, view, value):
            return f"write {ref_text(prev)} {view_text(view)} <- {ref_text(value)}"
        case n.Update(base, view, value, layout, nograd):
            order = f" layout{arg_text(layout)}" if layout else ""
            return f"update{_nograd(nograd)} {ref_text(base)}{order} {view_text(view)} <- {ref_text(value)}"
        case n.Op(name, args, nograd):
            return f"op{_nograd(nograd)} {name_text(name)} {', '.join(map(arg_text, args))}".rstrip()
        case n.Const(data):
            return f"const {data.type} sha256:{data.digest()}"
        case n.Param(name):
            return f"param {json.dumps(name)}"
        case n.Apply(part, arg):
            return f"apply {json.dumps(part)} {ref_text(arg)}"
        case n.Grad(of, wrt):
            return f"grad {ref_text(of)} wrt {arg_text(wrt)}"
        case n.Slot(kind, index):
            return f"slot {name_text(kind)} {index}"
        case n.Loop():
            return _loop(node)
        case _:
            raise TypeError(f"{type(node).__name__} is no kind of node")


def _loop(loop: n.Loop) -> str:
    given = {name: getattr(loop, name) for name in ("steps", "start", "carried", "state", "tables", "order")}
    head = " ".join(f"{name}={arg_text(value)}" for name, value in given.items())
    chosen = ", ".join(f"{name_text(name)}={arg_text(value)}" for name, value in loop.options)
    body, after = _inside(loop.body), _inside(loop.after)
    results, projected = arg_text(loop.results), arg_text(loop.projected)
    return f"loop {head} with ({chosen}) {body} results={results} after {after} projected={projected}"


def _inside(nodes: tuple[Node, ...]) -> str:
    lines = [f"  {line}\n" for index, node in enumerate(nodes) for line in node_text(index, node).split("\n")]
    return "{\n" + "".join(lines) + "}"


def _nograd(nograd: bool) -> str:
    return ".nograd" if nograd else ""


def ref_text(ref: Ref) -> str:
    return f"%{ref.node}.{ref.out}" if ref.out else f"%{ref.node}"


def name_text(name: str) -> str:
    """A name bare where it can be, else quoted."""
    return name if NAME.fullmatch(name) and name != "inf" else json.dumps(name)


def site_text(site: Site) -> str:
    """A site so that each of its fields can be told again: `name[layer]("path").call(2)["item"]`."""
    layer = "" if site.layer is None else f"[{site.layer}]"
    path = f"({json.dumps(site.path)})" if site.path else ""
    call = f".call({site.call})" if site.call else ""
    item = f"[{json.dumps(site.item)}]" if site.item else ""
    bare = layer or path or not call  # else the name would take `.call` in
    return (name_text(site.name) if bare else json.dumps(site.name)) + layer + path + call + item


def view_text(view: tuple[n.ViewStep, ...]) -> str:
    return "[" + ", ".join(f"{name_text(step.op)}({', '.join(map(arg_text, step.args))})" for step in view) + "]"


def arg_text(arg: object) -> str:
    """An argument: its kind shows in its spelling (1, 1.0, true, "1", float32, none, %1)."""
    if isinstance(arg, Ref):
        return ref_text(arg)
    if isinstance(arg, tuple):
        return "[" + ", ".join(map(arg_text, cast("tuple[object, ...]", arg))) + "]"
    if isinstance(arg, n.Dtype):
        return arg.name if arg.name in DTYPES else _unknown(arg)
    if arg is None or isinstance(arg, bool):
        return str(arg).lower()
    if isinstance(arg, str):
        return json.dumps(arg)
    return repr(arg) if isinstance(arg, int | float) else _unknown(arg)


def _unknown(arg: object) -> str:
    raise TypeError(f"{arg!r} is no argument")


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)
