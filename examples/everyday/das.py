"""Distributed alignment search: which plane of the stream carries the colour asked for, learned by exchanging it."""

import sys

import torch

import weft

TOLD = "A red cat and a green bird and a black fish and a"
BASE = [f"{TOLD} {colour}" for colour in ("red", "green", "black")]
SOURCE = [BASE[1], BASE[2], BASE[0]]
ANSWERS = torch.tensor([1, 2, 0])  # the source's colour decides which animal is said
LAYER, ANIMALS = 1, [" cat", " bird", " fish"]


def run(model, steps=30):
    """The plane [d_model, 2], the loss of each step, and how often its exchange makes the model say the source's animal."""
    words = torch.tensor([model.tokens.single(word) for word in ANIMALS])
    plane = torch.linalg.qr(torch.randn(model.d_model, 2, generator=torch.Generator().manual_seed(0))).Q

    def loss(s, batch):
        source, base = s.run(batch["source"]), s.run(batch["base"])
        here = base.resid_post[LAYER][:, -1]
        there = source.resid_post[LAYER][:, -1]
        base.resid_post[LAYER][:, -1] = here + (there - here) @ plane @ plane.T
        said = base.logits[:, -1][:, words]
        right = (said.argmax(-1) == batch["answer"]).float().mean()
        return torch.nn.functional.cross_entropy(said, batch["answer"]), {"right": right}

    data = {"base": BASE, "source": SOURCE, "answer": ANSWERS}
    options = {"optimizer": "sgd", "momentum": 0.9, "lr": 0.1, "project": "orthogonal"}
    fit = model.fit(loss, {"plane": plane}, data, steps=steps, **options)
    return {"plane": plane, "loss": fit.loss, "right": fit.metrics["right"]}


if __name__ == "__main__":
    results = run(weft.connect(sys.argv[1]).model("induction") if sys.argv[1:] else weft.load("induction"), steps=200)
    print(results["loss"][[0, -1]], results["right"][[0, -1]])
