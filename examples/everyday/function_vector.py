"""A function vector: what the heads that do a task say on average, added where the task is not shown."""

import sys

import torch

import weft

SHOWN = ["A red cat and a red", "A green bird and a green", "A black fish and a black"]
SHUFFLED = ["A red cat and a blue", "A green bird and a white", "A black fish and a yellow"]
ANSWERS = [" cat", " bird", " fish"]
ZERO_SHOT, LAYER, TOP = ["The", "Alice saw the old"], 1, 3


def run(model):
    """Every head's effect [layer, head], the vector of the best ones, and what it does to prompts without a task."""
    heads = [(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
    with model.session() as s:
        shown, shuffled = s.run(SHOWN), s.run(SHUFFLED)
        mean = shown.z[:][:, :, -1].mean(1)  # [layer, head, d_head]
        base = weft.prob(shuffled.logits[:, -1], ANSWERS)
        effect = torch.zeros(model.n_layers, model.n_heads)
        for layer, head in heads:
            patched = shuffled.fork()
            patched.z[layer][:, -1, head] = mean[layer, head]
            effect[layer, head] = (weft.prob(patched.logits[:, -1], ANSWERS) - base).mean()

        said = torch.stack([mean[layer, head] @ model.W_O[layer][head] for layer, head in heads])
        vector = said[effect.flatten().topk(TOP).indices].sum(0).save("vector")

        plain, steered = s.run(ZERO_SHOT), s.run(ZERO_SHOT)
        steered.resid_post[LAYER][:, -1] += vector
        weft.kl(steered.logits[:, -1], plain.logits[:, -1]).save("kl")
        effect.save("effect")
    return s.results


if __name__ == "__main__":
    results = run(weft.connect(sys.argv[1]).model("induction") if sys.argv[1:] else weft.load("induction"))
    print(results["effect"], results["kl"])
