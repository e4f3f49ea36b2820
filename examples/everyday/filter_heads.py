"""A predicate carried to other lists: a head's query at "?", patched from prompts where "?" is somewhere else."""

import sys

import weft

SOURCE = ["Paris, cat, bread. Where is the city?", "one, dog, new milk, Rome. Where is the city?"]
TARGET = ["When he said: horse, tea, London, box. Where is the apple?", "cow, Oslo. Where is the bird?"]
WANTED = [" London", " Oslo"]
LAYER, HEAD = 1, 2


def run(model):
    """Where the head looks from "?" in the target prompts, before and after, and how much more at what was asked for."""
    with model.session() as s:
        source, target = s.run(SOURCE), s.run(TARGET)
        patched = target.fork()
        here, there = target.at("?"), source.at("?")  # one position a row
        patched.q[LAYER][patched.rows, here, HEAD] = source.q[LAYER][source.rows, there, HEAD]

        before = target.pattern[LAYER][target.rows, HEAD, here]
        after = patched.pattern[LAYER][patched.rows, HEAD, here]
        wanted = target.at(WANTED)
        (after - before)[target.rows, wanted].save("more attention")
        after.save("pattern")
        (patched.logits - target.logits)[:, -1].save("logits moved by")
    return s.results


if __name__ == "__main__":
    results = run(weft.connect(sys.argv[1]).model("induction") if sys.argv[1:] else weft.load("induction"))
    print(results["more attention"], results["logits moved by"].norm(dim=-1))
