"""The weights of a mechanism, written into a GPT-2 or a Llama of transformers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from weft.planted.assemble import Layout, Variant
from weft.planted.stream import D_HEAD, N_POSITIONS, ONE, THETA, Gates, Mechanism, Step
from weft.planted.weights import (
    N_NOISE_NEURONS,
    Weights,
    gain,
    noise_gates,
    noise_weights,
    normal,
    positions_of,
    weights_of,
)  # fmt: skip


def render(mechanism: Mechanism, variant: Variant, layout: Layout, noise: torch.Generator) -> Any:
    """A model in eval mode; `noise` is drawn from in one fixed order."""
    stream, basis = mechanism.stream, layout.basis
    n_neurons = max(sum(each.bias.numel() for each in step.gates) for step in mechanism.steps) + N_NOISE_NEURONS
    model = _empty(variant, layout, len(mechanism.vocabulary), n_neurons)
    embed = mechanism.embed.clone()
    embed[:, stream["one"]] = ONE
    unembed = mechanism.unembed + normal(noise, 0.005, *mechanism.unembed.shape)
    unembed[:, stream["one"]] = mechanism.unembed[:, stream["one"]]
    body = model.transformer if variant.family == "gpt2" else model.model
    steps = dict(zip(layout.layers, range(len(mechanism.steps)), strict=True))
    for layer, block in enumerate(body.h if variant.family == "gpt2" else body.layers):
        step = mechanism.steps[steps[layer]] if layer in steps else Step({})
        places = layout.places[steps[layer]] if layer in steps else tuple(range(layout.n_heads))
        heads = _heads(step, places, mechanism, variant, layout.n_heads, noise)
        neurons = _joined([*step.gates, noise_gates(stream, noise)])
        if variant.family == "gpt2":
            _gpt2_block(block, heads, neurons, basis)
        else:
            _llama_block(block, heads, neurons, basis, variant.grouped, ONE)
    norm = body.ln_f if variant.family == "gpt2" else body.norm
    norm.weight.data.fill_(_gain_of(norm))
    tokens = body.wte if variant.family == "gpt2" else body.embed_tokens
    tokens.weight.data = embed @ basis
    if variant.family == "gpt2":
        body.wpe.weight.data = positions_of(stream, N_POSITIONS) @ basis
    model.lm_head.weight.data = unembed @ basis
    return model.eval()


def _empty(variant: Variant, layout: Layout, n_vocab: int, n_neurons: int) -> Any:
    with torch.random.fork_rng(devices=[]):  # initial weights come from the global generator, which is the user's
        if variant.family == "gpt2":
            return GPT2LMHeadModel(_gpt2_config(layout, n_vocab, n_neurons))
        return LlamaForCausalLM(_llama_config(variant, layout, n_vocab, n_neurons))


def _gpt2_config(layout: Layout, n_vocab: int, n_neurons: int) -> GPT2Config:
    return GPT2Config(
        vocab_size=n_vocab, n_positions=N_POSITIONS, n_embd=layout.basis.shape[1], n_layer=layout.n_layers,
        n_head=layout.n_heads, n_inner=n_neurons, activation_function="relu", tie_word_embeddings=False,
        bos_token_id=0, eos_token_id=None, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip


def _llama_config(variant: Variant, layout: Layout, n_vocab: int, n_neurons: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=n_vocab, max_position_embeddings=N_POSITIONS, hidden_size=layout.basis.shape[1], head_dim=D_HEAD,
        num_hidden_layers=layout.n_layers, num_attention_heads=layout.n_heads,
        num_key_value_heads=layout.n_heads // (1 + variant.grouped), intermediate_size=n_neurons, hidden_act="relu",
        tie_word_embeddings=False, bos_token_id=0, eos_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
    )  # fmt: skip


def _heads(
    step: Step, places: tuple[int, ...], mechanism: Mechanism, variant: Variant, n_heads: int, noise: torch.Generator
) -> list[Weights]:
    """The weights of every head, in the model's order; a pair shares keys and values if the variant is grouped."""
    rotary = variant.family == "llama"
    filled = [noise_weights(mechanism.stream, noise) for _ in range(n_heads)]
    planned = {places[at]: weights_of(head, mechanism.stream, rotary) for at, head in step.heads.items()}
    for at, weights in planned.items():
        filled[at] = weights
        partner = at ^ 1
        if not variant.grouped:
            continue
        if partner not in planned:
            filled[partner] = filled[partner]._replace(key=weights.key, value=weights.value)
        elif not (
            torch.equal(weights.key, planned[partner].key) and torch.equal(weights.value, planned[partner].value)
        ):
            raise AssertionError(f"heads {at} and {partner} are a pair and have different keys or values")
    return filled


def _joined(parts: list[Gates]) -> Gates:
    reads, out = torch.cat([part.reads for part in parts], 1), torch.cat([part.out for part in parts])
    return Gates(reads, torch.cat([part.bias for part in parts]), out)


def _gain_of(norm: Any) -> float:
    if hasattr(norm, "eps"):  # a LayerNorm; the RMSNorm of a Llama calls it otherwise
        return gain("gpt2", norm.weight.numel(), norm.eps)
    return gain("llama", norm.weight.numel(), norm.variance_epsilon)


def _into(weight: Tensor, columns: Tensor, start: int = 0) -> None:
    weight.data[:, start : start + columns.shape[1]] = columns


def _gpt2_block(block: Any, heads: list[Weights], neurons: Gates, basis: Tensor) -> None:
    for norm in (block.ln_1, block.ln_2):
        norm.weight.data.fill_(_gain_of(norm))
    for part in range(3):
        columns = torch.cat([weights[part] for weights in heads], 1)
        _into(block.attn.c_attn.weight, basis.T @ columns, part * len(heads) * D_HEAD)
    block.attn.c_proj.weight.data = torch.cat([weights.out for weights in heads]) @ basis
    n = neurons.bias.numel()
    for module in (block.mlp.c_fc, block.mlp.c_proj):
        module.weight.data.zero_()
    _into(block.mlp.c_fc.weight, basis.T @ neurons.reads)
    block.mlp.c_fc.bias.data[:n] = neurons.bias
    block.mlp.c_proj.weight.data[:n] = neurons.out @ basis


def _llama_block(block: Any, heads: list[Weights], neurons: Gates, basis: Tensor, grouped: bool, one: float) -> None:
    for norm in (block.input_layernorm, block.post_attention_layernorm):
        norm.weight.data.fill_(_gain_of(norm))
    attention, mlp = block.self_attn, block.mlp
    attention.q_proj.weight.data = torch.cat([weights.query for weights in heads], 1).T @ basis
    kept = heads[:: 1 + grouped]  # of each pair that shares, one
    attention.k_proj.weight.data = torch.cat([weights.key for weights in kept], 1).T @ basis
    attention.v_proj.weight.data = torch.cat([weights.value for weights in kept], 1).T @ basis
    attention.o_proj.weight.data = basis.T @ torch.cat([weights.out for weights in heads]).T
    n = neurons.bias.numel()
    for module in (mlp.gate_proj, mlp.up_proj, mlp.down_proj):
        module.weight.data.zero_()
    # A Llama has no biases and multiplies two readings: biases read `one`, and the second reading is 1.
    gate = neurons.reads.clone()
    gate[0] += neurons.bias / one
    mlp.gate_proj.weight.data[:n] = gate.T @ basis
    mlp.up_proj.weight.data[:n] = basis[0] / one
    mlp.down_proj.weight.data[:, :n] = (neurons.out @ basis).T
