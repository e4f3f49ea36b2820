"""The same code gives the same program, whatever was traced before it: that is what makes it known again by its hash."""

import pytest
import torch
from tests.tiny import tiny_gpt2

import weft
from weft.ir.hash import content_hash
from weft.trace import viewing


def _read_then_written(run):
    run.resid_post[0][:].sum().save("a")
    run.resid_post[1][:] = torch.ones(1, 1, run.session.model.d_model)


def _written_then_read(run):
    run.resid_post[1][:] = torch.ones(1, 1, run.session.model.d_model)
    run.resid_post[0][:].sum().save("a")


def _chained(run):
    run.mlp_out[0][:, :][..., 1:][:, -1] *= 2
    run.z[0][:, 0:, 0, None].sum().save("b")
    run.z[1][0][:, 1] = 0.5
    run.logits.save("a")


@pytest.mark.parametrize("write", [_read_then_written, _written_then_read, _chained])
def test_the_same_code_gives_the_same_program(write, monkeypatch):
    for module, name in ((viewing, "_seen"), (viewing, "_indexed")):
        monkeypatch.setattr(module, name, {})
    model = weft.load(tiny_gpt2())
    hashes = []
    for _ in range(3):
        with model.trace(torch.tensor([[1, 2, 3], [4, 5, 6]])) as run:
            write(run)
        hashes.append(content_hash(run.session.experiment))
    assert hashes[0] == hashes[1] == hashes[2]


def test_a_number_is_copied_as_it_is_assigned():
    model = weft.load(tiny_gpt2())
    with model.trace(torch.tensor([[1, 2, 3]])) as run:
        run.resid_post[0][:, -1].copy_(0.5)
        run.resid_post[0].save("x")
    assert (run.session.results["x"][:, -1] == 0.5).all()
