"""A model's atlas: what it can do, which mechanisms do it, and what was left out, as one page.

    from weft.atlas import atlas

    found = atlas(weft.load("bobbin"), "bobbin-atlas")     # the same again goes on where it was stopped
    found.report                                           # one HTML file with figures, tables and the results themselves
    found["functions/plural"]["accuracy"]                  # every part is a method's result
    found.skipped                                          # {"predicates": "it is right in 0.31 of …"}

On the command line: `weft atlas bobbin --out bobbin-atlas`.
"""

from __future__ import annotations

from weft.atlas.run import Atlas, Settings, atlas

__all__ = ["Atlas", "Settings", "atlas"]
