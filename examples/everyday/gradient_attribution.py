"""Attribution patching: every head's effect at once, to first order, from one gradient instead of a run for each."""

import sys

import torch

import weft

CLEAN = "The Eiffel Tower is in Paris. The Eiffel Tower is in"
CORRUPT = "The Eiffel Tower is in Rome. The Eiffel Tower is in"


def run(model):
    """(clean − corrupted) · gradient, summed over positions: "attribution" [layer, head]."""
    with model.session() as s:
        clean, corrupt = s.run(CLEAN), s.run(CORRUPT)
        metric = weft.logit_diff(corrupt.logits[:, -1], " Paris", " Rome").mean()
        gradients = weft.grad(metric, corrupt.z)  # one of each layer's z
        change = clean.z[:] - corrupt.z[:]  # [layer, batch, pos, head, d_head]
        (change * torch.stack(gradients)).sum((1, 2, 4)).save("attribution")
        metric.save("metric")
    return s.results


if __name__ == "__main__":
    model = weft.connect(sys.argv[1]).model("induction") if sys.argv[1:] else weft.load("induction")
    print(run(model))
