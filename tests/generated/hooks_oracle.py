"""A second opinion on the reference: the same source on plain tensors, with plain torch hooks, one prompt at a time.

Nothing of weft's tracing or execution takes part. Each round runs the statements in the order written on the sites as they
came in the last round, then runs the model row by row, taking each site's value as it comes in and going on with what the
statements made of it. Values flow forward only, so after as many rounds as there are edits in a row nothing changes any
more, and that fixed point is what the experiment means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.generated.compare import TOLERANCE, difference
from tests.generated.eager import SAVED, Plain, PlainRun, PlainSession, PlainTorch, plain_weft
from tests.generated.experiment import Experiment, closure, names_of, run
from tests.generated.zoo import model_of, module_of
from weft.ir.nodes import Site

ROUNDS = 60
Key = tuple[int, Site]
Change = Callable[[torch.Tensor], torch.Tensor]


class Unsupported(Exception):
    """The experiment uses what plain hooks cannot reach."""


def check(experiment: Experiment) -> str:
    """Where the reference differs from plain hooks; "" if nowhere. Unsupported says why it cannot be told."""
    expected = fixed_point(experiment)
    found = run(experiment, "reference").values
    return difference(expected, found, TOLERANCE[experiment.which.dtype])


def fixed_point(experiment: Experiment) -> dict[str, torch.Tensor]:
    """The saved values of an experiment, by plain hooks."""
    if {"generation", "gradients", "edit()"} & experiment.features:
        raise Unsupported("plain runs only")
    model, module = model_of(experiment.which), module_of(experiment.which)
    known: dict[Key, torch.Tensor] = {}
    for _ in range(ROUNDS):
        session, saved = statements(experiment, model, known)
        came = {}
        for each in session.runs:
            came |= passes(module, experiment.which.family, each)
        if came.keys() == known.keys() and all(torch.equal(came[key], known[key]) for key in came):
            return saved
        known = came
    raise AssertionError(f"no fixed point after {ROUNDS} rounds")


def statements(experiment: Experiment, model: Any, known: dict[Key, torch.Tensor]) -> Any:
    """The source, run on the sites as they were last."""

    def given(run: PlainRun, site: Site, shape: tuple[int, ...]) -> torch.Tensor:
        dtype = getattr(torch, experiment.which.dtype)
        return known.get((run.number, site), torch.zeros(shape, dtype=dtype))

    session, names = PlainSession(model, given), names_of(experiment)
    names |= {"weft": plain_weft(_no_gradients), "torch": PlainTorch()}
    SAVED.append({})
    with torch.no_grad():
        closure(experiment, names, experiment.body)(session)
    return session, SAVED.pop()


def _no_gradients(scalar: Any, targets: Any) -> Any:
    raise Unsupported("gradients")


def passes(module: nn.Module, family: str, run: PlainRun) -> dict[Key, torch.Tensor]:
    """Each row by itself through the model: the sites as they came, in the user's presentation."""
    came = {site: torch.zeros_like(value).as_subclass(torch.Tensor) for site, value in run.sites.items()}
    for row in range(run.batch):
        handles: list[Any] = []
        try:
            for site in ordered(run):
                handles.append(_hook(module, family, run, site, row, came[site]))
            with torch.no_grad():
                module(run.tokens[row : row + 1, int(run.start[row]) :], use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
    return {(run.number, site): value for site, value in came.items()}


def ordered(run: PlainRun) -> list[Site]:
    return sorted(run.sites, key=lambda site: run.card.by_site[site][0])


def window(run: PlainRun, site: Site, row: int) -> tuple[slice, ...]:
    """Where one row's own positions lie in a site's presentation."""
    start = int(run.start[row])
    own = {"batch": slice(row, row + 1), **dict.fromkeys(("pos", "query_pos", "key_pos"), slice(start, None))}
    return tuple(own.get(axis, slice(None)) for axis in run.card.by_site[site][1].axes)


def _hook(module: nn.Module, family: str, run: PlainRun, site: Site, row: int, came: torch.Tensor) -> Any:
    """A hook that notes what comes by at a site and goes on with the statements' version of it."""
    made: Plain = run.sites[site]
    path, side, columns = place_of(site, family, run.card.sizes)
    where = window(run, site, row)

    def change(value: torch.Tensor) -> torch.Tensor:
        part = value if columns is None else value[..., columns]
        came[where] = part.reshape(came[where].shape)
        new = made[where].as_subclass(torch.Tensor).reshape(part.shape)
        if columns is None:
            return new
        value = value.clone()
        value[..., columns] = new
        return value

    return _register(module.get_submodule(path), side, change, once=site.name == "resid_mid")


def _register(target: nn.Module, side: str, change: Change, once: bool) -> Any:
    if side == "input":

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            name = None if args else next(name for name, value in kwargs.items() if isinstance(value, torch.Tensor))
            value = args[0] if name is None else kwargs[name]
            new = change(value)
            if once:  # the stream itself goes on from here too, not only the norm that reads it
                value.copy_(new)
                return None
            return ((new, *args[1:]), kwargs) if name is None else (args, {**kwargs, name: new})

        return target.register_forward_pre_hook(before, with_kwargs=True)

    def after(_: nn.Module, __: Any, output: Any) -> Any:
        if isinstance(output, torch.Tensor):
            return change(output)
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        output.logits = change(output.logits)
        return output

    return target.register_forward_hook(after)


LLAMA = {
    "resid_post": ("", "output"),
    "attn_out": ("self_attn", "output"),
    "mlp_out": ("mlp", "output"),
    "z": ("self_attn.o_proj", "input"),
    "q": ("self_attn.q_proj", "output"),
    "k": ("self_attn.k_proj", "output"),
    "v": ("self_attn.v_proj", "output"),
    "resid_mid": ("post_attention_layernorm", "input"),
    "mlp_pre": ("mlp.gate_proj", "output"),
    "mlp_post": ("mlp.down_proj", "input"),
}
GPT2 = {
    "resid_post": ("", "output"),
    "attn_out": ("attn", "output"),
    "mlp_out": ("mlp", "output"),
    "z": ("attn.c_proj", "input"),
    "q": ("attn.c_attn", "output"),
    "k": ("attn.c_attn", "output"),
    "v": ("attn.c_attn", "output"),
    "resid_mid": ("ln_2", "input"),
    "mlp_pre": ("mlp.c_fc", "output"),
    "mlp_post": ("mlp.c_proj", "input"),
}


def place_of(site: Site, family: str, sizes: dict[str, int]) -> tuple[str, str, slice | None]:
    """The module, its side, and which of its columns (GPT-2 packs q, k and v) hold a site."""
    layers, norm, table = ("transformer.h", "transformer.ln_f", GPT2) if family == "gpt2" else (
        "model.layers", "model.norm", LLAMA)  # fmt: skip
    if site.path:
        if site.item:
            raise Unsupported(str(site))
        return site.path, site.name.removeprefix("module."), None
    whole = {"embed": (f"{layers}.0", "input"), "final_norm": (norm, "output"), "logits": ("", "output")}
    if site.name in whole:
        return *whole[site.name], None
    if site.name not in table:
        raise Unsupported(f"no plain hook reaches {site}")
    path, side = table[site.name]
    columns = None
    if family == "gpt2" and site.name in "qkv":
        width, at = sizes["d_model"], "qkv".index(site.name)
        columns = slice(at * width, (at + 1) * width)
    return f"{layers}.{site.layer}.{path}".rstrip("."), side, columns
