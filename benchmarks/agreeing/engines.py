"""Every engine's values of every site of one checkpoint: `{"z.1": tensor, "logits": tensor}`.

python -m agreeing.engines nnsight FOLDER OUT        # of every checkpoint in FOLDER, to OUT/*.safetensors
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from agreeing.checkpoints import opened, prompts
from agreeing.recipe import Reading, readings, shaped

Values = dict[str, torch.Tensor]
HOOKS = {
    "embed": "blocks.0.hook_resid_pre", "q": "attn.hook_q", "k": "attn.hook_k", "v": "attn.hook_v",
    "q_rot": "attn.hook_rot_q", "k_rot": "attn.hook_rot_k", "scores": "attn.hook_attn_scores",
    "pattern": "attn.hook_pattern", "z": "attn.hook_z", "head_out": "attn.hook_result", "attn_out": "hook_attn_out",
    "resid_mid": "hook_resid_mid", "mlp_pre": "mlp.hook_pre", "mlp_post": "mlp.hook_post", "mlp_out": "hook_mlp_out",
    "resid_post": "hook_resid_post", "router_logits": "mlp.hook_router_scores", "final_norm": "ln_final.hook_out",
}  # fmt: skip
"""What TransformerLens calls each site. `ln_final.hook_out`: its hook_normalized is before the gain."""


def weft(folder: Path) -> Values:
    """weft's own, by its public interface."""
    import weft as library

    module = opened(folder)
    model = library.load(module)
    layered = model.card.layers_of
    with model.session() as session:
        run = session.run(prompts(module.config.vocab_size))
        for spec in model.card.sites:
            site = spec.site
            if not site.path:
                value = getattr(run, site.name) if site.layer is None else getattr(run, site.name)[site.layer]
                value.save(site.name if site.layer is None else f"{site.name}.{site.layer}")
    assert layered
    return dict(session.results)


def hooks(folder: Path) -> Values:
    """torch's own hooks on the modules that the recipe names."""
    module = opened(folder)
    found: Values = {}
    handles = [_hook(module, reading, found) for reading in readings(module)]
    try:
        with torch.no_grad():
            module(prompts(module.config.vocab_size), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _hook(module: torch.nn.Module, reading: Reading, found: Values) -> torch.utils.hooks.RemovableHandle:
    each = module.get_submodule(reading.path)

    def keep(value: object) -> None:
        tensor = shaped(reading, value, module.config)
        if tensor is not None:
            found[reading.key] = tensor.clone()

    if reading.side == "out":
        return each.register_forward_hook(lambda _, args, output: keep(output))
    return each.register_forward_pre_hook(
        lambda _, args, kwargs: keep(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )


def nnsight(folder: Path) -> Values:
    """nnsight on the raw module: what the recipe names, one trace for each, as its order matters there."""
    from nnsight import NNsight

    module = opened(folder)
    model, ids = NNsight(module), prompts(module.config.vocab_size)
    found: Values = {}
    for reading in readings(module):
        each = model
        for step in filter(None, reading.path.split(".")):
            each = each[int(step)] if step.isdecimal() else getattr(each, step)
        try:
            with torch.no_grad(), model.trace(ids, use_cache=False):
                taken = (each.output if reading.side == "out" else each.input).save()
        except Exception as error:  # a module that is not called, or has no such side; said, and "–" in the table
            found.setdefault("", torch.zeros(0))
            print(f"{folder.name} {reading.key}: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        tensor = shaped(reading, taken, module.config)
        if tensor is not None:
            found[reading.key] = tensor.clone()
    found.pop("", None)
    return found


def bridge(folder: Path) -> Values:
    """TransformerLens's bridge over the transformers model."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoTokenizer

    module = opened(folder)
    ids, layers = prompts(module.config.vocab_size), int(module.config.num_hidden_layers)
    model = TransformerBridge.boot_transformers(
        str(folder), hf_model=module, tokenizer=AutoTokenizer.from_pretrained(folder), device="cpu"
    )
    try:
        model.set_use_attn_result(True)
    except Exception as error:  # some of its adapters cannot; whatever they raise, the other sites are compared
        print(f"{folder.name}: no head_out: {type(error).__name__}: {error}", file=sys.stderr)
    with torch.no_grad():
        logits, cache = model.run_with_cache(ids)
    found: Values = {"logits": logits}
    for site, name in HOOKS.items():
        if site in ("embed", "final_norm"):
            found |= {site: cache[name]} if name in cache else {}
            continue
        for layer in range(layers):
            if (whole := f"blocks.{layer}.{name}") in cache:
                found[f"{site}.{layer}"] = cache[whole]
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}


ENGINES: dict[str, tuple[str, Callable[[Path], Values]]] = {
    "weft": ("weft", weft),
    "hooks": ("torch", hooks),
    "nnsight": ("nnsight", nnsight),
    "TransformerBridge": ("transformer_lens", bridge),
}
"""By name: what must be importable, and the function."""


def all_of(engine: str, folder: Path, out: Path) -> None:
    """Every checkpoint by one engine; what it cannot do is in OUT/failed.json, by checkpoint."""
    from safetensors.torch import save_file

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    failed: dict[str, str] = {}
    out.mkdir(parents=True, exist_ok=True)
    for each in sorted(path for path in folder.iterdir() if path.is_dir()):
        try:
            values = ENGINES[engine][1](each)
            save_file(
                {name: value.detach().clone().contiguous() for name, value in values.items()},
                out / f"{each.name}.safetensors",
            )
        except Exception as error:
            failed[each.name] = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    (out / "failed.json").write_text(json.dumps(failed, indent=1))


if __name__ == "__main__":
    all_of(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
