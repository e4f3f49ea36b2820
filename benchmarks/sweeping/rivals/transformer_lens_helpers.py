"""TransformerLens 4 (its bridge over the transformers model), with its own patching helpers where it has them.

(a)–(c) are `generic_activation_patch` with `reduce="none"`; the rest is `run_with_hooks`, `run_with_cache`, `generate`.
"""

from __future__ import annotations

import contextlib
import functools
import io
import tempfile

import torch

from sweeping.models import SHAPES, build, tokenizer
from sweeping.tasks import Data, pad

LIBRARY = "transformer_lens"
CANNOT: dict[str, str] = {}
SITES = ("attn.hook_z", "hook_attn_out", "hook_mlp_out", "hook_resid_post")


class Handle:
    def __init__(self, name: str) -> None:
        from transformers import AutoTokenizer

        self.shape = SHAPES[name]
        with tempfile.TemporaryDirectory() as folder:  # its Llama adapter reads the tokenizer's folder again
            tokenizer(self.shape.vocabulary).save_pretrained(folder)
            words = AutoTokenizer.from_pretrained(folder)
            self.model = self._boot(name, words)
        self.model.eval()

    def _boot(self, name: str, words):
        from transformer_lens.model_bridge import TransformerBridge

        label = "gpt2" if self.shape.family == "gpt2" else "llama"
        return TransformerBridge.boot_transformers(label, hf_model=build(name), tokenizer=words, device="cpu")


setup = Handle


def _kept(handle: Handle, data: Data, site: str):
    names = {f"blocks.{layer}.{site}" for layer in range(handle.shape.layers)}
    return handle.model.run_with_cache(torch.tensor(data.clean), names_filter=lambda name: name in names)[1]


def _sweep(handle: Handle, data: Data, name: str, site: str, setter) -> torch.Tensor:
    import pandas
    from transformer_lens import patching

    index = pandas.DataFrame(data.patches, columns=["layer", "item"])
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        found = patching.generic_activation_patch(
            handle.model,
            torch.tensor(data.corrupt),
            _kept(handle, data, site),
            lambda logits: data.score(logits[:, -1]),
            setter,
            name,
            index_df=index,
            reduce="none",
        )
    return found.values


@torch.no_grad()
def heads(handle: Handle, data: Data) -> torch.Tensor:
    if data.ragged:
        return _ragged_heads(handle, data)

    def setter(corrupted, index, clean):
        corrupted[:, -1, index[1]] = clean[:, -1, index[1]]
        return corrupted

    return _sweep(handle, data, "z", "attn.hook_z", setter)


def _ragged_heads(handle: Handle, data: Data) -> torch.Tensor:
    """Its helpers take no attention mask, so this is the loop that they would make, with one."""
    clean, corrupt, rows = pad(data.clean), pad(data.corrupt), torch.arange(len(data.clean))
    at = clean.start + torch.tensor(data.at)
    kept, names = {}, [f"blocks.{layer}.attn.hook_z" for layer in range(handle.shape.layers)]

    keep = [(name, lambda z, hook, name=name: kept.__setitem__(name, z[rows, at])) for name in names]
    options = lambda each: {"attention_mask": each.mask, "position_ids": each.positions}  # noqa: E731
    handle.model.run_with_hooks(clean.ids, fwd_hooks=keep, **options(clean))
    found = []
    for layer, head in data.patches:

        def patch(z, hook, layer=layer, head=head):
            z[rows, at, head] = kept[names[layer]][:, head]
            return z

        logits = handle.model.run_with_hooks(corrupt.ids, fwd_hooks=[(names[layer], patch)], **options(corrupt))
        found.append(data.score(logits[:, -1]))
    return torch.stack(found)


@torch.no_grad()
def positions(handle: Handle, data: Data) -> torch.Tensor:
    from transformer_lens.patching import layer_pos_patch_setter

    return _sweep(handle, data, "resid_post", "hook_resid_post", layer_pos_patch_setter)


def attribution(handle: Handle, data: Data) -> torch.Tensor:
    model = handle.model
    names = [f"blocks.{layer}.{site}" for site in SITES for layer in range(handle.shape.layers)]
    wanted = set(names)
    with torch.no_grad():
        clean = model.run_with_cache(torch.tensor(data.clean), names_filter=lambda name: name in wanted)[1]
    taken: dict[str, torch.Tensor] = {}

    def keep(x, hook, name):  # by the name asked for: a hook's own may be another (attn.o.hook_in for attn.hook_z)
        taken[name] = x
        return x  # z is shown reshaped: the model must go on with what was shown, or it has no gradient

    with model.hooks(fwd_hooks=[(name, functools.partial(keep, name=name)) for name in names]):
        metric = data.score(model(torch.tensor(data.corrupt))[:, -1]).sum()
    gradients = torch.autograd.grad(metric, [taken[name] for name in names])
    pairs = zip(names, gradients, strict=True)
    return torch.stack([((clean[n] - taken[n].detach()) * g).flatten(1).sum(1) for n, g in pairs])


@torch.no_grad()
def lens(handle: Handle, data: Data) -> torch.Tensor:
    cache = _kept(handle, data, "hook_resid_post")
    model = handle.model
    last = [cache[f"blocks.{layer}.hook_resid_post"][:, -1:] for layer in range(handle.shape.layers)]
    return torch.stack([data.score(model.unembed(model.ln_final(x))[:, -1]) for x in last])


@torch.no_grad()
def one_edit(handle: Handle, data: Data) -> torch.Tensor:
    return handle.model.run_with_hooks(torch.tensor(data.clean), fwd_hooks=[_adding(data, 0, 0)])[:, -1]


@torch.no_grad()
def together(handle: Handle, data: Data) -> torch.Tensor:
    found = []
    for layer, row in data.patches:
        ids = torch.tensor([data.clean[row]])
        logits = handle.model.run_with_hooks(ids, fwd_hooks=[_adding(data, layer, row)])[0, -1]
        found.append(logits[data.answers[row]] - logits.logsumexp(-1))
    return torch.stack(found)


prefixes = together


@torch.no_grad()
def generation(handle: Handle, data: Data) -> torch.Tensor:
    ids = torch.tensor(data.clean)
    with handle.model.hooks(fwd_hooks=[_adding(data, data.layer, 0)]):
        made = handle.model.generate(
            ids, max_new_tokens=data.steps, do_sample=False, stop_at_eos=False, verbose=False, return_type="tokens"
        )
    return made[:, ids.shape[1] :]


def _adding(data: Data, layer: int, row: int):
    at = data.at[row] if data.at else -1

    def add(x, hook):
        x[:, at] += data.vectors[row]
        return x

    return f"blocks.{layer}.hook_resid_post", add
