"""Which combinations are held out: the same ones for everybody, everywhere, without a list.

held_out("capital", "France")                          # True for about a fifth of all combinations
"""

from __future__ import annotations

import hashlib

SHARE = 0.2


def held_out(*combination: str, share: float = SHARE) -> bool:
    """Whether words are kept from being seen together in training; decided by their text alone."""
    digest = hashlib.sha256("\0".join(combination).encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
