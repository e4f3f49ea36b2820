"""Models: loading, families as tables, sites by equation, tokens."""

from weft.models.hooks import tapped
from weft.models.inspecting import inspect
from weft.models.load import load, register_builtin
from weft.models.loaded import Loaded
from weft.models.registry import register, unregister
from weft.models.tokens import Tokens

__all__ = ["Loaded", "Tokens", "inspect", "load", "register", "register_builtin", "tapped", "unregister"]
