"""The function that a prompt's examples show: which head carries it, and what its vector does without examples.

python examples/functions.py FOLDER [URL]      # figures and the result go to FOLDER; URL: a server that has planted/functions
"""

import sys
from pathlib import Path

import weft
from weft.planted.functions import FUNCTIONS


def run(model):
    """The vector of "three words on in the circle", with what it is to be held against."""
    form = ("Q: ", "\nA:", "\n\n")
    return weft.methods.function_vector(
        model,
        FUNCTIONS["third"],
        shots=6,
        form=form,
        templates=[("Q: ", "\nA:", "\n")],
        held_out=0,
        n_means=16,
        n_effects=16,
    )


def steered(model, found, word):
    """What the model says of a word with the vector in it, and no example."""
    with found.steer(model).session() as s:
        g = s.generate(f"Q: {word}\nA:", max_new_tokens=1)
    return g.text[0]


def draw(found, folder):
    folder.mkdir(parents=True, exist_ok=True)
    grid = weft.plot.heatmap(found["aie"], title="Average indirect effect of each head", mark=found.heads[0])
    grid.png(folder / "functions-aie.png", dpi=100)
    found.plot("curve").write_html(folder / "functions-curve.html", include_plotlyjs=True)
    found.save(folder / "functions.safetensors")


if __name__ == "__main__":
    folder, *url = sys.argv[1:]
    name = "planted/functions"
    model = weft.connect(url[0]).model(name) if url else weft.load(name)
    found = run(model)
    draw(found, Path(folder))
    print(found, found["accuracy"].to_pandas().round(2), sep="\n")
    print("red →", steered(model, found, "red"))
