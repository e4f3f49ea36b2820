"""An experiment, or many people's at once, compiled to the least work that gives the same numbers."""
