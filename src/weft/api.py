"""The front door: a model from here or from a server, with the same interface.

weft.load("induction"), weft.load("a/folder"), weft.load(hf_model, tokenizer=tok)
weft.connect("http://127.0.0.1:7787").model("induction")
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from weft.client import connect as connect_client
from weft.errors import (
    ModelError,
    NotFoundError,
    OpError,
    RefusedError,
    ServiceError,
    SessionError,
    UnreachableError,
    WeftError,
)
from weft.execute import run as execute
from weft.execute.constants import to_tensor
from weft.execute.loops import train
from weft.ir.card import Card
from weft.ir.nodes import ConstantData, Experiment
from weft.ir.outcome import Kept, Outcome
from weft.ir.types import TensorType
from weft.models import Loaded, Tokens
from weft.models import load as load_model
from weft.plan.memory import parsed
from weft.record.build import record_of
from weft.trace.constants import TensorConstant
from weft.trace.location import where
from weft.trace.model import Model

if TYPE_CHECKING:
    from weft.client import Client
    from weft.client.job import Job
    from weft.record import Record
    from weft.trace.backend import Pending


class LocalBackend:
    """Runs experiments on a model in this process."""

    def __init__(self, loaded: Loaded, memory: int | None = None) -> None:
        self.loaded, self.memory = loaded, memory
        self._kept: dict[str, Kept] = {}

    @property
    def card(self) -> Card:
        return self.loaded.card

    @property
    def tokens(self) -> Tokens | None:
        return self.loaded.tokens

    def card_for(self, types: dict[str, TensorType], inputs: dict[str, torch.Tensor] | None = None) -> Card:
        return self.loaded.card_for(types, inputs)

    def run(self, experiment: Experiment, *, plan: str = "auto", fresh: bool = False) -> Outcome:
        self._check_weights()
        outcome = execute(self.loaded, experiment, plan=plan, memory=self.memory)
        if not outcome.kept:
            return outcome
        kept: dict[str, ConstantData] = {name: TensorConstant(tensor) for name, tensor in outcome.kept.items()}
        now = time.time()
        self._kept |= {name: Kept(name, data, now) for name, data in kept.items()}
        return dataclasses.replace(outcome, kept=kept)

    def _check_weights(self) -> None:
        try:
            self.loaded.check_weights()
        except ModelError as error:
            raise error.at(where()) from None

    def preview(self, experiment: Experiment, *, plan: str = "auto") -> str:
        from weft.execute.preview import preview

        return preview(self.loaded, experiment, plan)

    def kept(self) -> list[Kept]:
        return sorted(self._kept.values(), key=lambda each: each.name)

    def fetch(self, data: ConstantData) -> torch.Tensor:
        return to_tensor(data, torch.device("cpu")).clone()

    def free(self, name: str) -> None:
        if self._kept.pop(name, None) is None:
            raise NotFoundError(f"no value is kept as {name!r} with this model", where=where())

    def submit(self, experiment: Experiment, *, fresh: bool = False) -> Any:
        raise SessionError(
            "session(wait=False) hands the experiment to a server; this model is in your own process. "
            "Use weft.connect(url).model(name), or leave wait out",
            where=where(),
        )

    def fit(self, experiment: Experiment, *, plan: str, fresh: bool, watch: Any) -> tuple[Experiment, Outcome]:
        self._check_weights()
        watch.record = lambda done, outcome: record_of(self.loaded, done, outcome)
        with interrupted() as stopped:
            return train(self.loaded, experiment, plan=plan, cancelled=stopped, watch=watch)

    def earlier(self, source: Any) -> tuple[Experiment, Outcome]:
        return read_earlier(source)

    def begin(self, experiment: Experiment) -> Pending:
        return PendingHere(self, experiment)

    def fingerprint(self) -> dict[str, Any]:
        return dict(self.loaded.fingerprint())

    def record(self, experiment: Experiment, outcome: Outcome | None) -> Record:
        assert outcome is not None
        return record_of(self.loaded, experiment, outcome)

    def param(self, name: str) -> torch.Tensor:
        return self.loaded.param(name).detach()

    def apply(self, part: str, value: torch.Tensor) -> torch.Tensor:
        return self.loaded.apply(part, value)


def read_earlier(source: Any) -> tuple[Experiment, Outcome]:
    """What a record, or the file of one, says was run, and what it gave."""
    from weft.record import Record

    record = source if isinstance(source, Record) else Record.load(source)
    values = {name: to_tensor(value, torch.device("cpu")) for name, value in record.results.items()}
    return record.experiment, Outcome(values, record.edits, record.work, record.seconds, record.plan, record=record)


@contextlib.contextmanager
def interrupted() -> Iterator[Callable[[], bool]]:
    """While open, Ctrl-C asks a loop to stop after the step it is in; pressed again, it interrupts as ever."""
    asked: list[bool] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(True)

    signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


class PendingHere:
    """An experiment of this process, run when its values are asked for."""

    def __init__(self, backend: LocalBackend, experiment: Experiment) -> None:
        self.backend, self.experiment = backend, experiment

    def values(self) -> dict[str, torch.Tensor]:
        return dict(self.backend.run(self.experiment).values)

    def cancel(self) -> None:
        """Nothing has been handed to anybody."""

    def forget(self) -> None:
        """Nothing is kept."""


class RemoteBackend:
    """Runs experiments on a server's model. No weights and no hub are needed here: the server's card is enough."""

    def __init__(self, client: Client, name: str) -> None:
        self.client, self.name = client, name
        self.card = client.card(name)
        self.tokens = Tokens(self.card.tokenizer) if self.card.tokenizer else None

    def card_for(self, types: dict[str, TensorType], inputs: dict[str, torch.Tensor] | None = None) -> Card:
        if self.card.kind != "decoder":
            raise ModelError(f"{self.name} is no language model; models of raw modules are run with weft.load for now")
        return self.card

    def run(self, experiment: Experiment, *, plan: str = "auto", fresh: bool = False) -> Outcome:
        job = self.client.submit(self.name, experiment, fresh=fresh, plan=plan).wait()
        record = job.record()
        # The server's file leaves out what the server holds; here is all of it.
        record = dataclasses.replace(record, experiment=experiment)
        values = {name: to_tensor(value, torch.device("cpu")) for name, value in record.results.items()}
        stay = self.client.values(self.name)
        kept = {
            name: stay.constant(TensorType(each["dtype"], tuple(each["shape"])), each["digest"])
            for name, each in record.kept.items()
        }
        return Outcome(values, record.edits, record.work, record.seconds, record.plan, record=record, kept=kept)

    def preview(self, experiment: Experiment, *, plan: str = "auto") -> str:
        raise SessionError(
            "explain() of a session that is not run counts on the model's configuration, which is on the server; open it "
            "here, weft.load(FOLDER, weights=False), or leave run=False out",
            where=where(),
        )

    def kept(self) -> list[Kept]:
        return self.client.values(self.name).kept()

    def fetch(self, data: ConstantData) -> torch.Tensor:
        return to_tensor(data, torch.device("cpu"))

    def free(self, name: str) -> None:
        self.client.values(self.name).free(name)

    def fit(self, experiment: Experiment, *, plan: str, fresh: bool, watch: Any) -> tuple[Experiment, Outcome]:
        job = self.client.submit(self.name, experiment, fresh=fresh, plan=plan)
        watch.fetch = job.partial
        try:
            self._wait(job, watch)
        except UnreachableError as error:
            raise UnreachableError(
                f"{error.message}. Job {job.id} goes on there: call fit again in the same way and it is found again, with "
                "nothing computed twice",
                job=job.id,
            ) from None
        except WeftError as error:
            try:
                record = job.partial()
            except NotFoundError:
                raise error from None
            experiment, outcome = read_earlier(record)
            return experiment, dataclasses.replace(outcome, stopped=error)
        return read_earlier(job.record())

    def _wait(self, job: Job, watch: Any) -> None:
        """Until the job is done; Ctrl-C cancels it, which keeps what it has learned."""
        try:
            job.wait(told=watch.metrics)
        except KeyboardInterrupt:
            with contextlib.suppress(RefusedError):  # it has ended by itself meanwhile
                job.cancel()
            job.wait(told=watch.metrics)

    def earlier(self, source: Any) -> tuple[Experiment, Outcome]:
        return read_earlier(source)

    def begin(self, experiment: Experiment) -> Pending:
        # A job of its own, never one that somebody else may still want the results of.
        return PendingThere(self.client.submit(self.name, experiment, fresh=True))

    def fingerprint(self) -> dict[str, Any]:
        return next(dict(each["fingerprint"]) for each in self.client.models() if each["name"] == self.name)

    def submit(self, experiment: Experiment, *, fresh: bool = False) -> Job:
        return self.client.submit(self.name, experiment, fresh=fresh)

    def record(self, experiment: Experiment, outcome: Outcome | None) -> Record:
        assert outcome is not None
        return outcome.record

    def param(self, name: str) -> torch.Tensor:
        raise OpError(
            f"{name} is on the server; use it inside a session, where it can be multiplied with the model's values",
            where=where(),
        )

    def apply(self, part: str, value: torch.Tensor) -> torch.Tensor:
        with Model(self).session() as session:
            result = session.model._apply(part, value)
            result.save("result")  # type: ignore[attr-defined]
        return session.results["result"]


class PendingThere:
    """A job of a server's whose values are fetched when they are asked for."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def values(self) -> dict[str, torch.Tensor]:
        results = self.job.wait(progress=False).result()
        return {name: to_tensor(value, torch.device("cpu")) for name, value in results.items()}

    def cancel(self) -> None:
        with contextlib.suppress(ServiceError):  # it has ended already, or nobody is there to be told
            self.job.cancel()

    def forget(self) -> None:
        self.job.forget()


class Server:
    """A server: its models, and jobs handed to it earlier, from anywhere."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def __repr__(self) -> str:
        return f"<weft server at {self.client.url}>"

    def models(self) -> list[dict[str, Any]]:
        """The models this server holds."""
        return self.client.models()

    def model(self, name: str) -> Model:
        """A model of the server's, with the interface of a model of your own. NotFoundError names those there are."""
        names = [str(model["name"]) for model in self.models()]
        if name not in names:
            raise NotFoundError(f"this server has no model {name!r}; it has {', '.join(names)}", where=where())
        return Model(RemoteBackend(self.client, name))

    def submit(self, model: str, experiment: Experiment, *, plan: str = "auto", fresh: bool = False) -> RemoteJob:
        """Hand over an experiment written elsewhere (`session.experiment`) for the server's model of that name: its job."""
        return RemoteJob(self.client.submit(model, experiment, fresh=fresh, plan=plan))

    def job(self, id: str) -> RemoteJob:
        """A job by its id."""
        return RemoteJob(self.client.job(id))


class RemoteJob:
    """A job of a server's: `.state`, `.result()`, `.record()`, `.cancel()`."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.id = job.id

    @property
    def state(self) -> str:
        return self._job.status().state

    def result(self, wait: bool = True) -> dict[str, torch.Tensor]:
        """The saved values by name; waits for the job to end unless told not to. Raises the job's own error."""
        if wait:
            self._job.wait()
        found = {name: to_tensor(value, torch.device("cpu")) for name, value in self._job.result().items()}
        return {name: value for name, value in found.items() if not name.startswith("_")}

    def partial(self) -> dict[str, torch.Tensor]:
        """Of a job that still runs, or that ended early, what there is so far, by name. NotFoundError if nothing.

        Of a training that is what it had learned, of anything else the saved values that are known. They are written
        down every second or so, so a job of less than a second has none to show while it runs.
        """
        found = read_earlier(self._job.partial())[1].values
        return {name: value for name, value in found.items() if not name.startswith("_")}

    def record(self) -> Record:
        """What ran, on what, giving what."""
        return self._job.record()

    def cancel(self) -> None:
        """Ask for the job to stop."""
        self._job.cancel()


def load(source: Any, tokenizer: Any = None, memory: int | str | None = None, **options: Any) -> Model:
    """A model to experiment on: `weft.load("gpt2")`, `weft.load("a/folder")`, `weft.load(model, tokenizer=tok)`.

    `source` is a built-in name ("induction"), a hub id, a local folder, a transformers model you already have, or any
    torch.nn.Module (raw modules only). ModelError says what is missing. Options: dtype, device, revision, name; for one that
    no device holds device_map="auto" (or {path: device}), max_memory, offload_folder; weights=False reads the configuration
    alone: experiments can be written and explained, not run. So does a folder in which there are no weights.
    `memory`: bytes above the model that an experiment is planned for (500_000_000, "500MB", "2GiB"; None: half of what
    is free); one that would take more is run some rows at a time, as `explain()` says.
    """
    import weft.planted

    weft.planted.register()
    budget = parsed(memory)
    return Model(LocalBackend(load_model(source, tokenizer=tokenizer, **options), budget))


def connect(url: str, key: str | None = None) -> Server:
    """The server at `url`: `weft.connect("http://127.0.0.1:7787").model("induction")`. UnreachableError if none answers."""
    return Server(connect_client(url, key))


def replay(record: Any, model: Model) -> Any:
    """Run a record's experiment again on `model` and compare: the largest difference of each value.

    `record` is a Record or the path of its file.
    """
    from weft.record.replay import replay as replay_record
    from weft.record.replay import replay_file

    if not isinstance(model.backend, LocalBackend):
        raise ModelError("a replay runs in this process; load the model with weft.load", where=where())
    loaded = model.backend.loaded
    return replay_file(record, loaded) if isinstance(record, str | Path) else replay_record(record, loaded)
