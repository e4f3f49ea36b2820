"""Papers as data: what they ran, and the figures they give, each with how far it was checked.

from weft.methods.papers import PAPERS
paper = PAPERS["filter-heads"]
paper.settings, paper.figures, paper.differs           # weft.methods.reproduce("filter-heads") runs them
"""

from __future__ import annotations

from weft.methods.papers.filter_heads import FILTER_HEADS
from weft.methods.papers.form import Figure, Paper, Setting, Weights
from weft.methods.papers.function_vectors import FUNCTION_VECTORS

PAPERS: dict[str, Paper] = {paper.name: paper for paper in (FUNCTION_VECTORS, FILTER_HEADS)}
"""By the name that `weft reproduce NAME` takes."""

__all__ = ["PAPERS", "Figure", "Paper", "Setting", "Weights"]
