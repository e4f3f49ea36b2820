"""A session: a block in which an experiment is written; when the block ends, it runs.

with model.session() as s:
    clean = s.run("The Eiffel Tower is in the city of")
    diff = weft.logit_diff(clean.logits[:, -1], " Paris", " Rome").save("diff")
diff.value, s.results["diff"], s.record
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from weft.errors import GradientError, ProgramError, SessionError, WeftError
from weft.ir.nodes import Const, ConstantData, Experiment, Grad, Keep, Ref, Save, Write
from weft.ir.nodes import Run as RunNode
from weft.ir.outcome import Outcome
from weft.trace.constants import NAMES, TensorConstant
from weft.trace.factories import Factories, paused
from weft.trace.generation import Generation
from weft.trace.gradients import check_apart, check_complete, check_gradient, wanted
from weft.trace.graph import Graph
from weft.trace.inputs import generation_options, prompt_inputs
from weft.trace.location import where
from weft.trace.run import Run
from weft.trace.storage import Storage
from weft.trace.tensor import Traced

if TYPE_CHECKING:
    from weft.trace.model import Model


_plainly = torch._C.DisableTorchFunction
"""What weft itself does with ordinary tensors is no part of the experiment."""


class Session:
    """The runs of one experiment and the arithmetic on and between them."""

    def __init__(
        self, model: Model, plan: str = "auto", wait: bool = True, fresh: bool = False, run: bool = True
    ) -> None:
        self.model = model
        self.plan = plan
        self.wait = wait
        self.fresh = fresh
        self.executes = run
        self.graph = Graph(model.card)
        self.state = "new"
        self.results: dict[str, torch.Tensor] = {}
        self.values: dict[str, torch.Tensor] = {}
        self.kept: dict[str, ConstantData] = {}
        self.outcome: Outcome | None = None
        self.job: Any = None
        self._experiment: Experiment | None = None
        self._mode = Factories(self)
        self._saved: dict[str, Traced] = {}
        self._backward: list[tuple[str, torch.Tensor]] = []
        self._runs = 0

    # -- the block ---

    def __enter__(self) -> Session:
        if self.state != "new":
            raise SessionError("a session is used once; make another with model.session()", where=where())
        self.state = "open"
        self.model.sessions.append(self)
        self._mode.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._mode.__exit__(kind, error, trace)
        self.model.sessions.remove(self)
        if kind is not None:
            self.state = "failed"
            return
        try:
            self.graph.check_constants()
            self._run()
        except BaseException:
            self.state = "failed"
            raise

    @property
    def done(self) -> bool:
        """Whether the block has ended well."""
        return self.state == "done"

    def check_usable(self) -> None:
        self.check_not_failed()
        if self.state == "done":
            raise SessionError("the block has ended: nothing more can be added to this experiment", where=where())
        if self.state == "new":
            raise SessionError("open the session first: with model.session() as s: …", where=where())

    def check_not_failed(self) -> None:
        if self.state == "failed":
            raise SessionError(
                "this value belongs to a session that failed, so it has no numbers; mend the error above and run it again",
                where=where(),
            )

    # -- runs ---

    def run(self, prompts: Any = None, **inputs: torch.Tensor) -> Run:
        """A forward pass of `prompts`: a str, a list of them, chat messages, or a LongTensor [batch, pos].

        A model that is no language model takes its tensors by keyword: `s.run(image=x)`.
        """
        self.check_usable()
        with _plainly():
            kind, tensors = prompt_inputs(self.model, prompts, inputs)
        run = self._add_run(kind, tensors, ())
        self.model.apply_edits(run)
        return run

    def generate(self, prompts: Any, max_new_tokens: int = 20, **options: Any) -> Generation:
        """A generation: `temperature=0` is greedy; `top_p=`, `seed=` sample; `stop=` texts or ids that end a row."""
        self.check_usable()
        _, tensors = prompt_inputs(self.model, prompts, {})
        chosen = generation_options(self.model, max_new_tokens, options)
        return self._generation(tensors, chosen)

    def again(self, run: Run) -> Run:
        again = self._add_run(run.kind, run.inputs, (), like=run)
        self.model.apply_edits(again)
        return again

    def again_generation(self, generation: Generation) -> Generation:
        return self._generation(generation.prompt.inputs, generation.options)

    def count_run(self) -> int:
        self._runs += 1
        return self._runs - 1

    def _generation(self, tensors: dict[str, torch.Tensor], options: dict[str, Any]) -> Generation:
        run = self._add_run("generate", tensors, tuple(sorted(options.items())))
        generation = Generation(self, run, options)
        self.model.apply_edits(generation)
        return generation

    def _add_run(self, kind: str, tensors: dict[str, torch.Tensor], options: Any, like: Run | None = None) -> Run:
        card = self.model.card_for(tensors) if like is None else like.card
        with _plainly():
            inputs = tuple((name, self.graph.constant(tensor)) for name, tensor in tensors.items())
            node = RunNode(kind, inputs, options)
            self.graph.use_card(len(self.graph.nodes), card)
            return Run(self, self.graph.add(node).node, kind, tensors, card)

    # -- values ---

    def save(self, value: Traced, name: str | None) -> str:
        """Name a result; unnamed ones are numbered. ProgramError if the name is taken or unusable."""
        if name is None:
            name = str(sum(1 for known in self._saved if known.isdecimal()))
        check_name(name, "result")
        return self.save_as(value, name)

    def keep(self, value: Traced, name: str) -> None:
        """Have a value stay where the model is. ProgramError if the name is taken or unusable."""
        self.check_usable()
        check_name(name, "value that is kept")
        if any(isinstance(node, Keep) and node.name == name for node in self.graph.nodes):
            raise ProgramError(
                f"a value is kept as {name!r} in this session already; choose another name", where=where()
            )
        self.graph.add(Keep(name, value.ref))

    def save_as(self, value: Traced, name: str) -> str:
        self.check_usable()
        if name in self._saved:
            raise ProgramError(f"a result named {name!r} is saved already; choose another name", where=where())
        self.graph.add(Save(name, value.ref))
        self._saved[name] = value
        value._saved = name
        return name

    def parameter(self, node: Any, kind: Any) -> Traced:
        """A traced value for a node the model's own parts make (Param, Apply)."""
        from weft.trace.run import contiguous

        self.check_usable()
        ref = self.graph.add(node)
        storage = Storage(self.graph, self, ref, root_size=kind.shape)
        return Traced(storage, (getattr(torch, kind.dtype), kind.shape, contiguous(kind.shape)))

    def now(self, value: Traced) -> torch.Tensor:
        """Run what `value` needs, now. Later writes that would have changed it are refused."""
        known = value.numbers
        if known is not None:
            return known.clone()
        self.check_usable()
        ref = value.ref
        experiment, _ = self.graph.only({"now": ref})
        with paused():
            outcome = self.model.backend.run(experiment, plan=self.plan)
        self.graph.show(ref, where())
        return outcome.values["now"]

    def latest(self, run: Any) -> torch.Tensor:
        """Where the rows of a run begin at the latest, LongTensor [batch]."""
        return run.start

    # -- gradients ---

    def grad(self, scalar: Traced, targets: list[Any]) -> list[Traced]:
        """The gradient of `scalar` at each target, as traced values of the targets' shapes."""
        self.check_usable()
        check_gradient(scalar)
        found = [wanted(self, target) for target in targets]
        check_complete(self, [t for t in targets if not isinstance(t, Traced)])
        check_apart(self, scalar, targets)
        self.graph.check_nograd(scalar.ref, [ref for ref, _, _ in found])
        node = self.graph.add(Grad(scalar.ref, tuple(ref for ref, _, _ in found)))
        results = []
        for out, (_, signature, chain) in enumerate(found):
            storage = Storage(self.graph, self, Ref(node.node, out), root_size=signature[0][1])
            results.append(Traced(storage, signature[1], chain, signature[2]))
        return results

    def backward(self, scalar: Traced, gradient: Any, inputs: Any) -> None:
        """Arrange that after the block every tensor of the user's has its complete gradient in .grad."""
        self.check_usable()
        if gradient is not None or inputs is not None:
            raise GradientError(
                "backward() takes no gradient or inputs here; use weft.grad(scalar, [tensors])", where=where()
            )
        check_gradient(scalar)
        reached = self.graph.ancestors([scalar.ref])
        leaves = [(tensor, ref) for tensor, ref in self.graph.leaves() if ref.node in reached]
        if not leaves:
            raise GradientError(
                "nothing that this value depends on requires grad; set requires_grad_() on your tensors before the "
                "block, or ask for weft.grad(scalar, [site])",
                where=where(),
            )
        if not self.wait:
            raise GradientError(
                "with wait=False nobody is here to put gradients into .grad; save weft.grad(scalar, [tensors]) instead",
                where=where(),
            )
        check_complete(self, [tensor for tensor, _ in leaves])
        self.graph.check_nograd(scalar.ref, [ref for _, ref in leaves])
        node = self.graph.add(Grad(scalar.ref, tuple(ref for _, ref in leaves)))
        for out, (tensor, _) in enumerate(leaves):
            name = f"_grad.{node.node}.{out}"
            self.graph.add(Save(name, Ref(node.node, out)))
            self._backward.append((name, tensor))

    # -- what came of it ---

    @property
    def experiment(self) -> Experiment:
        """The experiment as data: print it, hash it, send it."""
        return self._experiment or self.graph.experiment()

    @property
    def record(self) -> Any:
        """What ran, on what, giving what: a record that can be saved, replayed and cited."""
        self._check_done("the record")
        return self.model.backend.record(self.experiment, self.outcome)

    def explain(self) -> str:
        """The work asked for and the work done, in words; of a session that is not run, what it would take."""
        if not self.executes:
            self.check_not_failed()
            return self.model.backend.preview(self.experiment, plan=self.plan)
        self._check_done("explain()")
        from weft.trace.explain import explain

        assert self.outcome is not None
        return explain(self.outcome)

    def _check_done(self, what: str) -> None:
        self.check_not_failed()
        if not self.done or self.outcome is None:
            raise SessionError(f"{what} is there when the block has ended and its results have come", where=where())

    def _run(self) -> None:
        self._experiment = self.graph.experiment()
        if not self._saved and not any(isinstance(node, (Save, Keep)) for node in self._experiment.nodes):
            if not self.graph.shown and any(isinstance(node, Write) for node in self._experiment.nodes):
                raise ProgramError(
                    "this session edits a run but saves nothing, so nothing would run; .save() what you want"
                )
            self.state, self.outcome = "done", None
            return
        if not self.executes:
            self.state = "done"
            return
        if not self.wait:
            self.job = self.model.backend.submit(self._experiment, fresh=self.fresh)
            self.state = "done"
            return
        try:
            with paused():
                self.outcome = self.model.backend.run(self._experiment, plan=self.plan, fresh=self.fresh)
        except WeftError as error:
            raise self._placed(error) from None
        self.values, self.kept = dict(self.outcome.values), dict(self.outcome.kept)
        self.results = {name: value for name, value in self.values.items() if not name.startswith("_")}
        self.state = "done"
        self._give_gradients()

    def _placed(self, error: WeftError) -> WeftError:
        node = error.details.get("node")
        if error.where is None and isinstance(node, int) and self._experiment is not None:
            error.where = self._experiment.where(node)
        return error

    def _give_gradients(self) -> None:
        assert self.outcome is not None
        for name, tensor in self._backward:
            gradient = self.outcome.values[name].to(tensor.device)
            if gradient.dim() > tensor.dim():  # of a value of every step (g.each): one for each step, which add up
                gradient = gradient.sum(0)
            if tensor.is_leaf:
                tensor.grad = gradient.clone() if tensor.grad is None else tensor.grad + gradient
            else:
                torch.autograd.backward(tensor, gradient, retain_graph=True)


def check_name(name: Any, of_what: str) -> None:
    """ProgramError unless `name` can name a result, or a value that is kept."""
    usable = (
        isinstance(name, str)
        and name
        and name[0] != "_"
        and name.isprintable()
        and "/" not in name
        and "\\" not in name
    )
    if not usable:
        raise ProgramError(
            f"{name!r} cannot name a {of_what}: use letters, digits, spaces, dots, not beginning with _", where=where()
        )


__all__ = ["NAMES", "Const", "Session", "TensorConstant"]
