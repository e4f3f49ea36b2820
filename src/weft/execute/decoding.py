"""Generations decoded together: their prompts in one pass, then one token of every row of every run in each pass.

    prompts      packed tokens of all runs, equal ones once; their keys and values go into memory of each row's own
    step t       the rows that have not ended, one token each; what a run reads and writes of a site are its own rows

Values go through the experiment's dataflow step by step, as the reference delivers them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch

from weft.errors import ExecutionError, JobCancelledError
from weft.execute.keys import Keys
from weft.execute.packed import Arguments, Packed
from weft.execute.passing import Chain, Passing
from weft.execute.prompts import Prompts, prompts
from weft.execute.reference import Interpreter
from weft.execute.rollouts import Rollout
from weft.execute.sampling import choose
from weft.ir.nodes import Site
from weft.models.attention import How
from weft.models.hooks import installed
from weft.plan.forks import IN_LAYER

LOGITS, FINAL_NORM = Site("logits"), Site("final_norm")
Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor, How], torch.Tensor]


class Decoding:
    """Some generations of one experiment, side by side. `slots` are the rows under way: (generation, row)."""

    def __init__(self, owner: Interpreter, runs: tuple[int, ...]) -> None:
        self.owner, self.packed = owner, Packed(owner.loaded)
        self.layers = len(self.packed.layers)
        self.rollouts = [Rollout(owner, run) for run in runs]
        self.slots = [(each, row) for each in self.rollouts for row in range(each.batch)]
        self.steps = max(each.steps for each in self.rollouts)
        self.step = 0
        self.chains: dict[Site, list[Chain]] = {}
        self.inner: frozenset[Site] = frozenset()
        self.hooks = ExitStack()

    def run(self) -> None:
        """All steps of all of them."""
        work = self.owner.work
        work["runs"] += len(self.rollouts)
        with torch.no_grad(), self.packed.open(), self.hooks:
            logits, keys = self._prompts()
            while tokens := self._choose(logits, keys):
                keys.step()
                positions = [len(each.rows[row]) + self.step - 1 for each, row in self.slots]
                hidden = self._layers(torch.tensor(tokens), torch.tensor(positions), keys.attend)
                work["rows"] += len(tokens)
                logits = self._end(hidden, None)
                self.owner.progress(self.step / self.steps, f"step {self.step} of {self.steps}")

    def _prompts(self) -> tuple[torch.Tensor, Keys]:
        """The prompts' own pass: the logits at the end of each row, and the rows' keys and values."""
        found = prompts([each.rows[row] for each, row in self.slots], [each.first[row] for each, row in self.slots])
        for slot, ((each, row), stretch) in enumerate(zip(self.slots, found.of, strict=True)):
            each.put(row, stretch.places(), slot)
        longest = max(len(each.rows[row]) for each, row in self.slots)
        source = torch.stack([_right(each.places[row], longest) for each, row in self.slots])
        keys = Keys(source, self.steps - 1)
        hidden = self._layers(*found.tokens(), self._attend_prompts(found, keys))
        self.owner.work["rows"] += len(found.all)
        return self._end(hidden, source[:, -1]), keys

    def _attend_prompts(self, found: Prompts, keys: Keys) -> Attend:
        groups = found.groups()

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, how: How) -> torch.Tensor:
            keys.fill(layer, k, v)
            return found.attend(groups, layer, q, k, v, how)

        return attend

    # -- one pass ---

    def _layers(self, ids: torch.Tensor, positions: torch.Tensor, attend: Attend) -> torch.Tensor:
        """The packed tokens through all layers, as this step's runs read and write them: [1, token, d_model]."""
        device, packed, work = self.owner.loaded.device, self.packed, self.owner.work
        self._expect()
        arguments = self._arguments(ids.to(device), positions.to(device))
        packed.attend = self._looked_into(attend)
        hidden = self._through(Site("embed"), arguments.hidden)
        for layer in range(self.layers):
            if self.owner.cancelled():
                raise JobCancelledError("the job was cancelled while it ran")
            hidden = packed.layer(layer, hidden, *arguments.at(layer, None))
            hidden = self._through(Site("resid_post", layer), hidden)
        work["passes"] += 1
        work["layer_tokens_asked"] += self.layers * sum(each.asked(self.step) for each in self.rollouts)
        work["layer_tokens_done"] += self.layers * len(ids)
        work["flops"] = work.get("flops", 0) + 2 * len(ids) * sum(packed.weights)
        return hidden

    def _expect(self) -> None:
        """What this step's runs read, by site."""
        self.chains = {}
        for each in self.rollouts:
            if each.active():
                for site, reads in each.reads(self.step).items():
                    self.chains.setdefault(site, []).append(Chain(each, reads))

    def _arguments(self, ids: torch.Tensor, positions: torch.Tensor) -> Arguments:
        """What the layers are called with; and hooks for what lies within them.

        To see their arguments the layers are called without being run, which hooks at the layers themselves must not see.
        """
        if any(site.path for site in self.inner):
            self._hook(frozenset())
        arguments = self.packed.arguments(ids, positions)
        self._hook(frozenset(site for site in self.chains if site.name in IN_LAYER or site.path))
        return arguments

    def _hook(self, sites: frozenset[Site]) -> None:
        """Have these sites offered, and no others."""
        if sites == self.inner:
            return
        self.hooks.close()
        self.inner = sites
        if sites:
            loaded, offers = self.owner.loaded, (self._offer, self._raw)
            self.hooks.enter_context(installed(loaded.module, loaded.family, loaded.sizes, set(sites), *offers))

    def _looked_into(self, attend: Attend) -> Attend:
        """Attention whose queries and keys are offered on the way in."""

        def looked(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, how: How) -> torch.Tensor:
            q, k = (
                self._through(site, x.transpose(1, 2)).transpose(1, 2) if site in self.chains else x
                for site, x in ((Site("q_rot", layer), q), (Site("k_rot", layer), k))
            )
            return attend(layer, q, k, v, how)

        return looked

    def _raw(self, path: str, name: str, call: int, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Offer what a module takes or gives. What gives one tensor here may be known to give several ("0", "1")."""
        changed: dict[str, torch.Tensor] = {}
        for item, value in tensors.items():
            known = (item, "0") if len(tensors) == 1 and not item else (item,)
            for site in (Site(name, None, path, call, each) for each in known):
                if site in self.chains:  # a copy: the module may write into its own input
                    new = self._offer(site, value.clone())
                    changed |= {} if new is None else {item: new}
        return changed

    def _through(self, site: Site, value: torch.Tensor) -> torch.Tensor:
        changed = self._offer(site, value)
        return value if changed is None else changed

    def _offer(self, site: Site, value: torch.Tensor) -> torch.Tensor | None:
        """Have every run read its own of [1, token, …], and give back what they made of it."""
        chains = self.chains.get(site)
        if chains is None:
            return None
        changed = self._pass_by(site, chains, Passing(value[0], self.step))
        return None if changed is None else changed[None]

    def _pass_by(self, site: Site, chains: list[Chain], passing: Passing) -> torch.Tensor | None:
        while chains:
            before = sum(each.done for each in chains)
            left = [each for each in chains if not each.go(passing)]
            if len(left) == len(chains) and before == sum(each.done for each in chains):
                runs = "these generations wait" if len(left) > 1 else "this generation waits"
                raise ExecutionError(f"{site}, step {self.step}: {runs} for a value that comes later")
            chains = left
        return passing.changed

    def _end(self, hidden: torch.Tensor, last: torch.Tensor | None) -> torch.Tensor:
        """Final norm and logits of each slot; `last` says where in the packed tokens it is (None: in order)."""
        whole = last is not None and any(
            read.step == 0
            for site in (FINAL_NORM, LOGITS)
            for each in self.chains.get(site, [])
            for _, read in each.reads
        )
        if last is not None and not whole:
            hidden = hidden.index_select(1, last.to(hidden.device))
        normed = self.packed.final_norm(hidden)
        if FINAL_NORM in self.chains:
            passing = Passing(normed[0], self.step, by_slot=last is not None and not whole)
            changed = self._pass_by(FINAL_NORM, self.chains[FINAL_NORM], passing)
            normed = normed if changed is None else changed[None]
        ends = normed[0] if not whole or last is None else normed[0].index_select(0, last.to(normed.device))
        logits = self.packed.logits(ends)
        self.owner.work["flops"] += 2 * ends.shape[0] * ends.shape[1] * logits.shape[-1]
        if LOGITS in self.chains:
            passing = Passing(logits, self.step, by_slot=True, normed=normed[0], unembed=self.packed.logits)
            changed = self._pass_by(LOGITS, self.chains[LOGITS], passing)
            logits = logits if changed is None else changed
        return logits

    # -- new tokens ---

    def _choose(self, logits: torch.Tensor, keys: Keys) -> list[int]:
        """Each slot's new token, and the tokens of those that go on."""
        chosen = logits.argmax(-1).tolist()
        for each in self.rollouts:
            if each.options["temperature"] and (rows := each.active()):
                slots = each.slots[rows]
                options = [each.options[name] for name in ("temperature", "top_p", "seed")]
                found = choose(logits.index_select(0, slots.to(logits.device)), rows, self.step, *options)
                for slot, token in zip(slots.tolist(), found.tolist(), strict=True):
                    chosen[slot] = token
        for (each, row), token in zip(self.slots, chosen, strict=True):
            each.take(row, token)
        self.step += 1
        return self._go_on(chosen, keys)

    def _go_on(self, chosen: list[int], keys: Keys) -> list[int]:
        """Let go of rows that have ended, and tell what ended with them."""
        kept = [slot for slot, (each, row) in enumerate(self.slots) if not each.over[row] and self.step < each.steps]
        if len(kept) == len(self.slots):
            return chosen
        order = keys.keep(kept)
        self.slots = [self.slots[slot] for slot in order]
        for each in self.rollouts:
            each.slots.fill_(-1)
        for slot, (each, row) in enumerate(self.slots):
            each.slots[row] = slot
        going = {id(each) for each, _ in self.slots}
        ended = [each for each in self.rollouts if id(each) not in going]
        self.rollouts = [each for each in self.rollouts if id(each) in going]
        for each in ended:
            each.finish()
        return [chosen[slot] for slot in order]


def _right(places: torch.Tensor, columns: int) -> torch.Tensor:
    """A row's places with -1 before them, as many as there are columns."""
    return (
        torch.nn.functional.pad(places, (columns - len(places), 0), value=-1)
        if len(places) <= columns
        else places[-columns:]
    )
