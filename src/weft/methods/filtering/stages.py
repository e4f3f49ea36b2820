"""The parts of `filter_heads`, one after the other; each adds arrays, or the reason why it has none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import weft
from weft.methods.filtering import carrying, finding, testing
from weft.methods.filtering.state import State

_PARTS: dict[str, tuple[str, Callable[[State], None]]] = {
    "grid": ("", finding.every_head_alone),
    "attention": ("", finding.attention),
    "mask": ("", finding.mask),
    "sets": ("", testing.sets_of_heads),
    "same_answer": ("heads", testing.same_answer),
    "necessity": ("heads", testing.necessity),
    "looks": ("heads", testing.looks),
    "question_first": ("", testing.question_first),
    "predicates": ("heads", carrying.read_out),
    "probe": ("predicates", carrying.probe),
    "union": ("predicates", carrying.union),
    "transfer": ("predicates", carrying.transfer),
    "subspace": ("heads", testing.subspace),
}
PARTS: tuple[str, ...] = tuple(_PARTS)


def run_parts(state: State, parts: Sequence[str]) -> None:
    """One part after the other; Ctrl-C ends it with what there is."""
    for part in parts:
        needs, work = _PARTS[part]
        if needs == "heads" and not state.heads:
            state.left_out[part] = "no head was kept by the mask" if "mask" in parts else 'it needs the part "mask"'
            continue
        if needs == "predicates" and not state.given:
            state.left_out[part] = state.left_out.get("predicates", 'it needs the part "predicates"')
            continue
        try:
            work(state)
        except KeyboardInterrupt:
            if not state.arrays:
                raise
            state.bench.stopped = f"in {part}"
        if state.bench.stopped:
            rest = parts[list(parts).index(part) + 1 :]
            state.bench.stopped += f"; left out: {', '.join(rest)}" if rest else ""
            return


def parts_of(asked: Iterable[str]) -> list[str]:
    """The parts asked for, in their order; ProgramError names one that there is not."""
    asked = [asked] if isinstance(asked, str) else list(asked)
    unknown = [part for part in asked if part not in _PARTS]
    if unknown or not asked:
        raise weft.errors.ProgramError(
            f"no part {', '.join(map(repr, unknown)) or 'asked for'}; there are {', '.join(PARTS)}"
        )
    return [part for part in PARTS if part in asked]
