"""The parts of `weft.methods.filter_heads`: pairs, patches, the mask, localisers, controls, predicates."""
