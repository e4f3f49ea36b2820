"""Which layers carry the answer to the end? Attention from the last token to it, blocked in a window of layers."""

import sys

import torch

import weft

PROMPTS = [
    "The Eiffel Tower is in Paris. The Eiffel Tower is in",
    "When Mary gave John a book, Mary gave",
    "A red cat and a red",
]
ANSWERS = [" Paris", " John", " cat"]
WINDOW = 2


def run(model):
    """The answer's log-probability lost when each window of layers may not look at it: [window, prompt]."""
    with model.session() as s:
        base = s.run(PROMPTS)
        seen = base.at(ANSWERS)  # where each prompt's own answer stands
        lost = []
        for first in range(model.n_layers - WINDOW + 1):
            blocked = base.fork()
            for layer in range(first, first + WINDOW):
                blocked.scores[layer][base.rows, :, -1, seen] = -torch.inf
            lost.append(weft.log_prob(base.logits[:, -1], ANSWERS) - weft.log_prob(blocked.logits[:, -1], ANSWERS))
        torch.stack(lost).save("lost")
    return s.results


if __name__ == "__main__":
    print(run(weft.connect(sys.argv[1]).model("induction") if sys.argv[1:] else weft.load("induction")))
