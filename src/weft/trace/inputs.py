"""What a run may be given, and what a generation may be told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from weft.errors import ProgramError, TokenError, WeftError
from weft.models.tokens import encode_ids
from weft.trace.location import where

if TYPE_CHECKING:
    from weft.trace.model import Model


def prompt_inputs(model: Model, prompts: Any, inputs: dict[str, torch.Tensor]) -> tuple[str, dict[str, torch.Tensor]]:
    """The kind of a run and its constants by name."""
    if prompts is None:
        return _tensors(model, inputs)
    if inputs:
        raise ProgramError("give prompts or keyword tensors, not both", where=where())
    card = model.card
    if card.kind != "decoder":
        raise ProgramError(
            "this model is no language model: give its tensors by keyword, s.run(name=tensor)", where=where()
        )
    ids, start = _tokens(model, prompts)
    limit = card.max_positions
    if limit and ids.shape[1] > limit:
        raise TokenError(f"the longest prompt has {ids.shape[1]} tokens; this model takes {limit}", where=where())
    low, top = (int(each) for each in torch.aminmax(ids)) if ids.numel() else (0, 0)
    vocabulary = card.sizes["d_vocab"]
    if top >= vocabulary or low < 0:
        raise TokenError(
            f"token ids go from 0 to {vocabulary - 1}; given {top if top >= vocabulary else low}", where=where()
        )
    found = {"tokens": ids}
    if start is not None and bool((start > 0).any()):
        found["start"] = start
    return "tokens", found


def _tokens(model: Model, prompts: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Token ids, and where each row begins (None: every row is whole)."""
    if isinstance(prompts, torch.Tensor):
        ids = getattr(prompts, "numbers", None) if hasattr(prompts, "_st") else prompts
        if ids is None:
            raise TokenError("a run's tokens must be known when it is written; use x.now()", where=where())
        if ids.dtype not in (torch.int64, torch.int32) or ids.dim() not in (1, 2) or 0 in ids.shape:
            raise TokenError(
                f"token ids are a LongTensor [batch, pos] with at least one of each, not {ids.dtype} {tuple(ids.shape)}",
                where=where(),
            )
        return (ids[None] if ids.dim() == 1 else ids).to(torch.long, copy=True), None
    vocabulary = model.card.sizes["d_vocab"]
    try:
        return encode_ids(prompts, vocabulary) if model.tokens is None else model.tokens.encode(prompts, vocabulary)
    except WeftError as error:
        raise error.at(where()) from None


def _tensors(model: Model, inputs: dict[str, torch.Tensor]) -> tuple[str, dict[str, torch.Tensor]]:
    if not inputs:
        raise ProgramError("a run needs prompts, or a model's tensors by keyword", where=where())
    found: dict[str, torch.Tensor] = {}
    for name, value in inputs.items():
        tensor = getattr(value, "numbers", None) if hasattr(value, "_st") else value
        if not isinstance(tensor, torch.Tensor):
            raise ProgramError(f"{name} must be a tensor whose numbers are known here, not {value!r}", where=where())
        found[name] = tensor
    return "tensors", found


def generation_options(model: Model, max_new_tokens: int, given: dict[str, Any]) -> dict[str, Any]:
    """The options of a generation, checked; `stop` as texts and tuples of token ids."""
    known = {"temperature": 0.0, "top_p": 1.0, "seed": 0, "stop": ()}
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ProgramError(
            f"generate has no option {unknown[0]!r}; it has max_new_tokens, {', '.join(known)}", where=where()
        )
    options = {**known, **given}
    if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise ProgramError(f"max_new_tokens is a whole number of at least 1, not {max_new_tokens!r}", where=where())
    if options["temperature"] < 0 or not 0 < options["top_p"] <= 1:
        raise ProgramError("temperature is at least 0, and top_p above 0 and at most 1", where=where())
    return {
        "max_new_tokens": max_new_tokens,
        "temperature": float(options["temperature"]),
        "top_p": float(options["top_p"]),
        "seed": int(options["seed"]),
        "stop": _stops(model, options["stop"]),
    }


def _stops(model: Model, given: Any) -> tuple[str | tuple[int, ...], ...]:
    """Texts stay texts: which tokens a text is depends on what stands before it."""
    items: list[Any] = [given] if isinstance(given, str | int) else list(given or ())
    found: list[str | tuple[int, ...]] = []
    for item in items:
        if isinstance(item, int):
            found.append((item,))
        elif isinstance(item, str):
            if model.tokens is None:
                raise TokenError("this model has no tokenizer: give stop as token ids", where=where())
            found.append(item)
        else:
            found.append(tuple(int(token) for token in item))
    if not all(found):
        raise ProgramError("an empty stop would end every row at once; give some text or token ids", where=where())
    return tuple(found)
