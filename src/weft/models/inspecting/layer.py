"""What a layer adds to the stream, and by which modules: found in layer 0, by solving for it and by changing it."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch

from weft.errors import ModelError
from weft.models.inspecting.watch import Seen, Watch, same

Facts = dict[str, Any]


class Layer:
    """Layer 0 of a model, as a plain run showed it."""

    def __init__(self, watch: Watch, seen: Seen, stack: str) -> None:
        self.watch, self.seen, self.path = watch, seen, f"{stack}.0"
        post = seen.gave(self.path)
        assert post is not None
        self.post = post
        pre = seen.took(self.path, post.shape)
        assert pre is not None
        self.pre = pre
        self.inside = [path for path in seen.given if path.startswith(f"{self.path}.")]
        self.linears = {path: kind for path in self.inside if (kind := watch.linear(seen, path)) is not None}

    def short(self, path: str) -> str:
        return path.removeprefix(f"{self.path}.")

    def stream(self, value: torch.Tensor | None) -> torch.Tensor | None:
        """A value as [batch, pos, d_model], also where it is of tokens one after another; None where it is neither."""
        if value is None or not value.is_floating_point() or value.numel() != self.pre.numel():
            return None
        flat = value.dim() == 2 and value.shape[-1] == self.pre.shape[-1]
        return value.view(self.pre.shape) if flat else value if value.shape == self.pre.shape else None

    def gave(self, path: str) -> torch.Tensor | None:
        return self.stream(self.seen.gave(path))

    def took(self, path: str) -> torch.Tensor | None:
        found = [self.stream(each) for each in self.seen.taken.get(path, ())]
        return next((each for each in found if each is not None), None)

    def changed(self, changes: dict[str, Any]) -> Seen:
        """The layer again with what modules of it give changed."""
        return self.watch.run(changes, until=self.path)

    # -- what is added to the stream ---

    def sublayers(self) -> tuple[list[str], list[str], float]:
        """The modules whose output attention adds, those whose output the MLP adds, and what both are multiplied by."""
        groups = self._groups()
        want = (self.post - self.pre).double().flatten()
        found: list[tuple[tuple[float, float], list[str], list[str]]] = []
        for one, other in combinations(groups, 2):
            left, right = (self.gave(group[0]) for group in (one, other))
            assert left is not None and right is not None
            both = torch.stack([left.double().flatten(), right.double().flatten()], 1)
            solved = torch.linalg.lstsq(both, want[:, None]).solution[:, 0]
            if same(both @ solved, want) and float(solved.abs().min()) > 1e-3:
                found.append(((float(solved[0]), float(solved[1])), one, other))
        found = [each for each in found if abs(each[0][0] - each[0][1]) < 1e-3 * abs(each[0][0])]
        if not found:
            raise ModelError(self._no_sum(groups))
        (times, _), one, other = min(found, key=lambda each: abs(each[0][0] - 1.0))
        mixes = self._mixing(one), self._mixing(other)
        if mixes == (False, True) and self._moves(one, other):
            raise ModelError(
                f"in {self.path} the MLP ({one[0]}) comes before attention ({other[0]}); weft's sites are for the other order"
            )
        if True not in mixes:
            raise ModelError(
                f"in {self.path} neither {one[0]} nor {other[0]} mixes positions, so there is no attention in it"
            )
        first, second = (one, other) if mixes[0] else (other, one)
        return first, second, 1.0 if abs(times - 1.0) < 1e-4 else round(times, 6)

    def _groups(self) -> list[list[str]]:
        """Modules that give a stream, those that give the same together; none that give the layer's own streams."""
        groups: list[list[str]] = []
        for path in self.inside:
            value = self.gave(path)
            if value is None or same(value, self.pre) or same(value, self.post):
                continue
            like = next((group for group in groups if same(self.gave(group[0]), value)), None)
            groups.append([path]) if like is None else like.append(path)
        return groups

    def _no_sum(self, groups: list[list[str]]) -> str:
        added = (self.post - self.pre).double()
        for group in groups:
            value = self.gave(group[0])
            if same(value, added):
                return (
                    f"layer 0 ({self.path}) adds the output of one module, {min(group, key=len)}, and no second: it is no "
                    "layer of attention and MLP (a state space model?). Its modules are there by path: run.module(path)"
                )
        return (
            f"what layer 0 ({self.path}) gives is not what it takes plus what two of its modules give, so attn_out and "
            "mlp_out are not there (a norm of the stream itself, after the sum?). Its modules are there: "
            "run.module(path)"
        )

    def _mixing(self, group: list[str]) -> bool:
        """Whether another first token moves what these give at later positions, where the stream that enters is the same."""
        ids = self.watch.ids.clone()
        ids[:, 0] = (ids[:, 0] + 1) % 2
        other = self.stream(self.watch.run(until=self.path, ids=ids).gave(group[0]))
        before = self.gave(group[0])
        assert other is not None and before is not None
        return not same(other[:, 1:], before[:, 1:])

    def _moves(self, one: list[str], other: list[str]) -> bool:
        """Whether what the first gives moves what the second gives."""
        changed = self.changed({one[0]: lambda x: 0.5 * x})
        return not same(self.stream(changed.gave(other[0])), self.gave(other[0]))

    def parallel(self, attention: list[str], mlp: list[str]) -> bool:
        """Whether the MLP does not see what attention adds."""
        return not self._moves(attention, mlp)

    # -- who projects, and who reads through which norm ---

    def projection(self, group: list[str]) -> tuple[str, str]:
        """The last projection behind an addend, and "" or the module after it (a norm) whose output is added."""
        own = [path for path in group if path in self.linears]
        if own:
            return own[0], ""
        for path in group:
            into = self.took(path)
            before = [each for each in self.linears if into is not None and same(self.gave(each), into)]
            if before:
                return before[0], path
        return "", ""

    def norm_of(self, reads: torch.Tensor | None, stream: torch.Tensor) -> str | None:
        """The module through which `stream` is read as `reads`: "" where it is read as it is, None where nothing is found."""
        reads = self.stream(reads)
        if same(reads, stream):
            return ""
        found = [path for path in self.inside if same(self.gave(path), reads) and same(self.took(path), stream)]
        return self.short(found[0]) if found else None

    def common(self, paths: list[str]) -> str:
        """The least module that has them all within, "" where that is the layer itself."""
        steps = [self.short(path).split(".")[:-1] for path in paths]
        shared: list[str] = []
        for step in zip(*steps, strict=False):
            if len(set(step)) > 1:
                break
            shared.append(step[0])
        while shared and f"{self.path}.{'.'.join(shared)}" not in self.seen.given:
            shared.pop()  # a list or dict of modules is called by nobody
        return ".".join(shared)
