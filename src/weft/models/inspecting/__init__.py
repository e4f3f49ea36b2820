"""What a model's table of facts would be, found by running it and changing what its modules give."""

from weft.models.inspecting.proposal import Proposal
from weft.models.inspecting.propose import inspect

__all__ = ["Proposal", "inspect"]
