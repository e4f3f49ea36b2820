"""From the user's code to a program: sessions, runs, sites and traced tensors."""

from weft.trace.gradients import grad
from weft.trace.metrics import cross_entropy, kl, log_prob, logit_diff, prob, score
from weft.trace.model import Model
from weft.trace.tensor import Traced

__all__ = ["Model", "Traced", "cross_entropy", "grad", "kl", "log_prob", "logit_diff", "prob", "score"]
