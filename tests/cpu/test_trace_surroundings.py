"""Tracing works wherever Python code runs, and its errors point at the user's line there."""

from __future__ import annotations

import threading

import pytest
import torch
from tracing import PROMPTS, model

import weft
from weft.errors import NoValueError, SessionError, ShapeError

PROGRAM = """\
with model.session() as s:
    h = s.run(prompts).resid_post[0]
    x = h[:, 0]
    x += 1
    x.sum().save("sum")
"""
MISTAKE = "with model.session() as s:\n    h = s.run(prompts).resid_post[0]\n    h @ h\n"


def expected() -> torch.Tensor:
    with model().trace(PROMPTS) as run:
        h = run.resid_post[0].save()
    return (h.value[:, 0] + 1).sum()


@pytest.mark.parametrize("file", ["<stdin>", "<string>", "/tmp/ipykernel_7/123.py", "<doctest a[0]>"])
def test_code_without_a_file(file: str) -> None:
    names = {"model": model(), "prompts": PROMPTS}
    exec(compile(PROGRAM, file, "exec"), names)
    assert torch.allclose(names["s"].results["sum"], expected())
    with pytest.raises(ShapeError) as caught:
        exec(compile(MISTAKE, file, "exec"), names)
    assert caught.value.where is not None
    assert (caught.value.where.file, caught.value.where.line) == (file, 3)


def test_line_by_line_as_in_the_repl() -> None:
    names = {"model": model(), "prompts": PROMPTS}
    lines = [
        "s = model.session(); s.__enter__()",
        "h = s.run(prompts).resid_post[0]",
        "h[:, 0] += 1",
        "out = h[:, 0].sum().save('sum')",
        "s.__exit__(None, None, None)",
    ]
    for line in lines:
        exec(compile(line, "<stdin>", "single"), names)
    assert torch.allclose(names["out"].value, expected())


def test_in_a_function_a_closure_and_a_lambda() -> None:
    def add_one(x: torch.Tensor) -> torch.Tensor:
        x += 1
        return (lambda y: y.sum())(x)

    with model().session() as s:
        out = add_one(s.run(PROMPTS).resid_post[0][:, 0]).save()
    assert torch.allclose(out.value, expected())


def test_in_a_generator_that_is_left_and_entered_again() -> None:
    def experiment():
        with model().session() as s:
            h = s.run(PROMPTS).resid_post[0]
            yield h.dim()
            h[:, 0] += 1
            yield h.shape
            h[:, 0].sum().save("sum")
        yield s.results["sum"]

    dimensions, shape, found = experiment()
    assert (dimensions, shape) == (3, (2, 5, 12))
    assert torch.allclose(found, expected())


def test_under_assertion_rewriting() -> None:
    with model().session() as s:
        h = s.run(PROMPTS).resid_post[0]
        assert h.shape[-1] == 12 and h.dtype == torch.float32
        with pytest.raises(NoValueError) as caught:
            assert h.sum() > 0
    where = caught.value.where
    assert where is not None and where.file == __file__ and "assert h.sum() > 0" in where.text


def test_two_sessions_in_two_threads_on_one_model() -> None:
    barrier, found, failed = threading.Barrier(2), {}, []

    def work(number: int) -> None:
        try:
            for _ in range(5):
                barrier.wait(30)
                with model().session() as s:
                    run = s.run(PROMPTS)
                    grid = torch.zeros(3)
                    for i in range(3):
                        run.resid_post[0][:, i] += number
                        grid[i] = run.resid_post[0][:, i].sum()
                    run.logits.save("logits")
                    grid.save("grid")
                found.setdefault(number, []).append(s.results)
        except BaseException as error:
            failed.append(error)
            barrier.abort()

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed, failed
    for number in (1, 2):
        with model().session() as s:
            run = s.run(PROMPTS)
            run.resid_post[0][:, :3] += number
            logits, sums = run.logits.save(), run.resid_post[0][:, :3].sum((0, 2)).save()
        for results in found[number]:
            assert torch.allclose(results["logits"], logits.value, atol=1e-5)
            assert torch.allclose(results["grid"], sums.value, atol=1e-4)


def test_a_session_inside_a_session() -> None:
    with model().session() as outer:
        h = outer.run(PROMPTS).resid_post[0]
        with model().session() as inner:
            first = inner.run(PROMPTS).resid_post[0][:, 0].save("first")
            ones = torch.ones(12) * 2
        (h[:, 0] + first + ones).save("sum")  # a finished session's results are ordinary tensors
    assert torch.allclose(outer.results["sum"], inner.results["first"] * 2 + 2)


def test_values_of_two_open_sessions_do_not_mix() -> None:
    with pytest.raises(SessionError, match="one session") as caught, model().session() as outer:
        h = outer.run(PROMPTS).resid_post[0]
        with model().session() as inner:
            h + inner.run(PROMPTS).resid_post[0]
    assert caught.value.where is not None and caught.value.where.file == __file__


def test_a_result_of_an_earlier_session_is_an_ordinary_tensor_in_the_next() -> None:
    with model().trace(PROMPTS) as run:
        mean = run.resid_post[0].mean(1).save()
    with model().session() as s:
        run = s.run(PROMPTS)
        run.resid_post[0][:, -1] = mean
        left = (run.resid_post[0][:, 0] - mean).save()
        right = (mean - run.resid_post[0][:, 0]).save()
        last = run.resid_post[0][:, -1].save()
        stacked = torch.stack([mean, last]).save()
    assert torch.equal(left.value, -right.value)
    assert torch.equal(last.value, mean.value) and torch.equal(stacked.value[0], mean.value)


def test_a_known_value_of_an_inner_session_is_a_number_in_the_outer() -> None:
    with model().session() as outer:
        h = outer.run(PROMPTS).resid_post[0]
        with model().session():
            two = torch.full((12,), 2.0)
            out = (h * two).save("out")
            h.save("h")
    assert torch.equal(outer.results["out"], outer.results["h"] * 2)
    assert out.value.shape == (2, 5, 12)


def test_a_library_of_the_users_own_is_the_users_line() -> None:
    source = "def bad(h):\n    return h @ h\n"
    names: dict = {}
    exec(compile(source, weft.__path__[0] + "_experiments/mine.py", "exec"), names)
    with pytest.raises(ShapeError) as caught, model().session() as s:
        names["bad"](s.run(PROMPTS).resid_post[0])
    assert caught.value.where is not None and caught.value.where.file.endswith("_experiments/mine.py")
