"""Small faults put into weft on purpose: the generated experiments must notice every one of them.

    make mutants        or: python -m tests.mutants [--only NAME …] [--jobs 2]

`table` lists them; `__main__` applies each to a copy of the source, runs drawn experiments there, and tells which survive.
"""
