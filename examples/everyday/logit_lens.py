"""What the model would say if it stopped after each layer: the logit lens, on prompts of different lengths."""

import sys

import torch

import weft

PROMPTS = [
    "The Eiffel Tower is in Paris. The Eiffel Tower is in",
    "A red cat and a red",
    "When Mary gave John a book, Mary gave",
]
ANSWERS = [" Paris", " cat", " John"]


def run(model):
    """Log-probability of the answer after each layer [layer, prompt], and the word that leads there."""
    with model.session() as s:
        prompts = s.run(PROMPTS)  # padded on the left: [:, -1] is every prompt's last token
        lens = [model.unembed(model.final_norm(resid[:, -1])) for resid in prompts.resid_post]
        torch.stack([weft.log_prob(logits, ANSWERS) for logits in lens]).save("log-probability")
        torch.stack(lens).argmax(-1).save("leading")
        (lens[-1] - prompts.logits[:, -1]).abs().max().save("last layer against the model")
    return s.results


if __name__ == "__main__":
    model = weft.connect(sys.argv[1]).model("induction") if sys.argv[1:] else weft.load("induction")
    results = run(model)
    for layer, (row, words) in enumerate(zip(results["log-probability"], results["leading"], strict=True)):
        print(layer, [f"{float(x):.2f} {model.tokens.decode([w])!r}" for x, w in zip(row, words, strict=True)])
