"""Random experiments: drawn from a seed as source text, run by the engine and by the reference, and compared.

    draw(17)                            an Experiment; print(draw(17).source) is what a bug report needs
    compare(draw(17))                   a Verdict: same, skipped (an error in both) or different, with the first difference
    python -m tests.generated 17        prints the source and the verdict; --shrink drops what does not matter

`hooks_oracle` checks the reference itself: the same source on plain tensors, with plain torch hooks.
"""

from tests.generated.compare import Verdict, compare
from tests.generated.draw import FEATURES, draw
from tests.generated.experiment import Experiment

__all__ = ["FEATURES", "Experiment", "Verdict", "compare", "draw"]
