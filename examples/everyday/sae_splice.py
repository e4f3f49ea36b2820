"""A sparse autoencoder spliced into the stream, its error term kept, so that one feature can be taken out."""

import sys

import torch

import weft

PROMPTS = ["The Eiffel Tower is in Paris. The Eiffel Tower is in", "A red cat and a red"]
LAYER = 1


class SAE(torch.nn.Module):  # untrained here; load yours
    def __init__(self, width, features=64):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.decoder = torch.nn.Parameter(torch.randn(features, width, generator=generator) / width**0.5)
        self.bias = torch.nn.Parameter(torch.zeros(width))

    def forward(self, x):
        return torch.relu((x - self.bias) @ self.decoder.T)


def run(model):
    """What taking out each prompt's strongest feature at its last token does to the logits."""
    sae = SAE(model.d_model)
    with model.session() as s:
        base, spliced = s.run(PROMPTS), s.run(PROMPTS)
        x = spliced.resid_post[LAYER]
        features = sae(x)
        error = x - (features @ sae.decoder + sae.bias)  # what the SAE misses stays as it is
        strongest = features[:, -1].argmax(-1).save("strongest feature")
        features[spliced.rows, -1, strongest] = 0
        spliced.resid_post[LAYER] = features @ sae.decoder + sae.bias + error
        (spliced.logits - base.logits)[:, -1].save("effect")
    return s.results


if __name__ == "__main__":
    print(run(weft.connect(sys.argv[1]).model("induction") if sys.argv[1:] else weft.load("induction")))
