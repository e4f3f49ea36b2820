"""A model as the user sees it, wherever its weights are.

with model.session() as s: …            an experiment of several runs
with model.trace("…") as run: …         an experiment of one
model.n_layers, model.sites(), model.support("pattern")
model.unembed(x), model.W_O[3], model.module("transformer.ln_f")(x)
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from weft.errors import ModelError, OpError, ShapeError, SiteError, WeftError
from weft.ir.card import Card
from weft.ir.nodes import Apply, Param
from weft.ir.types import TensorType
from weft.trace.constants import type_of
from weft.trace.edit import Edit, Template
from weft.trace.kept import KeptValues
from weft.trace.location import where
from weft.trace.session import Session
from weft.trace.tensor import Traced, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from weft.collect import Collection
    from weft.models.tokens import Tokens
    from weft.trace.backend import Backend
    from weft.trace.fitted import Fit
    from weft.trace.run import Run

_LAYERED = (
    "W_Q",
    "W_K",
    "W_V",
    "W_O",
    "W_in",
    "W_gate",
    "W_out",
    "b_Q",
    "b_K",
    "b_V",
    "b_O",
    "b_in",
    "b_gate",
    "b_out",
)
_PLAIN = ("W_U", "W_E", "W_pos", "b_U")


class Model:
    """A model: its sites, its weights by name, and sessions in which experiments are written."""

    def __init__(self, backend: Backend, edits: tuple[Edit, ...] = ()) -> None:
        self.backend = backend
        self.edits = edits
        self._local = threading.local()

    # -- sessions ---

    def session(self, plan: str = "auto", wait: bool = True, fresh: bool = False, run: bool = True) -> Session:
        """A block in which an experiment is written; it runs when the block ends.

        `plan="reference"` runs it the slow, obvious way. `wait=False` submits it to the server and goes on (`s.job.id`).
        `fresh=True` has the server run it again though it has its record. `run=False` only writes it: it is in `s.experiment`,
        checked as it was written, and `s.explain()` says what running it would take.
        """
        if plan not in ("auto", "reference"):
            raise ModelError(f'a plan is "auto" or "reference", not {plan!r}', where=where())
        if not (wait or run):
            raise ModelError(
                "wait=False submits the experiment and run=False does not run it; give one of them", where=where()
            )
        return Session(self, plan, wait, fresh, run)

    def trace(self, prompts: Any = None, *, plan: str = "auto", **inputs: torch.Tensor) -> AbstractContextManager[Run]:
        """A session of one run: `with model.trace("…") as run:`."""
        return _OneRun(self.session(plan=plan), prompts, inputs)

    @contextmanager
    def edit(self) -> Iterator[EditedModel]:
        """Standing edits: what is written to the sites of the model this gives is done in each of its runs.

        with model.edit() as steered:
            steered.resid_post[3][:, -1] += vector
        with steered.trace("…") as run: …
        """
        template = Template(self)
        edited = EditedModel(self.backend, self.edits, template)
        with template:
            yield edited
        edited.close(template.finish())

    def collect(
        self,
        prompts: Any,
        sites: Any,
        at: Any = None,
        to: Any = None,
        dtype: Any = None,
        *,
        column: str = "text",
        budget: int = 500_000_000,
        progress: bool = True,
    ) -> Collection:
        """Write activations of any number of prompts to the folder `to`; gives them as a `weft.Collection`.

        model.collect(Path("prompts.txt"), "resid_post", at=-1, to="activations", dtype="float16")

        `prompts`: texts, token ids, chats, an iterator of these, a text file as a Path (a prompt a line), or a data set
        (its `column`). `sites`: names such as "resid_post[3]"; "resid_post" is every layer. `at`: None for every position,
        a position or several (from the prompt's own start, or from its end), a text, whose last token is meant, or a
        function (number, ids) -> positions. `budget` is bytes of memory above the model. Memory does not grow with the
        number of prompts. A collection that was interrupted goes on where it stopped when it is called again.
        """
        from weft.collect import collect

        return collect(self, prompts, sites, at, to, dtype, column=column, budget=budget, progress=progress)

    def fit(
        self,
        loss: Callable[[Any, Any], Any],
        params: Any,
        data: Any = None,
        *,
        steps: int,
        lr: Any,
        optimizer: Any = "adam",
        batch_size: int | None = None,
        shuffle: bool = False,
        seed: int = 0,
        project: Any = None,
        on_metrics: Callable[[dict[str, float]], None] | None = None,
        checkpoint: str | Path | None = None,
        resume: Any = None,
        plan: str = "auto",
        fresh: bool = False,
        **options: Any,
    ) -> Fit:
        """Train tensors and modules of yours through the model: one experiment, run where the model is.

        def loss(s, batch):
            run = s.run(batch["tokens"])
            run.z[3][:] *= torch.sigmoid(mask)[:, None]
            return -weft.log_prob(run.logits[:, -1], batch["answer"]).mean()

        fit = model.fit(loss, mask, {"tokens": tokens, "answer": answers}, steps=200, lr=0.1, batch_size=16)

        `loss(session, batch)` is traced once; it returns one number, or it and a dict of metrics. `params`: a tensor, a
        module, or a dict or list of them; they hold what was learned afterwards. `data`: columns of rows (tensors or
        prompts) of which each step takes the next `batch_size` (`shuffle`: drawn from `seed`), or an iterable of
        batches, or nothing. `optimizer` is "adam", "adamw" or "sgd" with torch's own options: betas, eps,
        weight_decay, amsgrad; momentum, dampening, nesterov. `lr` may be a dict by parameter.
        More options: schedule ("linear", "cosine", "exponential" with gamma), warmup; clip_norm, clip_value; every (steps
        between two rows of history); below, patience, min_delta (to end early). `project`: "orthogonal", "unit",
        ("clamp", low, high) or a function, for all or by name, applied after each step. `on_metrics` is told each row as it
        comes. `checkpoint`: a file that always holds what is learned so far; `resume` takes it, or a Fit, and goes on.
        Ctrl-C, or cancelling its job, ends it after a step and keeps what was learned.
        """
        from weft.trace.fit import fit

        return fit(
            self, loss, params, data, steps=steps, lr=lr, optimizer=optimizer, batch_size=batch_size, shuffle=shuffle,
            seed=seed, project=project, on_metrics=on_metrics, checkpoint=checkpoint, resume=resume, plan=plan,
            fresh=fresh, **options,
        )  # fmt: skip

    @property
    def kept(self) -> KeptValues:
        """What `x.keep(name)` left where the model is: used in later sessions, listed, fetched and freed by name."""
        return KeptValues(self)

    @property
    def sessions(self) -> list[Session]:
        """The sessions open on this model in this thread, innermost last."""
        if not hasattr(self._local, "sessions"):
            self._local.sessions = []
        return self._local.sessions

    def apply_edits(self, target: Any) -> None:
        """Put the standing edits of this model into a new run or generation."""
        for edit in self.edits:
            edit.replay(target)

    # -- about the model ---

    @property
    def card(self) -> Card:
        """Everything about the model that is not its weights."""
        return self.backend.card

    @property
    def tokens(self) -> Tokens | None:
        """The tokenizer (`encode`, `decode`, `single`, `find`), or None."""
        return self.backend.tokens

    def card_for(self, inputs: dict[str, torch.Tensor]) -> Card:
        """The card that holds for a run of these inputs; of tokens a language model's own."""
        if "tokens" in inputs and self.card.kind == "decoder":
            return self.card
        try:
            with torch._C.DisableTorchFunction():  # of the types alone: a raw module's card is made under torch.device
                types = {name: type_of(tensor) for name, tensor in inputs.items()}
            return self.backend.card_for(types, inputs)
        except WeftError as error:
            raise error.at(where()) from None

    def sites(self) -> list[str]:
        """The names of the model's sites, in the order in which they are computed."""
        return list(dict.fromkeys(spec.site.name for spec in self.card.sites if not spec.site.path))

    def support(self, site: str) -> str:
        """ "" if the model has that site, else the reason why it has not."""
        if site in self.sites() or site == "resid_pre":
            return ""
        return self.card.absent.get(site, f"{site} is no site that weft knows; there are {', '.join(self.sites())}")

    def axes(self, site: str) -> tuple[str, ...]:
        """The names of a site's axes: `axes("z")` is ("batch", "pos", "head", "d_head"). SiteError if there is none."""
        return self._specs(site)[0].axes

    def layers(self, site: str) -> tuple[int, ...]:
        """The layers that have a site, () if it is not a site of layers. SiteError if there is none."""
        return tuple(spec.site.layer for spec in self._specs(site) if spec.site.layer is not None)

    def _specs(self, site: str) -> list[Any]:
        name = "resid_post" if site == "resid_pre" else site
        found = [spec for spec in self.card.sites if spec.site.name == name and not spec.site.path]
        if not found:
            raise SiteError(f"{self.card.name} has no site {site!r}: {self.support(site)}", where=where())
        return found

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}={size}" for name, size in self.card.sizes.items())
        return f"<{type(self).__name__} {self.card.name} ({self.card.family or self.card.kind}): {sizes}>"

    # -- parts ---

    def unembed(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [..., vocab] of a value [..., d_model] that has been through the final norm."""
        return self._apply("unembed", x)

    def final_norm(self, x: torch.Tensor) -> torch.Tensor:
        """The model's last normalisation, of a value [..., d_model]."""
        return self._apply("final_norm", x)

    def module(self, path: str) -> Any:
        """A module of the model, to be applied to a value: `model.module("transformer.h.0.mlp")(x)`."""
        return lambda x: self._apply(f"module({path})", x)

    def param(self, path: str) -> torch.Tensor:
        """Any weight by its own path, e.g. `model.param("transformer.wte.weight")`."""
        return self._param(f"param({path})")

    def __getattr__(self, name: str) -> Any:
        if name in _PLAIN:
            return self._param(name)
        if name in _LAYERED:
            return LayeredParam(self, name)
        if not name.startswith("_") and name in self.card.sizes:
            return self.card.sizes[name]
        raise AttributeError(
            f"a model has no {name!r}; it has sizes ({', '.join(self.card.sizes)}), sites (in a run), "
            f"weights ({', '.join(_PLAIN + _LAYERED)})"
        )

    def _param(self, name: str) -> torch.Tensor:
        if name not in self.card.params:
            known = ", ".join(list(self.card.params)[:6])
            raise SiteError(f"this model has no weight {name}; it has {known}, …", where=where())
        if self.sessions:
            return self.sessions[-1].parameter(Param(name), self.card.params[name])
        return self.backend.param(name)

    def _apply(self, part: str, x: torch.Tensor) -> torch.Tensor:
        spec = self.card.by_part.get(part)
        if spec is None:
            raise OpError(
                f"{part} is no part of this model that can be applied to a value; there are "
                f"{', '.join(list(self.card.by_part)[:6])} …",
                where=where(),
            )
        if not isinstance(x, torch.Tensor) or x.dim() == 0 or x.shape[-1] != spec.d_in:
            given = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
            raise ShapeError(f"{part} takes a value whose last axis is {spec.d_in} long, not {given}", where=where())
        open_session = self.sessions[-1] if self.sessions else None
        if isinstance(x, Traced) and not x._st.owner.done:
            open_session = x._st.owner
        if open_session is None:
            return self.backend.apply(part, resolve(x) if isinstance(x, Traced) else x)
        ref = (
            x.ref
            if isinstance(x, Traced) and not x._st.owner.done
            else open_session.graph.constant(resolve(x) if isinstance(x, Traced) else x)
        )
        return open_session.parameter(Apply(part, ref), TensorType(spec.dtype, (*x.shape[:-1], spec.d_out)))


class _OneRun:
    """A session whose block is given the one run that it has."""

    def __init__(self, session: Session, prompts: Any, inputs: dict[str, torch.Tensor]) -> None:
        self._session, self._prompts, self._inputs = session, prompts, inputs

    def __enter__(self) -> Run:
        self._session.__enter__()
        try:
            return self._session.run(self._prompts, **self._inputs)
        except BaseException as error:
            self._session.__exit__(type(error), error, error.__traceback__)
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._session.__exit__(kind, error, trace)


class LayeredParam:
    """A weight that each layer has: `model.W_O[3]` is [head, d_head, d_model]."""

    def __init__(self, model: Model, name: str) -> None:
        self._model, self._name = model, name

    def __getitem__(self, layer: int) -> torch.Tensor:
        count = self._model.card.sizes["n_layers"]
        if not -count <= layer < count:
            raise SiteError(f"{self._name}[{layer}]: this model has layers 0 to {count - 1}", where=where())
        return self._model._param(f"{self._name}[{layer % count}]")

    def __len__(self) -> int:
        return self._model.card.sizes["n_layers"]

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (self[layer] for layer in range(len(self)))


class EditedModel(Model):
    """A model with standing edits. Inside its block its sites are written like a run's; after it, it is a model."""

    def __init__(self, backend: Backend, edits: tuple[Edit, ...], template: Template | None) -> None:
        super().__init__(backend, edits)
        object.__setattr__(self, "_template", template)

    def close(self, edit: Edit) -> None:
        object.__setattr__(self, "_template", None)
        object.__setattr__(self, "edits", (*self.edits, edit))

    def __getattr__(self, name: str) -> Any:
        template = self.__dict__.get("_template")
        if template is not None and not name.startswith("_") and template.has(name):
            return getattr(template.run, name)
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        template = self.__dict__.get("_template")
        if template is not None and template.has(name):
            setattr(template.run, name, value)
        else:
            object.__setattr__(self, name, value)

    def __getitem__(self, name: str) -> Any:
        return self.__dict__["_template"].run[name]

    def module(self, path: str) -> Any:
        template = self.__dict__.get("_template")
        return super().module(path) if template is None else template.run.module(path)


__all__ = ["Edit", "EditedModel", "Model"]
