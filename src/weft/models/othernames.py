"""What other tools call things: TransformerLens's hooks and nnterp's names, as sites, as modules of a table, or refused."""

from __future__ import annotations

IN_BLOCK = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "attn.hook_q": "q",
    "attn.hook_k": "k",
    "attn.hook_v": "v",
    "attn.hook_rot_q": "q_rot",
    "attn.hook_rot_k": "k_rot",
    "attn.hook_attn_scores": "scores",
    "attn.hook_pattern": "pattern",
    "attn.hook_z": "z",
    "attn.hook_result": "head_out",
    "mlp.hook_pre": "mlp_pre",
    "mlp.hook_post": "mlp_post",
}
# In any family, the modules whose input or output is the very quantity of a hook: `{norm2}` is the table's own path.
MODULES: dict[str, tuple[str, str]] = {
    "hook_mlp_in": ("norm2", "input"),
    "ln1.hook_normalized": ("norm1", "output"),
    "ln2.hook_normalized": ("norm2", "output"),
    "ln1.hook_in": ("norm1", "input"),
    "ln1.hook_out": ("norm1", "output"),
    "ln2.hook_in": ("norm2", "input"),
    "ln2.hook_out": ("norm2", "output"),
    "attn.hook_in": ("attn", "input"),
    "attn.hook_out": ("attn", "output"),
    "mlp.hook_in": ("mlp", "input"),
    "mlp.hook_out": ("mlp", "output"),
}
WHOLE = {"ln_final.hook_normalized": "final_norm", "ln_final.hook_out": "final_norm", "unembed.hook_out": "logits"}
EMBEDS = frozenset(
    "gpt2 gpt_bigcode gpt_neo opt llama qwen3 olmo2 phi3 arcee starcoder2 gpt_neox mixtral gpt_oss qwen3_moe olmoe".split()
)
"""Families whose embedding's output is a row of W_E: nothing is multiplied or normed between it and the stream."""
OTHERS = {
    "layers_input": ("resid_pre", ""),
    "layers_output": ("resid_post", ""),
    "attentions_input": ("attn", "input"),
    "attentions_output": ("attn", "output"),
    "mlps_input": ("mlp", "input"),
    "mlps_output": ("mlp", "output"),
    "attention_probabilities": ("pattern", ""),
}
"""nnterp's names of what each layer has: a site, or the input or output of a module of the table."""
NNTERP_REFUSED = {
    "next_token_probs": "compute it: torch.softmax(run.logits[:, -1], -1)",
    "project_on_vocab": "apply the parts: model.unembed(model.final_norm(x))",
    "routers_output": "it is not the same thing in each family there; see router_logits and expert_weights",
    "router_probabilities": "it is not the same thing in each family there; see router_logits and expert_weights",
    "input_ids": "tokens are not computed: run.tokens",
    "attention_mask": "which positions are real is not computed: run.mask",
}
MODULE_ALIASES = {"self_attn": "attn", "attn": "attn", "attention": "attn", "mlp": "mlp"}
TOP_ALIASES = {"embed_tokens": "embed", "ln_final": "final_norm", "lm_head": "unembed", "norm": "final_norm"}
RMS_REASON = "there it is taken before the norm's gain, which no site here is; final_norm and module(path) are after it"
QK_NORM_REASON = "there it is taken before the norm of q and k, here after it; before it is run.module(path).output"
REFUSED = {
    "hook_pos_embed": "position embeddings have no batch axis here: model.W_pos, or run.module(path).output",
    "hook_scale": "a norm's scale is not a value that passes between modules; compute it from the norm's input",
    "hook_attn_in": "a copy of the stream per head exists only in TransformerLens; see resid_pre, or q, k and v",
    "hook_q_input": "a copy of the stream per head exists only in TransformerLens; see resid_pre, or q",
    "hook_k_input": "a copy of the stream per head exists only in TransformerLens; see resid_pre, or k",
    "hook_v_input": "a copy of the stream per head exists only in TransformerLens; see resid_pre, or v",
    "hook_expert_weights": "there it is [batch · pos, expert] before experts are chosen; see router_logits, expert_weights",
    "hook_expert_indices": "choices are whole numbers; torch.topk of run.router_logits[layer] gives them",
    "hook_tokens": "tokens are not computed: run.tokens",
    "hook_embed": "in this family it is multiplied or normed on its way to layer 0; see embed, or run.module(path).output",
}
