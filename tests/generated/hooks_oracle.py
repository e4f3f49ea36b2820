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
from tests.generated.compare import TOLERANCE, difference, is_not_legal
from tests.generated.eager import BACKWARD, SAVED, PlainGeneration, PlainRun, PlainSession, plain_weft, traced_methods
from tests.generated.experiment import Experiment, closure, names_of, run
from tests.generated.zoo import model_of, module_of
from torch import nn

from weft.execute.reference import frozen
from weft.execute.sampling import choose
from weft.ir.nodes import Site
from weft.models.hooks import tapped

ROUNDS = 60
Key = tuple[int, Site]
Change = Callable[[torch.Tensor], torch.Tensor]


class Unsupported(Exception):
    """The experiment uses what plain hooks cannot reach."""


def check(experiment: Experiment) -> str:
    """Where the reference differs from plain hooks; "" if nowhere. Unsupported says why it cannot be told."""
    try:
        found = run(experiment, "reference").values
    except Exception as error:
        if is_not_legal(error):
            raise Unsupported("the draw is not legal, a circle perhaps: its values would never settle") from error
        raise
    expected = fixed_point(experiment)
    shown = {name: value for name, value in found.items() if not name.startswith("_grad")}
    return difference(expected, shown, TOLERANCE[experiment.which.dtype])


def fixed_point(experiment: Experiment) -> dict[str, torch.Tensor]:
    """The saved values of an experiment, by plain hooks; its gradients, by autograd through all the rounds.

    A value comes from the same places by the same paths in every round, so a target's gradient is that of something added
    to it in all of them.
    """
    if {"a gradient written", "edit()"} & experiment.features:
        raise Unsupported("what is written is not known before the model has run")
    model, module = model_of(experiment.which), module_of(experiment.which)
    names, known, added = names_of(experiment), {}, {}
    settled: int | None = None
    with torch.set_grad_enabled("gradients" in experiment.features), frozen(module):
        for number in range(ROUNDS):
            session, saved, backward = statements(experiment, model, dict(names), known, added)
            came: dict[Key, torch.Tensor] = {}
            for each in session.runs:
                came |= passes(module, experiment.which.family, each)
            hidden: dict[str, torch.Tensor] = {}
            for generation in session.generations:
                came |= generated(module, experiment.which.family, generation, hidden)
            same = came.keys() == known.keys() and all(_same(came[key], known[key]) for key in came)
            settled = number if settled is None and same else settled
            # Gradients need the rounds that a path goes through to be right, so as many again.
            if settled is not None and number >= (2 * settled + 2 if "gradients" in experiment.features else settled):
                return _differentiated(saved) | _at_leaves(experiment, names, backward) | hidden
            known = came
    raise AssertionError(f"no fixed point after {ROUNDS} rounds")


def _differentiated(saved: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Saved values, gradients taken now."""
    found = {}
    for name, value in saved.items():
        if isinstance(value, tuple):
            scalar, target = value
            (gradient,) = torch.autograd.grad(scalar, [target], retain_graph=True, allow_unused=True)
            value = torch.zeros_like(target) if gradient is None else gradient
        found[name] = value
    return found


def _at_leaves(experiment: Experiment, names: dict[str, Any], scalars: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    leaves = [names[name] for name in experiment.leaves]
    for scalar in scalars:
        gradients = torch.autograd.grad(scalar, leaves, retain_graph=True, allow_unused=True)
        for name, gradient in zip(experiment.leaves, gradients, strict=True):
            if gradient is not None:
                key = f"{name}.grad"
                plain = gradient
                found[key] = found[key] + plain if key in found else plain
    return found


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(((a == b) | (a.isnan() & b.isnan())).all())


def statements(
    experiment: Experiment, model: Any, names: dict[str, Any], known: dict[Key, torch.Tensor], added: dict[Key, Any]
) -> tuple[PlainSession, dict[str, Any], list[torch.Tensor]]:
    """The source, run on the sites as they were last; `added` holds the zeros added to those that a gradient is asked of."""
    dtype = getattr(torch, experiment.which.dtype)

    def given(run: PlainRun, site: Site, shape: tuple[int, ...]) -> torch.Tensor:
        key = (run.number, site)
        value = known.get(key, torch.zeros(shape, dtype=dtype))
        return value + added[key] if key in added else value

    def grad(scalar: torch.Tensor, targets: list[torch.Tensor]) -> list[torch.Tensor]:
        found = []
        for target in targets:
            (key,) = [(r.number, site) for r in session.runs for site, value in r.sites.items() if value is target]
            if target._version:
                raise Unsupported("a gradient at an edited site")
            zeros = torch.zeros(target.shape, dtype=dtype)
            found.append(zeros)
            zeros.gradient = (
                scalar,  # type: ignore[attr-defined]
                added.setdefault(key, torch.zeros_like(zeros).requires_grad_()),
            )
        return found

    session = PlainSession(model, given)
    names |= {"weft": plain_weft(grad)}
    SAVED.append({})
    BACKWARD.append([])
    try:
        with traced_methods():
            closure(experiment, names, experiment.body)(session)
    finally:
        saved, backward = SAVED.pop(), BACKWARD.pop()
    return session, saved, backward


def passes(module: nn.Module, family: str, run: PlainRun) -> dict[Key, torch.Tensor]:
    """Each row by itself through the model: the sites as they came, in the user's presentation."""
    came = {site: torch.zeros_like(value) for site, value in run.sites.items()}
    if not all(site.path or site.name in HOOKED for site in came):
        return _tapped(run, came)
    for row in range(run.batch):
        handles: list[Any] = []
        try:
            for site in ordered(run):
                handles.append(_hook(module, family, run, site, row, came[site]))
            module(run.tokens[row : row + 1, int(run.start[row]) :], use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
    return {(run.number, site): value for site, value in came.items()}


def _tapped(run: PlainRun, came: dict[Site, torch.Tensor]) -> dict[Key, torch.Tensor]:
    """The same where a site lies inside attention, which no plain hook reaches: by weft's own taps."""
    loaded = run.session.model.backend.loaded

    def tap(site: Site, row: int) -> Change:
        where = window(run, site, row)

        def change(value: torch.Tensor) -> torch.Tensor:
            came[site][where] = value
            return run.sites[site][where].clone()

        return change

    for row in range(run.batch):
        with tapped(loaded, {site: tap(site, row) for site in came}):
            loaded.forward({"tokens": run.tokens[row : row + 1, int(run.start[row]) :]})
    return {(run.number, site): value for site, value in came.items()}


def generated(
    module: nn.Module, family: str, generation: PlainGeneration, hidden: dict[str, torch.Tensor]
) -> dict[Key, torch.Tensor]:
    """A generation without a cache: at each step every row's whole text again, each position edited as its step says."""
    touched = [(step, each, site) for each, site in generation.session.touched for step, own in generation.steps.items()
               if own is each]  # fmt: skip
    came = {(each.number, site): torch.zeros_like(each.sites[site]) for _, each, site in touched}
    card, options = generation.session.model.card, generation.options
    count, ends = int(options["max_new_tokens"]), {card.config["eos_token_id"], *options.get("stop", ())}
    pad = card.config.get("pad_token_id")
    tokens = torch.full((generation.batch, count), card.config["eos_token_id"] if pad is None or pad < 0 else pad)
    lengths = torch.zeros(generation.batch, dtype=torch.long)
    for row in range(generation.batch):
        ids = generation.prompt_tokens[row, int(generation.start[row]) :].tolist()
        first = len(ids)
        for step in range(count):
            handles: list[Any] = []
            try:
                for site in sorted({site for _, _, site in touched}, key=lambda site: card.by_site[site][0]):
                    own = [(s, each) for s, each, place in touched if place == site]
                    handles.append(_step_hook(module, family, generation, own, site, row, step, first, came))
                logits = module(torch.tensor([ids]), use_cache=False).logits[:, -1].detach()
            finally:
                for handle in handles:
                    handle.remove()
            chosen = choose(
                logits, [row], step, options.get("temperature", 0.0), options.get("top_p", 1.0), options.get("seed", 0)
            )
            ids.append(int(chosen))
            tokens[row, step] = ids[-1]
            lengths[row] += 1
            if ids[-1] in ends:
                break
    at = 2 * generation.number
    hidden |= {f"_tokens {at}": tokens, f"_lengths {at + 1}": lengths}
    return came


def _step_hook(
    module: nn.Module, family: str, generation: PlainGeneration, own: list[tuple[int, PlainRun]], site: Site, row: int,
    step: int, first: int, came: dict[Key, torch.Tensor],
) -> Any:  # fmt: skip
    if site.name not in HOOKED and not site.path:
        raise Unsupported(f"no plain hook reaches {site}")
    path, side, columns = place_of(site, family, generation.session.model.card.sizes)
    start = int(generation.start[row])

    def change(value: torch.Tensor) -> torch.Tensor:
        value = value.clone()
        part = value if columns is None else value[..., columns]
        for at in range(step + 1):
            for number, each in own:
                if number not in (at, -1):
                    continue
                span = slice(0, first) if number == 0 else slice(first - 1 + at, first + at)
                where: Any = (at, slice(row, row + 1)) if number < 0 else (slice(row, row + 1),)
                where = (*where, slice(start, None)) if number == 0 else where
                mine = came[each.number, site]
                mine[where] = part[:, span].reshape(mine[where].shape)
                part[:, span] = each.sites[site][where].reshape(part[:, span].shape)
        return value

    return _register(module.get_submodule(path), side, change, once=site.name == "resid_mid")


def ordered(run: PlainRun) -> list[Site]:
    return sorted(run.sites, key=lambda site: run.card.by_site[site][0])


def window(run: PlainRun, site: Site, row: int) -> tuple[slice, ...]:
    """Where one row's own positions lie in a site's presentation."""
    start = int(run.start[row])
    own = {"batch": slice(row, row + 1), **dict.fromkeys(("pos", "query_pos", "key_pos"), slice(start, None))}
    return tuple(own.get(axis, slice(None)) for axis in run.card.by_site[site][1].axes)


def _hook(module: nn.Module, family: str, run: PlainRun, site: Site, row: int, came: torch.Tensor) -> Any:
    """A hook that notes what comes by at a site and goes on with the statements' version of it."""
    made = run.sites[site]
    path, side, columns = place_of(site, family, run.card.sizes)
    where = window(run, site, row)

    def change(value: torch.Tensor) -> torch.Tensor:
        part = value if columns is None else value[..., columns]
        came[where] = part.reshape(came[where].shape)
        new = made[where].reshape(part.shape)
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
        first = next(iter(output))  # a ModelOutput
        output[first] = change(output[first])
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


HOOKED = {"embed", "final_norm", "logits", *LLAMA}


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
