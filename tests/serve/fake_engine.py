"""An engine without a model: it does what the names of an experiment's saves say.

double   the value, twice             sleep    reports progress for as many seconds as the value says
die      kill -9 of its own process, once (a file remembers)    doom   the same, every time
wrong    a ShapeError at its node     torch    an error that is not weft's
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weft.errors import JobCancelledError, ModelError, ShapeError
from weft.ir.card import BATCH, POS, Card, Dim, SiteSpec
from weft.ir.hash import content_hash
from weft.ir.nodes import Const, Experiment, Save, Site
from weft.record.format import Record
from weft.record.tensors import Value
from weft.worker.engine import Ask

SIZES = {"n_layers": 1, "n_heads": 1, "n_kv_heads": 1, "d_model": 4, "d_head": 4, "d_mlp": 8, "d_vocab": 10}
EMBED = SiteSpec(Site("embed"), ("batch", "pos", "d_model"), (BATCH, POS, Dim(4)), "float32")
CARD = Card("fake", "decoder", "fake", "float32", SIZES, (EMBED,), {}, (), max_positions=32)


@dataclass
class FakeEngine:
    options: Mapping[str, str]
    card = CARD
    freed = 0

    def fingerprint(self) -> dict[str, Any]:
        return {"id": "fake", "weights": self.options.get("weights", "w0")}

    def record(self, experiment: Experiment, ask: Ask) -> Record:
        saves = [(index, node) for index, node in enumerate(experiment.nodes) if isinstance(node, Save)]
        results = {save.name: self._do(index, save, experiment, ask) for index, save in saves}
        versions, digest = {"fake": "1"}, content_hash(experiment)
        return Record(experiment, digest, self.fingerprint(), versions, "cpu", "float32", ask.plan, results)

    def free(self) -> None:
        self.freed += 1

    def _do(self, index: int, save: Save, experiment: Experiment, ask: Ask) -> Value:
        const = experiment.nodes[save.value.node]
        assert isinstance(const, Const)
        array = np.asarray(Value(const.data.type, const.data.tobytes()))
        match save.name:
            case "double":
                array = array * 2
            case "sleep":
                self._sleep(float(array.reshape(-1)[0]), ask)
            case "die" if self._first():
                os.kill(os.getpid(), signal.SIGKILL)
            case "doom":
                os.kill(os.getpid(), signal.SIGKILL)
            case "wrong":
                raise ShapeError("these shapes do not fit: [2] and [3]; make them equal", node=index)
            case "torch":
                raise RuntimeError("CUDA error: something else entirely")
            case _:
                pass
        return Value(const.data.type, array.astype(np.float32).tobytes())

    def _sleep(self, seconds: float, ask: Ask) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if ask.cancelled():
                raise JobCancelledError("cancelled")
            ask.progress(1 - left / seconds, "sleeping")
            time.sleep(0.02)

    def _first(self) -> bool:
        marker = Path(self.options["marker"])
        first = not marker.exists()
        marker.touch()
        return first


def load(source: str, options: Mapping[str, str]) -> FakeEngine:
    if source == "broken":
        raise ModelError("the model 'broken' has no weights; give another")
    return FakeEngine(options)
