"""The same experiments by hand: transformers, `register_forward_hook`, one prompt at a time. Uses nothing of weft.

plain = Plain(module, tokenizer)
logits = plain.logits("one two", [plain.before(plain.o(1), lambda x: x * 2)])
z = plain.z(1, "one two")
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

Edit = Callable[[], Any]
"""Puts a hook in place and gives its handle."""


class Plain:
    """A transformers model with hooks, for GPT-2 and Llama."""

    def __init__(self, module: nn.Module, tokenizer: Any = None) -> None:
        self.module, self.tokenizer = module, tokenizer
        self.gpt2 = hasattr(module, "transformer")
        body = module.transformer if self.gpt2 else module.model
        self.layers = body.h if self.gpt2 else body.layers
        self.embedding = body.wte if self.gpt2 else body.embed_tokens
        self.norm = body.ln_f if self.gpt2 else body.norm
        self.n_layers, self.n_heads = len(self.layers), module.config.num_attention_heads
        self.d_model = module.config.hidden_size
        self.d_head = getattr(module.config, "head_dim", None) or self.d_model // self.n_heads
        self.heads = [(layer, head) for layer in range(self.n_layers) for head in range(self.n_heads)]

    # -- parts ---

    def attention(self, layer: int) -> nn.Module:
        return self.layers[layer].attn if self.gpt2 else self.layers[layer].self_attn

    def mlp(self, layer: int) -> nn.Module:
        return self.layers[layer].mlp

    def o(self, layer: int) -> nn.Module:
        return self.attention(layer).c_proj if self.gpt2 else self.attention(layer).o_proj

    def q(self, layer: int) -> nn.Module:
        """The module whose output's first n_heads · d_head columns are the queries."""
        return self.attention(layer).c_attn if self.gpt2 else self.attention(layer).q_proj

    def w_o(self, layer: int, head: int) -> torch.Tensor:
        """[d_head, d_model]"""
        weight = self.o(layer).weight if self.gpt2 else self.o(layer).weight.T
        return weight.detach()[self.columns(head)]

    def columns(self, head: int) -> slice:
        return slice(head * self.d_head, (head + 1) * self.d_head)

    # -- hooks ---

    def before(self, module: nn.Module, change: Callable[[torch.Tensor], torch.Tensor | None]) -> Edit:
        """An edit of a module's first argument."""

        def hook(_: nn.Module, args: tuple[Any, ...]) -> Any:
            new = change(args[0])
            return None if new is None else (new, *args[1:])

        return lambda: module.register_forward_pre_hook(hook)

    def after(self, module: nn.Module, change: Callable[[torch.Tensor], torch.Tensor | None]) -> Edit:
        """An edit of a module's (first) output."""

        def hook(_: nn.Module, __: Any, output: Any) -> Any:
            first = output[0] if isinstance(output, tuple) else output
            new = change(first)
            if new is None:
                return None
            return (new, *output[1:]) if isinstance(output, tuple) else new

        return lambda: module.register_forward_hook(hook)

    def masked(self, layer: int, query: int, key: int) -> Edit:
        """No attention from one position to another, in all heads."""

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            length = (args[0] if args else kwargs["hidden_states"]).shape[1]
            mask = torch.full((length, length), -torch.inf).triu(1)
            mask[query, key] = -torch.inf
            return args, {**kwargs, "attention_mask": mask[None, None]}

        return lambda: self.attention(layer).register_forward_pre_hook(hook, with_kwargs=True)

    # -- running ---

    def ids(self, prompt: str | torch.Tensor) -> torch.Tensor:
        return self.tokenizer(prompt, return_tensors="pt").input_ids if isinstance(prompt, str) else prompt

    def call(self, prompt: str | torch.Tensor, edits: list[Edit] = [], **more: Any) -> Any:  # noqa: B006
        handles = [edit() for edit in edits]
        try:
            return self.module(self.ids(prompt), **more)
        finally:
            for handle in handles:
                handle.remove()

    def logits(self, prompt: str | torch.Tensor, edits: list[Edit] = []) -> torch.Tensor:  # noqa: B006
        """[batch, pos, vocab]"""
        with torch.no_grad():
            return self.call(prompt, edits).logits

    def taken(
        self, module: nn.Module, prompt: str | torch.Tensor, side: str = "out", edits: list[Edit] = [],  # noqa: B006
    ) -> torch.Tensor:  # fmt: skip
        """What a module takes ("in") or gives ("out")."""
        found: list[torch.Tensor] = []
        keep = self.before if side == "in" else self.after
        self.logits(prompt, [*edits, keep(module, lambda x: found.append(x.detach().clone()))])
        return found[0]

    def z(self, layer: int, prompt: str | torch.Tensor, edits: list[Edit] = []) -> torch.Tensor:  # noqa: B006
        """[batch, pos, n_heads · d_head]"""
        return self.taken(self.o(layer), prompt, "in", edits)

    def resid(self, layer: int, prompt: str | torch.Tensor, edits: list[Edit] = []) -> torch.Tensor:  # noqa: B006
        return self.taken(self.layers[layer], prompt, "out", edits)

    def token(self, text: str) -> int:
        (found,) = self.tokenizer(text, add_special_tokens=False).input_ids
        return found

    def place(self, prompt: str, text: str) -> int:
        """The position of a text that is one token and stands once."""
        ids = self.ids(prompt)[0].tolist()
        assert ids.count(self.token(text)) == 1
        return ids.index(self.token(text))


def replaced(x: torch.Tensor, place: Any, value: Any) -> torch.Tensor:
    """A copy with one part replaced."""
    new = x.clone()
    new[place] = value
    return new
