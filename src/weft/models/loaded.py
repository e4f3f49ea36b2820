"""A model as weft holds it: the module, what is known of it, its tokens and its parts.

loaded = weft.models.load("a/folder")
loaded.card.sizes["n_layers"], loaded.param("W_O[3]"), loaded.apply("unembed", x), loaded.fingerprint()
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn

from weft.errors import ModelError, SiteError
from weft.ir.card import Card
from weft.ir.nodes import Site
from weft.ir.types import TensorType
from weft.models import cardbuild, placement, weights
from weft.models.families import Family
from weft.models.hooks import lock_of, unseen
from weft.models.shapes import uncollected
from weft.models.tokens import Tokens


@dataclass(eq=False)
class Loaded:
    """A loaded model. Made by `load`; `id` and `revision` say where it came from.

    `family` is None where weft has no table for the model: raw modules only. `missing` says why there are shapes and no
    numbers, where that is so.
    """

    module: nn.Module
    name: str
    kind: str
    family: Family | None
    sizes: dict[str, int]
    tokenizer: dict[str, str] = field(default_factory=dict)
    id: str = ""
    revision: str = ""
    missing: str = ""
    plain: bool = False  # its forward takes token ids alone and gives logits: no cache, no padding
    _marks: tuple[tuple[int, ...], dict[str, object]] | None = field(default=None, repr=False)
    _cards: dict[tuple[Any, ...], Card] = field(default_factory=dict, repr=False)
    _looks: set[tuple[Any, ...]] = field(default_factory=set, repr=False)

    @cached_property
    def card(self) -> Card:
        """What there is to know of the model; a raw module's sites are known with its inputs (`card_for`)."""
        with uncollected():
            return cardbuild.build(self)

    @cached_property
    def tokens(self) -> Tokens | None:
        """The tokenizer, or None: then prompts are token ids."""
        return Tokens(self.tokenizer) if self.tokenizer else None

    @property
    def device(self) -> torch.device:
        """Where the model takes its inputs: where its first parameter is, or is brought to."""
        if self._first is None:
            return torch.device("cpu")
        return placement.device_of(self.module) if self._first.is_meta else self._first.device

    @cached_property
    def _first(self) -> nn.Parameter | None:
        return next(self.module.parameters(), None)

    def check_weights(self) -> None:
        """ModelError where the model's weights are not here, saying what is missing."""
        if self.missing:
            raise ModelError(f"{self.name} cannot be run: {self.missing}")

    def card_for(self, input_types: dict[str, TensorType], inputs: dict[str, torch.Tensor] | None = None) -> Card:
        """The card of a raw module for inputs of these types; a decoder's card holds for any.

        Where the module looks at what its inputs are (where an image's tokens stand, say), it is run on these `inputs`.
        """
        if self.kind == "decoder":
            return self.card
        key: tuple[Any, ...] = tuple(sorted(input_types.items()))
        if key in self._looks and inputs is not None:
            return self._card_of_values(key, inputs)
        if key not in self._cards:
            card, looks = cardbuild.build_for(self, input_types, inputs)
            if looks and inputs is not None:
                self._looks.add(key)
                return self._cards.setdefault((*key, *_whole_numbers(inputs)), card)
            self._cards[key] = card
        return self._cards[key]

    def _card_of_values(self, key: tuple[Any, ...], inputs: dict[str, torch.Tensor]) -> Card:
        """The card of a module that looks at its inputs: whole numbers among them say where things stand."""
        whole = (*key, *_whole_numbers(inputs))
        if whole not in self._cards:
            self._cards[whole] = cardbuild.build_for(self, dict(key), inputs)[0]
        return self._cards[whole]

    def check_sites(self, sites: Iterable[Site]) -> None:
        """SiteError for a site that a decoder does not have (a raw module's are known only as it runs)."""
        for site in sites:
            if self.kind == "decoder" and site not in self.card.by_site:
                reason = self.card.why_absent(site) or "see model.sites() for those it has"
                raise SiteError(f"{self.name} has no site {site}: {reason}")

    def forward(self, inputs: dict[str, torch.Tensor], cache: Any = None, last_only: bool = False) -> Any:
        """Run the module. Decoders take `tokens` [batch, pos] (or `embeddings`), and `start` [batch] where rows are
        padded on the left; they give the logits (`last_only`: of the last position alone, where the model can be told
        so). Raw modules take and give what is theirs."""
        self.check_weights()
        with lock_of(self.module):
            if self.kind != "decoder":
                return self.module(**inputs)
            if self.plain:
                return self._plainly(inputs, cache)
            keep = {"logits_to_keep": 1} if last_only and self._keeps else {}
            return self.module(**self._arguments(inputs, cache), **keep).logits

    def _plainly(self, inputs: dict[str, torch.Tensor], cache: Any) -> Any:
        """A user's own decoder: the logits are what it gives, or the first of what it gives."""
        padded = "start" in inputs and bool((inputs["start"] > 0).any())
        if cache is not None or padded or "tokens" not in inputs:
            raise ModelError(
                f"{self.name} is given whole rows of token ids and gives logits; it has no cache that weft knows, so weft "
                "does not generate with it, and takes neither padding nor embeddings. Give it prompts"
            )
        out = self.module(inputs["tokens"].to(self.device))
        out = getattr(out, "logits", out)
        return out[0] if isinstance(out, tuple | list) else out

    @cached_property
    def _keeps(self) -> bool:
        """Whether the model can be told to make the last position's logits alone."""
        return "logits_to_keep" in inspect.signature(self.module.forward).parameters

    def _arguments(self, inputs: dict[str, torch.Tensor], cache: Any) -> dict[str, Any]:
        given = {_INPUTS.get(name, name): value.to(self.device) for name, value in inputs.items()}
        start = given.pop("start", None)
        shape = next(iter(given.values())).shape
        call: dict[str, Any] = {**given, "use_cache": cache is not None, "past_key_values": cache}
        if start is not None and bool((start > 0).any()):
            past = 0 if cache is None else int(cache.get_seq_length())
            every = torch.arange(past + shape[1], device=self.device)[None]
            call["attention_mask"] = (every >= start[:, None]).long()
            call["position_ids"] = (every[:, past:] - start[:, None]).clamp(min=0)
        return call

    def param(self, name: str) -> torch.Tensor:
        """A weight by name: "W_U", "W_O[3]", "param(path)"; see `weights` for the layouts."""
        self.check_weights()
        with placement.here(*weights.holders(self.module, self.family, name)):
            return weights.weight(self.module, self.family, self.sizes, name)

    def apply(self, part: str, value: torch.Tensor) -> torch.Tensor:
        """One of the model's parts on a value whose last axis fits it: "unembed", "final_norm", "module(path)"."""
        if part not in self.card.by_part:
            raise ModelError(
                f"{self.name} has no part {part!r} that maps a value's last axis alone; "
                f"it has {', '.join(list(self.card.by_part)[:8])}, …"
            )
        self.check_weights()
        with unseen():
            out = self.module.get_submodule(cardbuild.part_path(self.family, part))(value)
        return self.capped(out) if part == "unembed" else out

    def capped(self, logits: torch.Tensor) -> torch.Tensor:
        """What the unembedding gives, multiplied and kept below a limit where the family does that (Granite, Gemma 2)."""
        limit = self.family.softcap if self.family else 0.0
        if self.family and self.family.logits_times != 1.0:
            logits = logits * self.family.logits_times
        return torch.tanh(logits / limit) * limit if limit else logits

    def fingerprint(self) -> dict[str, object]:
        """What the model is, as data: id, revision, class, SHA-256 of weights and of tokenizer.

        The hash is kept until a parameter is written to.
        """
        self.check_weights()
        state = tuple(each._version for each in self.module.state_dict(keep_vars=True).values())
        if self._marks is None or self._marks[0] != state:
            marks: dict[str, object] = {
                "id": self.id,
                "revision": self.revision,
                "class": type(self.module).__name__,
                "weights": _hash_weights(self.module),
                "tokenizer": hashlib.sha256(json.dumps(self.tokenizer, sort_keys=True).encode()).hexdigest(),
            }
            self._marks = (state, marks)
        return dict(self._marks[1])


def _whole_numbers(inputs: dict[str, torch.Tensor]) -> tuple[tuple[int, ...], ...]:
    """Those of the inputs that are whole numbers, in order of their names."""
    kept = [value for _, value in sorted(inputs.items()) if not value.is_floating_point()]
    return tuple(tuple(value.flatten().tolist()) for value in kept)


_INPUTS = {"tokens": "input_ids", "embeddings": "inputs_embeds"}


def _hash_weights(module: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes in order of names, one tensor at a time, 64 MiB at a time."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        path, _, own = name.rpartition(".")
        holder = module.get_submodule(path)
        with placement.here(holder):
            here = getattr(holder, own) if tensor.is_meta else tensor
            flat = here.detach().contiguous().reshape(-1).view(torch.uint8)
        for chunk in flat.split(1 << 26):
            digest.update(chunk.cpu().numpy().data)
    return digest.hexdigest()
