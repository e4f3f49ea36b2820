"""Generations in a draw, and what may be done to one of them."""

from __future__ import annotations

from typing import NamedTuple

from tests.generated.prompts import Handle, prompt_rows, written
from tests.generated.sites import spot
from tests.generated.sketch import Misfit, Sketch
from tests.generated.zoo import VOCABULARY

from weft.ir.nodes import Site


class Made(NamedTuple):
    """A generation as the draw refers to it: new tokens at most, rows, and its longest and shortest prompt."""

    name: str
    count: int
    batch: int
    pos: int
    least: int


def generate(sketch: Sketch, stem: list[int], batch: int = 0) -> Made:
    rng, name = sketch.rng, sketch.name("gen")
    rows, count = prompt_rows(sketch, stem), rng.randrange(2, 6)
    while batch and len(rows) != batch:
        rows = prompt_rows(sketch, stem)
    options = f"max_new_tokens={count}"
    if rng.random() < 0.35:
        options += f", temperature=0.8, seed={rng.randrange(100)}"
        options += ", top_p=0.9" if rng.random() < 0.5 else ""
        sketch.features.add("sampled generation")
    if rng.random() < 0.2:
        options += f", stop=[{rng.randrange(VOCABULARY)}]"
    sketch.add(f"{name} = s.generate({written(sketch, rows)}, {options})")
    return Made(name, count, len(rows), max(map(len, rows)), min(map(len, rows)))


def fork_or_new(sketch: Sketch, first: Made, stem: list[int]) -> Made:
    if sketch.rng.random() < 0.5:
        return generate(sketch, stem)
    name = sketch.name("gen")
    sketch.add(f"{name} = {first[0]}.fork()", "generation forked")
    return Made(name, *first[1:])


def at_step(generation: Made, step: int) -> Handle:
    name, _, batch, pos, least = generation
    return Handle(
        f"{name}.step({step})", name, batch, pos if step == 0 else 1, least if step == 0 else 1, step * 100_000
    )


def write_once(sketch: Sketch, name: str, order: int, each: bool) -> None:
    """Misfit where a generation's site would be written both at each step and at one, which is in no certain order."""
    if sketch.steps.setdefault((name, order), each) != each or (each and order in sketch.standing):
        raise Misfit("written both at each step and at one")


def edit_step(sketch: Sketch, name: str, here: Handle, handles: list[Handle]) -> None:
    rng = sketch.rng
    site = spot(sketch, here, name=rng.choice(["resid_post", "mlp_out", "attn_out", "z", "v", "k", "q", "embed"]))
    value, deps = f"0.8 * {sketch.const(site.shape[-1])}", frozenset()
    alike = [each for each in handles if each.batch == here.batch]
    if alike and rng.random() < 0.5:
        there = spot(sketch, rng.choice(alike), name=site.name, layer=site.layer)
        value, deps = f"{there.text}[:, -1]", frozenset([there.place])
        sketch.features.add("from a run into a generation")
    sketch.may_write(site.place, deps)
    write_once(sketch, site.place[0], site.place[1] % 100_000, each=False)
    sketch.add(f"{site.text}[:, -1] {rng.choice(['+=', '='])} {value}", "edit at a step")
    sketch.wrote(site.place, deps)


def wait(sketch: Sketch, generation: Made, source: Handle) -> None:
    """A later step takes a value from another run."""
    name, count, batch, _, _ = generation
    step = sketch.rng.randrange(1, count)
    into = Handle(f"{name}.step({step})", name, batch, 1, 1, step * 100_000)
    site = spot(sketch, into, name=sketch.rng.choice(["resid_post", "mlp_out", "v"]))
    there = spot(sketch, source, name=site.name, layer=site.layer)
    deps = frozenset([there.place])
    sketch.may_write(site.place, deps)
    write_once(sketch, site.place[0], site.place[1] % 100_000, each=False)
    sketch.add(f"{site.text}[:, -1] = {there.text}[:, -1]", "a step that waits", "from a run into a generation")
    sketch.wrote(site.place, deps)
    sketch.save(f"{into.name}.logits")


def inside(sketch: Sketch, name: str, here: Handle, handles: list[Handle]) -> None:
    """An edit in the midst of a prompt, which the steps that follow attend to."""
    rng = sketch.rng
    site = spot(sketch, here, name=rng.choice(["resid_post", "mlp_out", "z", "v", "k", "embed"]))
    sketch.may_write(site.place, frozenset())
    write_once(sketch, site.place[0], site.place[1] % 100_000, each=False)
    part = rng.choice(["[:, -2]", "[:, -2:]", "[0, -1]", f"[{here.name}.rows, {here.name}.at(-2)]", "[:]"])
    sketch.add(f"{site.text}{part} *= {rng.choice([0.5, -1.0, 2.0])}", "edit inside the prompt")
    sketch.wrote(site.place, frozenset())
    sketch.save(f"{name}.step({rng.randrange(2)}).logits")


def borrow(sketch: Sketch, here: Handle, other: Made) -> None:
    """A value of one generation's step goes into a step of another."""
    if other[0] == here.key or other[2] != here.batch:
        raise Misfit("nothing to take")
    site = spot(sketch, here, name=sketch.rng.choice(["resid_post", "mlp_out", "z", "q"]))
    there = spot(sketch, at_step(other, sketch.rng.randrange(other[1])), name=site.name, layer=site.layer)
    deps = frozenset([there.place])
    sketch.may_write(site.place, deps)
    write_once(sketch, site.place[0], site.place[1] % 100_000, each=False)
    sketch.add(f"{site.text}[:, -1] = {there.text}[:, -1]", "from a generation into a generation")
    sketch.wrote(site.place, deps)
    sketch.save(f"{here.name}.logits")


def edit_each(sketch: Sketch, name: str, here: Handle, handles: list[Handle]) -> None:
    rng, layer = sketch.rng, sketch.rng.randrange(sketch.card.sizes["n_layers"])
    kind = rng.choice(["resid_post", "mlp_out", "attn_out"])
    site, width = f"{name}.each.{kind}[{layer}]", sketch.card.sizes["d_model"]
    line = rng.choice([f"{site}[:] += 0.6 * {sketch.const(width)}", f"{site}[:] *= 0.5", f"{site}[..., :3] = 0.0"])
    write_once(sketch, name, sketch.card.by_site[Site(kind, layer)][0], each=True)
    sketch.add(line, "edit at each")


def read_each(sketch: Sketch, name: str, here: Handle, handles: list[Handle]) -> None:
    layer = sketch.rng.randrange(sketch.card.sizes["n_layers"])
    site = f"{name}.each.{sketch.rng.choice(['logits', f'resid_post[{layer}]', f'z[{layer}]', f'mlp_post[{layer}]'])}"
    sketch.save(sketch.rng.choice([site, f"{site} * 2.0", f"torch.softmax({site}, -1)", f"torch.tanh({site})"]))
    sketch.features.add("read at each")


def read_step(sketch: Sketch, name: str, here: Handle, handles: list[Handle]) -> None:
    site = spot(sketch, here)
    if site.name == "scores":
        raise Misfit("-inf")
    value = sketch.keep(
        f"{site.text}[:, -1]" if "pos" in site.axes else f"{site.text}", frozenset([site.place]), "read at a step"
    )
    sketch.save(value)


def force(sketch: Sketch, name: str, here: Handle, handles: list[Handle]) -> None:
    token = sketch.rng.randrange(VOCABULARY)
    sketch.add(f"{here.name}.logits[:, -1, {token}] {sketch.rng.choice(['+= 4.0', '= 9.0'])}", "logits written")


ACTIONS = [edit_step, edit_step, edit_each, read_each, read_step, force]
