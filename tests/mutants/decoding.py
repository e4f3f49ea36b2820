# ruff: noqa: E501 (source as it stands)
"""Faults of generations that are decoded side by side."""

from __future__ import annotations

from tests.mutants.table import Mutant

DECODING = [
    Mutant("each edits shared prompts", "execute/rollouts.py",
           "min(at, len(row) - 1) for at, row", "min(at, len(row)) for at, row",
           "an edit at each step goes into keys that unedited generations on that prompt attend to", ("several generations", "edit at each")),
    Mutant("ended rows keep their place", "execute/keys.py",
           "return [moved.get(row, row) for row in range(count)]", "return rows",
           "rows are taken for others once one has ended", ("several generations", "generation")),
    Mutant("keys left where a row has ended", "execute/keys.py",
           "held[holes, :, : self.filled] = held[movers, :, : self.filled]", "pass",
           "a row goes on with the keys of one that has ended", ("several generations", "generation")),
    Mutant("shorter prompts see beyond their beginning", "execute/keys.py",
           "seen = places >= 0", "seen = places >= -1",
           "a short row attends to what stands before it", ("ragged", "several generations")),
    Mutant("new tokens one position early", "execute/decoding.py",
           "len(each.rows[row]) + self.step - 1", "len(each.rows[row]) + max(self.step - 2, 0)",
           "later tokens have the position of the one before", ("generation",)),
    Mutant("a later step counts as in time", "plan/generations.py",
           "need.place <= need.written", "need.place >= need.written",
           "a generation steps with one whose value comes too late", ("from a generation into a generation",), (165,)),
    Mutant("draws of one row for all", "execute/decoding.py",
           "choose(logits.index_select(0, slots.to(logits.device)), rows,", "choose(logits.index_select(0, slots.to(logits.device)), [0] * len(rows),",
           "rows draw the same numbers", ("sampled generation",)),
    Mutant("hooks see layers called for their arguments", "execute/decoding.py",
           "if any(site.path for site in self.inner):", "if False:",
           "a whole layer read by its path gives what enters the model", (), (), ("tests/cpu/test_decoding.py::test_whole_layers_by_their_paths",)),
]  # fmt: skip
