"""The parts of `weft bench atlas`: what the methods are asked, and the same by a loop of plain hooks."""
