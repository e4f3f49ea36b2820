"""Steering in generation: a difference of means added to the stream, less at each step."""

import sys

import weft

GLAD = ["The red cat likes the new ball", "Alice likes the sun", "The dog likes bread and milk"]
SAD = ["The red cat lives with the old box", "Alice lives with the moon", "The dog lives with salt and tea"]
PROMPTS = ["The Eiffel Tower is in Paris. The Eiffel", "red cat, green dog, red"]
LAYER, SCHEDULE = 1, [8.0, 6.0, 4.0, 2.0, 0.0, 0.0]  # the strength at each new token


def run(model):
    """The new tokens with and without steering, and the stream at the last step."""
    with model.session() as s:
        glad, sad = s.run(GLAD).resid_post[LAYER][:, -1], s.run(SAD).resid_post[LAYER][:, -1]
        vector = (glad.mean(0) - sad.mean(0)).save("vector")

        plain = s.generate(PROMPTS, max_new_tokens=len(SCHEDULE))
        steered = s.generate(PROMPTS, max_new_tokens=len(SCHEDULE))
        for step, strength in enumerate(SCHEDULE):
            steered.step(step).resid_post[LAYER][:, -1] += strength * vector

        plain.tokens.save("plain")
        steered.tokens.save("steered")
        steered.step(len(SCHEDULE) - 1).logits[:, -1].save("last logits")
    return s.results


if __name__ == "__main__":
    model = weft.connect(sys.argv[1]).model("induction") if sys.argv[1:] else weft.load("induction")
    results = run(model)
    for name in ("plain", "steered"):
        print(name, [model.tokens.decode(row) for row in results[name]])
