"""From which layer on can one read whether the last word is an animal? Activations to disk, a linear probe on each layer."""

import sys
import tempfile

import torch

import weft

ANIMALS = "cat dog bird fish horse mouse cow lion".split()
THINGS = "book key box ball apple bread milk tea".split()
PROMPTS = [f"{who} saw the {what}" for who in ("Alice", "Bob", "Mary", "John") for what in ANIMALS + THINGS]
IS_ANIMAL = torch.tensor([1.0 if prompt.split()[-1] in ANIMALS else -1.0 for prompt in PROMPTS]).double()
RIDGE = 1.0


def probe(found, site):
    """A ridge regression on batches of the collection, however large that is: weights [d_model + 1], the bias last."""
    xx, xy = 0, 0
    for batch in found.dataset(site, batch_size=16, labels=True):
        x, y = with_one(batch[site]), IS_ANIMAL[batch["prompt"]]
        xx, xy = xx + x.T @ x, xy + x.T @ y
    return torch.linalg.solve(xx + RIDGE * torch.eye(len(xx)).double(), xy)


def with_one(x):
    return torch.cat([x.double(), torch.ones(len(x), 1).double()], 1)


def run(model):
    """Each layer's probe, and the share of prompts that it is right about."""
    with tempfile.TemporaryDirectory() as folder:
        found = model.collect(PROMPTS, "resid_post", at=-1, to=folder)
        probes = torch.stack([probe(found, site) for site in found.sites])
        said = torch.stack([with_one(found.read(site)) @ w for site, w in zip(found.sites, probes, strict=True)])
    return {"probes": probes, "right": (said.sign() == IS_ANIMAL[found.prompt_of]).double().mean(1)}


if __name__ == "__main__":
    print(run(weft.connect(sys.argv[1]).model("induction") if sys.argv[1:] else weft.load("induction"))["right"])
