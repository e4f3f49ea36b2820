"""Which heads carry the name? Every head's z patched from the clean into the corrupted run, as in the IOI work."""

import sys

import torch

import weft

CLEAN = ["When Mary gave John a book, Mary gave", "When Alice saw Bob with a dog, Alice saw"]
CORRUPT = ["When Mary gave Carol a book, Mary gave", "When Alice saw David with a dog, Alice saw"]
RIGHT, WRONG = [" John", " Bob"], [" Carol", " David"]


def run(model):
    """The share of the clean logit difference that each head brings back: "grid" [layer, head]."""
    with model.session() as s:
        clean, corrupt = s.run(CLEAN), s.run(CORRUPT)
        top = weft.logit_diff(clean.logits[:, -1], RIGHT, WRONG).mean()
        bottom = weft.logit_diff(corrupt.logits[:, -1], RIGHT, WRONG).mean()
        grid = torch.zeros(model.n_layers, model.n_heads)
        for layer in range(model.n_layers):
            for head in range(model.n_heads):
                patched = corrupt.fork()
                patched.z[layer][:, -1, head] = clean.z[layer][:, -1, head]
                diff = weft.logit_diff(patched.logits[:, -1], RIGHT, WRONG).mean()
                grid[layer, head] = (diff - bottom) / (top - bottom)
        grid.save("grid")
    return s.results


if __name__ == "__main__":
    model = weft.connect(sys.argv[1]).model("induction") if sys.argv[1:] else weft.load("induction")
    print(run(model)["grid"])
