"""The parts of `weft.methods.reproduce`: runs kept by part, each paper's plan, rows, and what is missing."""
