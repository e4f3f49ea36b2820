"""Tiny random checkpoints read by weft, plain hooks, nnsight and TransformerLens, and who is right where they differ."""
