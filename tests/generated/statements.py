"""Statements of a drawn experiment: reads, writes, arithmetic, metrics. Each raises Misfit where it does not fit."""

from __future__ import annotations

from tests.generated.prompts import Handle
from tests.generated.regions import Region, on_padding, region
from tests.generated.sites import Spot, spot
from tests.generated.sketch import Misfit, Place, Sketch, Value

UNARY = {
    "torch.tanh({v})": "op pointwise",
    "torch.relu({v} - 0.1)": "op pointwise",
    "{v} @ const({c}, {last}, 5)": "op matmul",
    "torch.nn.functional.linear({v}, const({c}, 4, {last}), const(2, 4))": "op matmul",
    "torch.softmax({v}, -1)": "op softmax",
    "torch.log_softmax({v}, -1)": "op softmax",
    "torch.nn.functional.layer_norm({v}, ({last},))": "op norm",
    "{v}.norm(dim=-1)": "op norm",
    "{v}.sort(-1).values": "op sort",
    "{v}.sort(0, descending=True).values": "op sort",
    "{v}.topk(2, -1).values": "op sort",
    "{v}.gather(-1, torch.zeros({v}.shape, dtype=torch.long))": "op gather",
    "{v}.gather(0, {v}.argsort(0))": "op gather",
    "{v}.index_select(-1, torch.tensor([{last} - 1, 0]))": "op gather",
    "{v}.cumsum(0)": "op cumsum",
    "{v}.cumsum(-1)": "op cumsum",
    "torch.where({v} > 0, {v}, 0.1 * {v})": "op where",
    "torch.where(const({c}, {last}) > 0, {v}, 0.5)": "op where",
    "{v}.mean(0)": "op reduce",
    "{v}.sum(1)": "op reduce",
    "{v}.amax(-1)": "op reduce",
    "{v}.flip(0)": "rows mixed",
    "{v}.roll(1, 0)": "rows mixed",
    "{v} - {v}.mean(0, keepdim=True)": "rows mixed",
    "{v}[[-1, 0]]": "rows mixed",
    "{v}.transpose(0, -1)": "op view",
    "{v}.flatten()": "op view",
    "torch.einsum('...i,...j->...ij', {v}, {v})": "op matmul",
    "torch.nn.functional.cosine_similarity({v} + 1.0, const({c}, {last}), dim=-1)": "op norm",
}
BINARY = ["{v} + {w}", "{v} * torch.tanh({w})", "torch.stack([{v}, {w}])", "torch.cat([{v}, {w}])", "{v} - 0.5 * {w}",
          "torch.maximum({v}, {w})", "torch.lerp({v}, {w}, 0.3)", "{v} @ {w}.transpose(-1, -2)"]  # fmt: skip
PARTS = ["model.final_norm({v})", "model.unembed({v})", "model.unembed(model.final_norm({v}))", "{v} @ model.W_U",
         "{v} @ model.W_O[0].flatten(0, 1).T"]  # fmt: skip


# -- reads ---


def read(sketch: Sketch, handle: Handle) -> Value:
    """Part of a random site, under a name."""
    if sketch.rng.random() < 0.08:
        return _stack(sketch, handle)
    here = spot(sketch, handle)
    part = region(sketch.rng, here.axes, here.shape, handle.name, handle.least, write=False)
    text = here.text + part.text
    if here.name == "scores":
        if sketch.rng.random() < 0.5:
            sketch.save(text)
        text += ".clamp(min=-6.0)"
    value = sketch.keep(text, frozenset([here.place]), f"read {here.name}", f"read: {part.kind}")
    if sketch.rng.random() < 0.45:
        sketch.save(value)
    return value


def _stack(sketch: Sketch, handle: Handle) -> Value:
    name = sketch.rng.choice(["resid_post", "z", "attn_out", "mlp_out", "q"])
    last = spot(sketch, handle, name=name, layer=-1)
    part = sketch.rng.choice(["[:]", "[:][:, :, -1]", "[:2]", f"[:][:, {handle.name}.rows, {handle.name}.at(-1)]"])
    value = sketch.keep(f"{handle.name}.{name}{part}", frozenset([last.place]), f"read {name}", "stack")
    sketch.save(value)
    return value


# -- arithmetic ---


def arithmetic(sketch: Sketch) -> Value:
    """An operation on named values."""
    rng = sketch.rng
    if not sketch.values:
        raise Misfit("no values")
    value, other = rng.choice(sketch.values), rng.choice(sketch.values)
    draw = rng.random()
    wide = [each for each in sketch.values if sketch.shape(each.text)[-1:] == (sketch.card.sizes["d_model"],)]
    value = rng.choice(wide) if wide and 0.6 <= draw < 0.75 else value
    last = sketch.shape(value.text)[-1] if sketch.look(value.text).dim() else 0
    if draw < 0.6 and last:
        template, feature = rng.choice(list(UNARY.items()))
    elif draw < 0.75 and last == sketch.card.sizes["d_model"]:
        template, feature = rng.choice(PARTS), "part of the model"
    elif draw < 0.85 and last:
        return _changed_copy(sketch, value)
    else:
        template, feature = rng.choice(BINARY), "op of two values"
    text = template.format(v=value.text, w=other.text, last=last, c=rng.randrange(1000))
    found = sketch.keep(text, value.deps | (other.deps if "{w}" in template else frozenset()), feature)
    if rng.random() < 0.4:
        sketch.save(found)
    return found


def _changed_copy(sketch: Sketch, value: Value) -> Value:
    """A value of the user's own, changed in place (a grid filled, or a copy written into)."""
    rng = sketch.rng
    if rng.random() < 0.4:
        grid = sketch.name("grid")
        sketch.add(f"{grid} = torch.zeros(2, 3, dtype=DTYPE)")
        for _ in range(rng.randrange(1, 4)):
            sketch.add(
                f"{grid}[{rng.randrange(2)}, {rng.randrange(3)}] = {value.text}.flatten()[{rng.randrange(-1, 1)}]"
            )
        sketch.features.add("grid")
        found = Value(grid, value.deps)
    else:
        turned = rng.choice(["clone()", "transpose(0, -1).clone()"])  # a clone keeps the order of dimensions in memory
        found = sketch.keep(f"{value.text}.{turned}", value.deps, "in place on a value")
        sketch.add(f"{found.text}[..., -1] = 0.5")
        sketch.add(
            rng.choice([f"{found.text}.mul_(0.5)", f"{found.text}[0] += 1.0", f"{found.text}.flatten()[:2].neg_()"])
        )
    sketch.save(found)
    return found


# -- writes ---


def write(sketch: Sketch, handle: Handle, handles: list[Handle], here: Spot | None = None) -> Spot:
    """An edit of a random site."""
    rng = sketch.rng
    here = here or spot(sketch, handle, write=True)
    if here.name == "scores" and rng.random() < 0.6:
        return _block(sketch, handle, here)
    if rng.random() < 0.08:
        return _masked(sketch, here)
    part = region(rng, here.axes, here.shape, handle.name, handle.least, write=True)
    target = here.text + part.text
    shape = sketch.shape(target)
    if on_padding(here.axes, here.shape, sketch.look(handle.name), handle.name, part.text):
        raise Misfit("on padding")
    indexed = part.kind in ("per row", "list")
    form = rng.random()
    text, deps, features = _source(sketch, handle, handles, here, part, target, shape)
    sketch.may_write(here.place, deps)
    if part.kind == "whole" and form < 0.5:
        line, feature = f"{here.text} = {_fitting(text, shape, here.shape)}", "assign a site"
    elif form < 0.45 and part.text.endswith("]"):
        line, feature = f"{target} = {text}", "assign a part"
    elif form < 0.7 and part.text.endswith("]"):
        line, feature = rng.choice(
            [(f"{target} += {text}", "+="), (f"{target} -= 0.5 * {text}", "-="), (f"{target} *= 0.6", "*=")]
        )
    elif not indexed:
        line, feature = _in_place(sketch, target, text, shape)
    else:
        line, feature = f"{target} = {text}", "assign a part"
    if feature in ("*=", "mul_", "clamp_", "zero_", "fill_", "neg_"):
        deps, features = frozenset([here.place]), ["own"]
    sketch.add(line, feature, f"write {here.name}", f"write: {part.kind}", *(f"value: {each}" for each in features))
    sketch.wrote(here.place, deps)
    return here


def _fitting(text: str, shape: tuple[int, ...], whole: tuple[int, ...]) -> str:
    if shape != whole:
        raise Misfit("a part for a whole site")
    return text


def _in_place(sketch: Sketch, target: str, text: str, shape: tuple[int, ...]) -> tuple[str, str]:
    number = not text.lstrip("-").strip("0123456789.")  # Tensor.copy_ takes tensors
    return sketch.rng.choice(
        [
            (f"{target}.mul_(0.7)", "mul_"),
            (f"{target}.clamp_(-0.8, 0.9)", "clamp_"),
            (f"{target}.add_({text})", "add_"),
            (f"{target}.fill_(0.4)", "fill_") if number else (f"{target}.copy_({text})", "copy_"),
            (f"{target}.fill_(-0.3)", "fill_"),
            (
                f"{target}.masked_fill_({sketch.const(*shape) if shape else 'const(1, 1)[0]'} > 0.3, 0.25)",
                "masked_fill_",
            ),
            (f"{target}.zero_()", "zero_"),
            (f"{target}.neg_()", "neg_"),
        ]
    )


def _masked(sketch: Sketch, here: Spot) -> Spot:
    sketch.may_write(here.place, frozenset())
    sketch.add(f"{here.text}[{sketch.const(*here.shape)} > 0.8] = 0.2", "masked assignment", f"write {here.name}")
    sketch.wrote(here.place, frozenset())
    return here


def _block(sketch: Sketch, handle: Handle, here: Spot) -> Spot:
    """Attention edges blocked, counted from the end so that every row has them."""
    rng = sketch.rng
    if handle.pos != here.shape[-1] or handle.least < 3:
        raise Misfit("too short to block an edge")
    query = rng.randrange(1, handle.least - 1)
    key = rng.randrange(query + 1, handle.least)
    heads = rng.choice([":", str(rng.randrange(here.shape[1]))])
    sketch.may_write(here.place, frozenset())
    sketch.add(f'{here.text}[:, {heads}, -{query}, -{key}] = -float("inf")', "blocked edge", "write scores")
    sketch.wrote(here.place, frozenset())
    return here


def _source(
    sketch: Sketch, handle: Handle, handles: list[Handle], here: Spot, part: Region, target: str, shape: tuple[int, ...]
) -> tuple[str, frozenset[Place], list[str]]:
    """What is written: its text, what it depends on, and what kind of value it is."""
    rng = sketch.rng
    for _ in range(6):
        draw = rng.random()
        if draw < 0.24:
            sizes = shape if rng.random() < 0.5 or not shape else shape[-1:]
            return f"0.7 * {sketch.const(*sizes) if sizes else 'const(3, 1)[0]'}", frozenset(), ["constant"]
        if draw < 0.32:
            return str(rng.choice([0.0, 0.3, -0.5])), frozenset(), ["number"]
        if draw < 0.58:
            found = _patch(sketch, handle, handles, here, part, shape)
        elif draw < 0.78:
            found = _from_values(sketch, shape)
        else:
            found = _own(sketch, here, target, shape)
        if found is not None:
            return found
    return "0.1", frozenset(), ["number"]


def _patch(
    sketch: Sketch, handle: Handle, handles: list[Handle], here: Spot, part: Region, shape: tuple[int, ...]
) -> tuple[str, frozenset[Place], list[str]] | None:
    """The same part of the same site (or of another layer's) in another run."""
    rng = sketch.rng
    others = [each for each in handles if each.key != handle.key]
    if not others or here.name.startswith("module"):
        return None
    other = rng.choice(others)
    layer = here.layer if here.layer is None or rng.random() < 0.65 else rng.randrange(sketch.card.sizes["n_layers"])
    there = spot(sketch, other, name=here.name, layer=layer)
    text = there.text + part.text.replace(f"{handle.name}.", f"{other.name}.")
    if here.name == "scores":
        text += ".clamp(min=-6.0)"
    try:
        if sketch.shape(text) != shape:
            return None
    except Misfit:
        return None
    kinds = ["another run"]
    if layer != here.layer:
        kinds.append("a later layer" if layer > here.layer else "an earlier layer")
    return text, frozenset([there.place]), kinds


def _from_values(sketch: Sketch, shape: tuple[int, ...]) -> tuple[str, frozenset[Place], list[str]] | None:
    """A named value, cut and folded to the shape wanted."""
    if not sketch.values:
        return None
    value = sketch.rng.choice(sketch.values)
    has = sketch.shape(value.text)
    if has == shape:
        return value.text, value.deps, ["a value"]
    count = 1
    for size in shape:
        count *= size
    total = sketch.look(value.text).numel()
    if total < count:
        return None
    cut = sketch.rng.choice([f"[:{count}]", f"[{total - count}:]"])
    return f"torch.tanh({value.text}.flatten(){cut}.reshape({shape}))", value.deps, ["a value folded"]


def _own(
    sketch: Sketch, here: Spot, target: str, shape: tuple[int, ...]
) -> tuple[str, frozenset[Place], list[str]] | None:
    """Something made of what stands there already."""
    if not shape or here.name == "scores":
        return None
    choices = ["torch.tanh({t}) * 1.2", "{t}.flip(0)", "{t}.roll(1, 0)", "{t} - {t}.mean(-1, keepdim=True)",
               "torch.softmax({t}, -1)", "{t}.sort(-1).values", "{t}.cumsum(-1) * 0.3", "torch.relu({t})"]  # fmt: skip
    text = sketch.rng.choice(choices).format(t=target)
    kinds = ["own"] + (["rows mixed"] if ("flip" in text or "roll" in text) and shape[0] > 1 else [])
    return text, frozenset([here.place]), kinds


# -- several statements that belong together ---


def versions(sketch: Sketch, handle: Handle, handles: list[Handle]) -> None:
    """Several writes to one site, with reads of old and new versions in between."""
    here = spot(sketch, handle, write=True)
    if here.name == "scores":
        raise Misfit("scores hold -inf")
    deps = frozenset([here.place])
    old = sketch.keep(f"{here.text} * 1.0", deps)
    view = sketch.keep(f"{here.text}[:, -1]", deps)
    write(sketch, handle, handles, here)
    between = sketch.keep(f"{here.text} - {old.text}", deps)
    write(sketch, handle, handles, here)
    if sketch.rng.random() < 0.5:
        sketch.may_write(here.place, deps)
        sketch.add(f"{here.text}[:, 0:] += 0.5 * torch.tanh({old.text})", "an old version written back")
    sketch.save(sketch.rng.choice([old, between]))
    if sketch.rng.random() < 0.6:
        sketch.save(view)
    sketch.features |= {"several writes to one site", "an old version read"}


def swap(sketch: Sketch, handles: list[Handle]) -> None:
    """Two runs that take from one another, at the same site or at later ones."""
    rng = sketch.rng
    a, b = rng.sample(handles, 2) if len(handles) > 1 else (handles[0], handles[0])
    if a is b or a.batch != b.batch:
        raise Misfit("no two runs alike")
    name = rng.choice(["resid_post", "attn_out", "mlp_out", "z", "k"])
    first = rng.randrange(sketch.card.sizes["n_layers"] - 1)
    one, other = spot(sketch, a, name=name, layer=first), spot(sketch, b, name=name, layer=first)
    later, there = spot(sketch, b, name=name, layer=first + 1), spot(sketch, a, name=name, layer=first + 1)
    sketch.may_write(one.place, frozenset([other.place]))
    if rng.random() < 0.5:
        sketch.add(f"{one.text}[:, -1] = {other.text}[:, -1]", "swap")
        sketch.wrote(one.place, frozenset([other.place]))
        sketch.may_write(later.place, frozenset([there.place]))
        sketch.add(f"{later.text}[:, -1] = {there.text}[:, -1]")
        sketch.wrote(later.place, frozenset([there.place]))
    else:
        kept = sketch.name("v")
        sketch.may_write(other.place, frozenset())
        sketch.add(f"{kept} = {one.text}[:, -1].clone()")
        sketch.add(f"{one.text}[:, -1] = {other.text}[:, -1]", "swap")
        sketch.add(f"{other.text}[:, -1] = {kept}", "swap at one site")
        sketch.wrote(one.place, frozenset([other.place]))
        sketch.wrote(other.place, frozenset([one.place]))


def chain(sketch: Sketch, handles: list[Handle]) -> None:
    """A → B → C: each takes from the one before, a layer or so later."""
    alike = [each for each in handles if each.batch == handles[0].batch]
    if len(alike) < 3:
        raise Misfit("no three runs alike")
    runs = sketch.rng.sample(alike, 3)
    name = sketch.rng.choice(["resid_post", "z", "mlp_out", "attn_out", "v"])
    layers = sketch.card.sizes["n_layers"]
    for source, into, layer in zip(runs, runs[1:], sorted(sketch.rng.choices(range(layers), k=2)), strict=False):
        here, there = spot(sketch, into, name=name, layer=layer), spot(sketch, source, name=name, layer=layer)
        sketch.may_write(here.place, frozenset([there.place]))
        sketch.add(f"{here.text}[:, -1] = {there.text}[:, -1]", "chain of runs")
        sketch.wrote(here.place, frozenset([there.place]))
    sketch.save(f"{runs[-1].name}.logits[:, -1]")


# -- logits ---


def metric(sketch: Sketch, handle: Handle, handles: list[Handle], save: bool = True) -> Value:
    """One of the ways in which logits are read."""
    rng, run = sketch.rng, handle.name
    here = spot(sketch, handle, name="logits")
    at = rng.choice(["[:, -1]", "[:, -1]", f"[{run}.rows, {run}.at({rng.randrange(-handle.least, handle.least)})]"])
    last, deps = f"{run}.logits{at}", frozenset([here.place])
    a, b = rng.sample(range(17), 2)
    many = [rng.randrange(17) for _ in range(handle.batch)]
    choices = {
        "logit_diff": f"weft.logit_diff({last}, {a}, {b})",
        "logit_diff a row": f"weft.logit_diff({last}, {many}, {b})",
        "log_prob": f"weft.log_prob({last}, {rng.choice([a, many])})",
        "prob": f"weft.prob({last}, {a})",
        "cross_entropy": f"weft.cross_entropy({last}, {many})",
        "logits entries": f"{run}.logits[..., {rng.choice([f'[{a}, {b}]', str(a), '3:8'])}]",
        "logits last": last,
        "full logits": f"{run}.logits * 1.0",
        "log_softmax": f"torch.log_softmax({run}.logits, -1)[:, -1, {a}]",
    }
    others = [each for each in handles if each.batch == handle.batch and each.key != handle.key]
    if others:
        other = rng.choice(others)
        choices["kl"] = f"weft.kl({run}.logits[:, -1], {other.name}.logits[:, -1])"
    feature = rng.choice(list(choices))
    if feature == "kl":
        deps |= {spot(sketch, other, name="logits").place}
    if save and rng.random() < 0.12:
        sketch.save(f"{last}.argmax(-1)")
        sketch.features.add("argmax")
    value = sketch.keep(choices[feature], deps, feature)
    if save:
        sketch.save(value)
    return value
