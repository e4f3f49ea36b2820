"""Llamas on which a suffix computed from keys and values would be silently wrong, each in its own way."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from tests.tiny import randomised, tiny_llama
from torch import nn
from transformers import LlamaForCausalLM, LlamaModel
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer, apply_rotary_pos_emb


class Ordered(LlamaModel):
    """Calls its layers in an order of its own, without a cache."""

    order: tuple[int, ...] = (0, 1, 2)

    def forward(self, input_ids: Any = None, attention_mask: Any = None, position_ids: Any = None, **more: Any) -> Any:
        hidden = self.embed_tokens(input_ids)
        if position_ids is None:
            position_ids = torch.arange(hidden.shape[1], device=hidden.device)[None]
        mask = create_causal_mask(self.config, hidden, attention_mask, None)
        turned = self.rotary_emb(hidden, position_ids=position_ids)
        for number in self.order:
            hidden = self.layers[number](hidden, attention_mask=mask, position_embeddings=turned)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden))


class Twice(Ordered):
    order = (0, 1, 1, 2)


class Shuffled(Ordered):
    order = (0, 2, 1)


class Averaging(LlamaDecoderLayer):
    """Adds the mean of the stream over the positions so far: state that is neither keys nor values."""

    def forward(self, hidden_states: torch.Tensor, **more: Any) -> torch.Tensor:
        out = super().forward(hidden_states, **more)
        count = torch.arange(1, out.shape[1] + 1, device=out.device, dtype=out.dtype)
        return out + 0.5 * out.cumsum(1) / count[:, None]


class Turned(LlamaDecoderLayer):
    """Takes and gives a stream [pos, batch, d_model]."""

    def forward(self, hidden_states: torch.Tensor, **more: Any) -> torch.Tensor:
        return super().forward(hidden_states.transpose(0, 1), **more).transpose(0, 1)


class TurnedModel(LlamaModel):
    def forward(self, input_ids: Any = None, attention_mask: Any = None, **more: Any) -> Any:
        rows = self.embed_tokens(input_ids)
        mask = create_causal_mask(self.config, rows, attention_mask, None)
        turned = self.rotary_emb(rows, position_ids=torch.arange(rows.shape[1], device=rows.device)[None])
        hidden = rows.transpose(0, 1)
        for layer in self.layers:
            hidden = layer(hidden, attention_mask=mask, position_embeddings=turned)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden.transpose(0, 1)))


class Naive(LlamaAttention):
    """Attention that asks torch for causality and looks at nothing else: one sequence, from its beginning."""

    def forward(self, hidden_states: torch.Tensor, position_embeddings: Any = None, **more: Any) -> Any:
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        q, k, v = (each(hidden_states).view(shape).transpose(1, 2) for each in (self.q_proj, self.k_proj, self.v_proj))
        q, k = apply_rotary_pos_emb(q, k, *position_embeddings)
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o_proj(z.transpose(1, 2).flatten(2)), None


class Odd(LlamaForCausalLM):
    body: type[LlamaModel] = Ordered
    layer: type[nn.Module] | None = None
    attention: type[nn.Module] | None = None

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = self.body(config)
        for number in range(config.num_hidden_layers):
            if self.layer is not None:
                self.model.layers[number] = self.layer(config, number)
            if self.attention is not None:
                self.model.layers[number].self_attn = self.attention(config, number)


class PlainForCausalLM(Odd):
    """As odd as the others, but for nothing: what is wrong with those is not how they are made."""


class TwiceForCausalLM(Odd):
    body = Twice


class ShuffledForCausalLM(Odd):
    body = Shuffled


class AveragingForCausalLM(Odd):
    layer = Averaging


class TurnedForCausalLM(Odd):
    body = TurnedModel
    layer = Turned


class NaiveForCausalLM(Odd):
    attention = Naive


def odd(kind: type[Odd]) -> nn.Module:
    """A tiny random one."""
    return randomised(kind(tiny_llama().config), 3)
