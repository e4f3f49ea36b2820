"""An experiment from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tests.generated import generations, statements
from tests.generated.eager import traced_methods
from tests.generated.experiment import Experiment
from tests.generated.prompts import Handle, add_runs, written
from tests.generated.sites import spot
from tests.generated.sketch import Misfit, Sketch, Value
from tests.generated.zoo import OTHERS, VOCABULARY, Which

from weft.ir.nodes import Site

MODELS = [("gpt2", 2), ("gpt2", 3), ("llama", 2), ("llama", 4), ("mistral", 3), ("qwen2", 2), ("qwen2", 3)]
WIDE = 10_000
"""Seeds from here on are of models of any family, in float32: other norms than Llama's compute in that whatever they get."""


def draw(seed: int) -> Experiment:
    """The experiment of this seed; the same everywhere."""
    rng = random.Random(seed)
    (family, layers), dtype = rng.choice(MODELS), rng.choice(["float32", "float64"])
    # transformers' eager attention takes its softmax in float32 whatever the model's dtype.
    eager = dtype == "float32" and (family, layers) in (("llama", 2), ("gpt2", 3))
    which = Which(family, layers, dtype, "eager" if eager else "sdpa")
    if seed >= WIDE:
        family = list(OTHERS)[seed % len(OTHERS)]
        which = Which(family, 3, "float32", OTHERS[family])
    sketch = Sketch(seed, which, rng)
    edit = _standing(sketch) if rng.random() < 0.06 else ()
    shape = rng.choices([_plain, _sweep, _gradients, _generation], [60, 12, 16, 12])[0]
    with traced_methods():
        shape(sketch)
    return Experiment(seed, which, tuple(sketch.lines), sketch.leaves, edit, frozenset(sketch.features))


def _try(action: Callable[..., Any], *args: Any) -> Any:
    """An action, a few times over until it fits; None if it never does. What a misfit wrote is taken back."""
    sketch: Sketch = args[0]
    for _ in range(6):
        before = sketch.mark()
        with suppress(Misfit):
            return action(*args)
        sketch.back_to(before)
    return None


def _statements(sketch: Sketch, handles: list[Handle], count: int) -> None:
    for _ in range(count):
        handle = sketch.rng.choice(handles)
        kind = sketch.rng.choices(
            ["read", "write", "arithmetic", "metric", "versions", "swap", "chain", "now"], [20, 32, 18, 10, 7, 4, 4, 2]
        )[0]
        if kind == "read":
            _try(statements.read, sketch, handle)
        elif kind == "write":
            _try(statements.write, sketch, handle, handles)
        elif kind == "arithmetic":
            _try(statements.arithmetic, sketch)
        elif kind == "metric":
            _try(statements.metric, sketch, handle, handles)
        elif kind == "versions":
            _try(statements.versions, sketch, handle, handles)
        elif kind == "swap":
            _try(statements.swap, sketch, handles)
        elif kind == "chain":
            _try(statements.chain, sketch, handles)
        else:
            _try(_now, sketch)


def _plain(sketch: Sketch) -> None:
    """Runs, and anything done to them in any order."""
    rng = sketch.rng
    handles = add_runs(sketch, rng.choice([1, 1, 2, 2, 3, 3, 4, 5, 6, 8]))
    _statements(sketch, handles, rng.randrange(3, 15))
    _end(sketch, handles)


def _end(sketch: Sketch, handles: list[Handle]) -> None:
    """Something is always saved; now and then an edit comes after the last read, or where nobody looks."""
    rng = sketch.rng
    for handle in handles:
        if rng.random() < 0.6:
            _try(statements.metric, sketch, handle, handles)
    if not any(".save(" in line for line in sketch.lines):
        sketch.save(f"{handles[0].name}.logits[:, -1]")
    if sketch.values and rng.random() < 0.5:
        sketch.save(rng.choice(sketch.values))
    if rng.random() < 0.12:
        _try(_late, sketch, rng.choice(handles), handles)


def _late(sketch: Sketch, handle: Handle, handles: list[Handle]) -> None:
    """A write at the last layer, at the very end of the block."""
    name = sketch.rng.choice(["mlp_out", "resid_post", "z"])
    statements.write(sketch, handle, handles, spot(sketch, handle, name=name, layer=-1))
    sketch.features.add("a write after the last read")


def _now(sketch: Sketch) -> None:
    """A value looked at on the way, and used as numbers from there."""
    if not sketch.values:
        raise Misfit("no values")
    value = sketch.rng.choice(sketch.values)
    name = sketch.name("n")
    sketch.add(f"{name} = {value.text}.now()", "now()")
    sketch.shown += value.deps
    sketch.values.append(Value(sketch.name("v"), frozenset()))
    sketch.add(f"{sketch.values[-1].text} = {value.text} * 0.0 + {name}")
    sketch.values[-1].deps = value.deps


def _sweep(sketch: Sketch) -> None:
    """What users write most: the same patch at many places, one fork each."""
    rng = sketch.rng
    handles = add_runs(sketch, 1)
    clean = handles[0]
    rows = [[rng.randrange(2, VOCABULARY) for _ in range(clean.pos)] for _ in range(clean.batch)]
    if clean.least != clean.pos or rng.random() < 0.3:
        sketch.add(f"other = {clean.name}.fork()")
        spare = Handle("other", "other", clean.batch, clean.pos, clean.least)
        _try(statements.write, sketch, spare, [spare])
    else:
        sketch.add(f"other = s.run({written(sketch, rows)})")
        spare = Handle("other", "other", clean.batch, clean.pos, clean.least)
    name = rng.choice(["z", "z", "resid_post", "mlp_out", "attn_out", "q", "k", "v", "mlp_post", "pattern", "head_out"])
    place = -rng.randrange(1, clean.least + 1) if rng.random() < 0.5 else -1
    answer, wrong = rng.sample(range(VOCABULARY), 2)
    forks = [clean, spare]
    for _ in range(rng.randrange(3, 9)):
        fork = Handle(sketch.name("p"), "", clean.batch, clean.pos, clean.least)
        fork = Handle(fork.name, fork.name, clean.batch, clean.pos, clean.least)
        sketch.add(f"{fork.name} = other.fork()", "sweep", "fork")
        here = spot(sketch, fork, name=name)
        there = spot(sketch, clean, name=name, layer=here.layer)
        part = _sweep_part(sketch, here, fork, place)
        sketch.add(f"{here.text}{part} = {there.text}{part.replace(fork.name, clean.name)}", f"write {name}")
        sketch.wrote(here.place, frozenset([there.place]))
        sketch.save(f"weft.logit_diff({fork.name}.logits[:, -1], {answer}, {wrong})")
        forks.append(fork)
    if rng.random() < 0.4:
        _statements(sketch, forks, rng.randrange(1, 5))
    _end(sketch, [clean, spare])


def _sweep_part(sketch: Sketch, here: Any, fork: Handle, place: int) -> str:
    head = sketch.rng.randrange(here.shape[2]) if len(here.shape) > 3 else None
    if here.name == "pattern":
        return f"[:, {sketch.rng.randrange(here.shape[1])}, {place}]"
    if sketch.rng.random() < 0.25:
        return f"[{fork.name}.rows, {fork.name}.at({place})]"
    return f"[:, {place}]" if head is None else f"[:, {place}, {head}]"


def _standing(sketch: Sketch) -> tuple[str, ...]:
    """One or two standing edits."""
    rng, found = sketch.rng, []
    layers, width = sketch.card.sizes["n_layers"], sketch.card.sizes["d_model"]
    for _ in range(rng.randrange(1, 3)):
        name, layer = rng.choice(["resid_post", "mlp_out", "attn_out"]), rng.randrange(layers)
        sketch.standing.add(sketch.card.by_site[Site(name, layer)][0])
        site = f"edited.{name}[{layer}]"
        found.append(
            rng.choice(
                [
                    f"{site}[:, -1] += {sketch.const(width)}",
                    f"{site} *= 0.7",
                    f"{site}[:, -1] = 0.3 * {sketch.const(width)}",
                ]
            )
        )
    sketch.features.add("edit()")
    return tuple(found)


# -- gradients ---


def _gradients(sketch: Sketch) -> None:
    """Edits, some of them with tensors that want a gradient, and gradients of what came of them."""
    rng = sketch.rng
    handles = add_runs(sketch, rng.choice([1, 1, 2, 3]))
    sketch.features.add("gradients")
    for _ in range(rng.randrange(0, 3)):
        _try(_leaf, sketch, rng.choice(handles))
    _statements(sketch, handles, rng.randrange(0, 6))
    for _ in range(rng.randrange(1, 3)):
        _try(_gradient, sketch, rng.choice(handles), handles)
    _end(sketch, handles)


def _leaf(sketch: Sketch, handle: Handle) -> None:
    """A tensor of the user's that wants a gradient goes into a site."""
    here = spot(sketch, handle, name=sketch.rng.choice(["resid_post", "mlp_out", "attn_out", "embed"]))
    name, seed = sketch.name("leaf"), sketch.rng.randrange(1000)
    sketch.may_write(here.place, frozenset())
    sketch.names[name] = sketch.names["const"](seed, here.shape[-1])
    part = sketch.rng.choice(["[:, -1]", "[:]", f"[{handle.name}.rows, {handle.name}.at(-1)]"])
    sketch.add(f"{here.text}{part} {sketch.rng.choice(['+=', '='])} {name}", "leaf")
    sketch.leaves[name] = (seed, (here.shape[-1],))
    sketch.leaf_places.append(here.place)


def _gradient(sketch: Sketch, handle: Handle, handles: list[Handle]) -> None:
    """The gradient of a metric at sites, at leaves, or by .backward()."""
    rng = sketch.rng
    value = statements.metric(sketch, handle, handles, save=False)
    scalar = sketch.name("loss")
    sketch.add(
        f"{scalar} = {rng.choice(['{v}.sum()', '({v} ** 2).mean()', 'torch.tanh({v}).mean()']).format(v=value.text)}"
    )
    sketch.save(scalar)
    reached = [sketch.reach(place) for place in sketch.leaf_places]
    if any(found.get(run, 1 << 30) <= at for found in reached for run, at in value.deps) and rng.random() < 0.5:
        sketch.add(f"{scalar}.backward()", "backward()")
        return
    names = ["embed", "resid_post", "z", "mlp_out", "attn_out", "q", "v", "mlp_post", "resid_mid", "pattern"]
    spots = [spot(sketch, handle, name=rng.choice(names)) for _ in range(rng.randrange(1, 4))]
    last = sketch.card.sizes["n_layers"] - 1
    targets = [each.text for each in spots if each.layer is None or each.layer < last or each.name != "q"]
    targets = list(dict.fromkeys(targets)) or [f"{handle.name}.embed"]
    found = [sketch.name("g") for _ in targets]
    sketch.add(f"{', '.join(found)}, = weft.grad({scalar}, [{', '.join(targets)}])", "gradients at sites")
    for name in found:
        sketch.save(Value(name))
    if len(handles) > 1 and rng.random() < 0.4:
        _steer(sketch, handle, handles, found[0], targets[0], value)


def _steer(sketch: Sketch, handle: Handle, handles: list[Handle], gradient: str, target: str, value: Value) -> None:
    """A gradient written into another run."""
    other = next(
        (each for each in handles if each.key != handle.key and (each.batch, each.pos) == (handle.batch, handle.pos)),
        None,
    )
    if other is None or ("[" not in target and "embed" not in target):
        raise Misfit("nowhere to put it")
    name, _, layer = target.removeprefix(f"{handle.name}.").partition("[")
    here = spot(sketch, other, name=name, layer=int(layer[:-1]) if layer else None)
    sketch.may_write(here.place, value.deps)
    sketch.add(f"{here.text}[:] += 0.5 * torch.tanh({gradient})", "a gradient written")
    sketch.wrote(here.place, value.deps)


# -- generation ---


def _generation(sketch: Sketch) -> None:
    """Generations edited at a step or at each, next to plain runs."""
    rng = sketch.rng
    sketch.features.add("generation")
    handles = add_runs(sketch, rng.choice([1, 1, 2])) if rng.random() < 0.5 else []
    stem = [rng.randrange(2, VOCABULARY) for _ in range(10)]
    made = [generations.generate(sketch, stem, handles[0].batch if handles else 0)]
    if rng.random() < 0.35:  # written after the generation that may take from it, which then has to wait at a step
        batch = made[0].batch
        rows = [[rng.randrange(2, VOCABULARY) for _ in range(4)] for _ in range(batch)]
        name = sketch.name("r")
        sketch.add(f"{name} = s.run({rows})")
        handles = [Handle(name, name, batch, 4, 4)]
        _try(statements.write, sketch, handles[0], handles)
        _try(generations.wait, sketch, made[0], handles[0])
    if rng.random() < 0.4:
        made.append(generations.fork_or_new(sketch, made[0], stem))
    for _ in range(rng.randrange(2, 7)):
        each = rng.choice(made)
        action = rng.choice(generations.ACTIONS)
        _try(action, sketch, each.name, generations.at_step(each, rng.randrange(each.count)), handles)
    if handles:
        _statements(sketch, handles, rng.randrange(0, 4))
        _end(sketch, handles)
    if not any(".save(" in line for line in sketch.lines):
        sketch.save(f"{made[0].name}.step(0).logits[:, -1]")
    if rng.random() < 0.5:
        _side_by_side(sketch, made, stem)


def _side_by_side(sketch: Sketch, made: list[generations.Made], stem: list[int]) -> None:
    """More generations, of lengths of their own, which may take values from one another."""
    rng = sketch.rng
    sketch.features.add("several generations")
    for _ in range(rng.randrange(1, 4)):
        made.append(generations.fork_or_new(sketch, rng.choice(made), stem))
    for _ in range(rng.randrange(1, 5)):
        kind, each = rng.choice(["inside", "borrow", "borrow", "each", "read"]), rng.choice(made)
        here = generations.at_step(each, 0 if kind == "inside" else rng.randrange(each.count))
        if kind == "borrow":
            _try(generations.borrow, sketch, here, rng.choice(made))
        elif kind == "inside":
            _try(generations.inside, sketch, each.name, here, [])
        else:
            _try(generations.edit_each if kind == "each" else generations.read_each, sketch, each.name, here, [])


FEATURES = (
    "several runs|fork|fork of a fork|ragged|one length|batch|duplicate rows|shared prefix|the same prompts again|"
    "long prefix|prompts as a tensor|prompts as ids|prompts as text|"
    "read embed|read resid_pre|read resid_mid|read resid_post|read q|read k|read v|read q_rot|read k_rot|read scores|"
    "read pattern|read z|read head_out|read attn_out|read mlp_pre|read mlp_post|read mlp_out|read final_norm|read logits|"
    "read module.input|read module.output|"
    "read: whole|read: last|read: per row|read: box|read: steps|read: list|read: head|read: view chain|stack|"
    "write embed|write resid_pre|write resid_mid|write resid_post|write q|write k|write v|write q_rot|write k_rot|"
    "write scores|write pattern|write z|write head_out|write attn_out|write mlp_pre|write mlp_post|write mlp_out|"
    "write final_norm|write logits|write module.input|write module.output|"
    "write: whole|write: last|write: per row|write: box|write: steps|write: list|write: head|write: view chain|"
    "assign a site|assign a part|+=|-=|*=|mul_|clamp_|add_|copy_|masked_fill_|zero_|fill_|neg_|masked assignment|blocked edge|"
    "several writes to one site|an old version read|an old version written back|a write after the last read|"
    "value: constant|value: number|value: another run|value: a later layer|value: an earlier layer|value: a value|"
    "value: a value folded|value: own|value: rows mixed|swap|swap at one site|chain of runs|sweep|"
    "op pointwise|op matmul|op softmax|op norm|op sort|op gather|op cumsum|op where|op reduce|op view|rows mixed|"
    "op of two values|part of the model|grid|in place on a value|"
    "logit_diff|logit_diff a row|log_prob|prob|cross_entropy|logits entries|logits last|full logits|log_softmax|kl|argmax|"
    "gradients|gradients at sites|leaf|backward()|a gradient written|"
    "generation|generation forked|sampled generation|edit at a step|edit at each|read at each|read at a step|logits written|"
    "several generations|edit inside the prompt|from a generation into a generation|"
    "from a run into a generation|a step that waits|now()|edit()"
).split("|")
"""Everything that draws are held to exercise."""
