"""The methods of the field, one file a method, written with the public `weft` alone.

found = weft.methods.activation_patching(model, clean, corrupt, answers=" Paris", others=" Rome")
found["effect"], found.plot(), found.to_dataframe(), found.save("grid.safetensors")
weft.methods.load("grid.safetensors")
"""

from __future__ import annotations

# Imported here and not when asked for: a module's own import would otherwise put the module where the function is looked for.
from weft.methods.activation_patching import Patching, activation_patching
from weft.methods.files import load
from weft.methods.filter_heads import FilterHeads, filter_heads
from weft.methods.filtering.predicate import Predicate
from weft.methods.function_vector import FunctionVector, function_vector, universal
from weft.methods.functions.steering import Steering
from weft.methods.induction_heads import InductionHeads, induction_heads
from weft.methods.reproduce import Reproduction, reproduce
from weft.methods.result import Result

__all__ = [
    "FilterHeads", "FunctionVector", "InductionHeads", "Patching", "Predicate", "Reproduction", "Result", "Steering",
    "activation_patching", "filter_heads", "function_vector", "induction_heads", "load", "reproduce", "universal",
]  # fmt: skip
