"""Experts once more, token by token and expert by expert, written from the models' own equations and not from weft's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

F = torch.nn.functional
Routing = Callable[[torch.Tensor, Any, Any], torch.Tensor]
"""`weights(logits of one token, configuration, router)`: the weight of each expert, 0 where it is not chosen."""


def _kept(values: torch.Tensor, chosen: list[int]) -> torch.Tensor:
    kept = torch.zeros_like(values)
    kept[chosen] = values[chosen]
    return kept


def _best(values: torch.Tensor, count: int) -> list[int]:
    return sorted(range(len(values)), key=lambda at: -float(values[at]))[:count]


def shares(logits: torch.Tensor, config: Any, _: Any) -> torch.Tensor:
    """Softmax over all experts, the best kept; made to sum to one where the configuration says so."""
    kept = _kept(logits.softmax(0), _best(logits, config.num_experts_per_tok))
    return kept / kept.sum() if getattr(config, "norm_topk_prob", True) else kept


def among_chosen(logits: torch.Tensor, config: Any, _: Any) -> torch.Tensor:
    """The best, and a softmax over them alone: the same as `shares` where those sum to one."""
    chosen = _best(logits, config.num_experts_per_tok)
    only = torch.full_like(logits, float("-inf"))
    only[chosen] = logits[chosen]
    return only.softmax(0)


def mixed(logits: torch.Tensor, config: Any, _: Any) -> torch.Tensor:
    """Phi-3.5-MoE: the best, then the best of the others, each weighed against those not much worse than it."""
    left, found = logits.clone(), torch.zeros_like(logits)
    for _ in range(2):
        top = int(left.argmax())
        near = (logits - left[top]).abs() / torch.maximum(logits.abs(), left[top]) <= 2 * config.router_jitter_noise
        near |= logits > left[top]
        if bool(left.isneginf().any()):
            near &= ~left.isneginf()
        among = left.masked_fill(~near, float("-inf"))
        found[top] = among.softmax(0)[top]
        left[top] = float("-inf")
    return found


def corrected(logits: torch.Tensor, config: Any, router: Any) -> torch.Tensor:
    """Ernie 4.5: a bias has its say in the choice, not in the weights."""
    all_weights = logits.softmax(0)
    bias = router.moe_statics.e_score_correction_bias.squeeze()
    kept = _kept(all_weights, _best(all_weights + bias, config.moe_k))
    return kept / kept.sum()


def grouped(logits: torch.Tensor, config: Any, router: Any) -> torch.Tensor:
    """DeepSeek V3: sigmoids; a biased choice, within the groups whose two best are best; then scaled."""
    all_weights = logits.sigmoid()
    scores = all_weights + router.e_score_correction_bias
    groups = scores.view(config.n_group, -1)
    best = _best(torch.stack([each.sort().values[-2:].sum() for each in groups]), config.topk_group)
    allowed = torch.zeros_like(groups, dtype=torch.bool)
    allowed[best] = True
    kept = _kept(all_weights, _best(scores.masked_fill(~allowed.view(-1), float("-inf")), config.num_experts_per_tok))
    return (kept / kept.sum() if config.norm_topk_prob else kept) * config.routed_scaling_factor


def best_of_groups(logits: torch.Tensor, config: Any, _: Any) -> torch.Tensor:
    """DeepSeek V2: a softmax over all; the best, within the groups whose one best is best; then scaled, not summed to one."""
    groups = logits.softmax(0).view(config.n_group, -1)
    best = _best(groups.max(1).values, config.topk_group)
    allowed = torch.zeros_like(groups)
    allowed[best] = 1.0
    left = (groups * allowed).view(-1)
    return _kept(left, _best(left, config.num_experts_per_tok)) * config.routed_scaling_factor


def block_corrected(logits: torch.Tensor, config: Any, block: Any) -> torch.Tensor:
    """LFM2, MiniMax M2, Afmoe: sigmoids, with a bias in the choice that the block keeps."""
    all_weights = logits.sigmoid()
    bias = block.expert_bias if hasattr(block, "expert_bias") else block.e_score_correction_bias
    kept = _kept(all_weights, _best(all_weights + bias, config.num_experts_per_tok))
    scale = getattr(config, "routed_scaling_factor", getattr(config, "route_scale", 1.0))
    return kept / (kept.sum() + (1e-6 if config.model_type == "lfm2_moe" else 0.0)) * scale


def each_alone(logits: torch.Tensor, config: Any, _: Any) -> torch.Tensor:
    """Llama 4: the best, each with its own sigmoid."""
    return _kept(logits.sigmoid(), _best(logits, config.num_experts_per_tok))


def gated(experts: Any, expert: int, x: torch.Tensor) -> torch.Tensor:
    """What one expert makes of one token: gate and neurons are the halves of one projection."""
    width = experts.gate_up_proj.shape[1] // 2
    gate = experts.gate_up_proj[expert, :width] @ x
    up = experts.gate_up_proj[expert, width:] @ x
    return experts.down_proj[expert] @ (F.silu(gate) * up)


def clamped(experts: Any, expert: int, x: torch.Tensor) -> torch.Tensor:
    """gpt-oss: gate and neurons lie in turns, stored [in, out], with biases; both are kept within limits."""
    both = x @ experts.gate_up_proj[expert] + experts.gate_up_proj_bias[expert]
    gate, up = both[0::2].clamp(max=7.0), both[1::2].clamp(-7.0, 7.0)
    neurons = (up + 1) * gate * torch.sigmoid(1.702 * gate)
    return neurons @ experts.down_proj[expert] + experts.down_proj_bias[expert]


def before(experts: Any, expert: int, x: torch.Tensor) -> torch.Tensor:
    """Llama 4's experts, stored [in, out]. They are given the token times its weight."""
    gate, up = (x @ experts.gate_up_proj[expert]).chunk(2)
    return (up * F.silu(gate)) @ experts.down_proj[expert]


ROUTING: dict[str, Routing] = {
    **dict.fromkeys(("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "flex_olmo", "hunyuan_v1_moe"), shares),
    **dict.fromkeys(("qwen3_next", "qwen3_5_moe_text", "mellum", "minimax"), shares),
    **dict.fromkeys(("gpt_oss", "granitemoe", "granitemoeshared"), among_chosen),
    **dict.fromkeys(("glm4_moe", "dots1", "deepseek_v3", "glm4_moe_lite", "solar_open", "exaone_moe"), grouped),
    **dict.fromkeys(("lfm2_moe", "minimax_m2", "afmoe"), block_corrected),
    "deepseek_v2": best_of_groups,
    "llama4_text": each_alone,
    "ernie4_5_moe": corrected,
    "phimoe": mixed,
}


def weights(kind: str, logits: torch.Tensor, config: Any, router: Any) -> torch.Tensor:
    """[batch, pos, expert], of logits of that shape."""
    rows = [ROUTING[kind](each, config, router) for each in logits.flatten(0, 1)]
    return torch.stack(rows).view(logits.shape)


def outs(kind: str, x: torch.Tensor, weight: torch.Tensor, experts: Any) -> torch.Tensor:
    """[batch, pos, expert, d_model]: what each chosen expert makes of each token, weighted."""
    one = {"gpt_oss": clamped, "llama4_text": before}.get(kind, gated)
    found = torch.zeros(*weight.shape, x.shape[-1], dtype=x.dtype)
    for row, pos, expert in weight.nonzero().tolist():
        times, token = weight[row, pos, expert], x[row, pos]
        found[row, pos, expert] = (
            one(experts, expert, times * token) if one is before else times * one(experts, expert, token)
        )
    return found


def shared(sites: Any, path: str, x: torch.Tensor) -> torch.Tensor | float:
    """What experts that every token goes to add, where there are any."""
    block = sites.loaded.module.get_submodule(path)
    if hasattr(block, "shared_expert_gate"):
        return block.shared_expert_gate(x).sigmoid() * block.shared_expert(x)
    names = ("shared_experts", "shared_expert", "shared_mlp")
    each = next((getattr(at, name) for at in (block, sites.layer) for name in names if hasattr(at, name)), None)
    return 0.0 if each is None else each(x)
