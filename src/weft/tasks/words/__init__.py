"""The words that the tasks are made of, all written for weft: English by category, relations, three invented languages."""
