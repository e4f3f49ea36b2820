"""After the block a saved value is an ordinary value; one that was not saved says so."""

from __future__ import annotations

import copy
import pickle  # noqa: TID251 (values survive it, weft itself does not use it)

import numpy as np
import pytest
import torch
from tracing import PROMPTS, model

from weft.errors import NotSavedError, OpError, SessionError


@pytest.fixture(scope="module")
def values():
    with model().session() as s:
        h = s.run(PROMPTS).resid_post[0]
        h.save("h")
        mean, row = h.mean().save("mean"), h[0].save("row")
        lost = h[:, 0]
        known = torch.arange(3)
    return {"h": h, "mean": mean, "row": row, "lost": lost, "known": known, "s": s}


def test_torch(values) -> None:
    h, number = values["h"], values["s"].results["h"]
    assert torch.equal(h + 1, number + 1) and torch.equal(1 - h, 1 - number)
    assert torch.equal(h[:, 0], number[:, 0]) and torch.equal(number * h, number * number)
    assert torch.equal(torch.cat([h, number]), torch.cat([number, number]))
    assert type(h * 2) is torch.Tensor and type(h[0]) is torch.Tensor
    assert bool((h == number).all()) and (h > 0).any()
    assert torch.equal(h.to(torch.float64), number.double()) and torch.equal(h.cpu(), number)


def test_python(values) -> None:
    mean, number = values["mean"], values["s"].results["mean"].item()
    assert float(mean) == number and mean.item() == number and mean.tolist() == number
    assert f"{mean:.3f}" == f"{number:.3f}" and int(mean) == int(number)
    assert [len(row) for row in values["h"]] == [5, 5]
    assert ("yes" if mean > -100 else "no") == "yes"
    assert "tensor" in repr(values["h"]) and "tensor" in f"{values['h']}"


def test_numpy(values) -> None:
    h, number = values["h"], values["s"].results["h"].numpy()
    assert np.array_equal(np.asarray(h), number) and np.array_equal(h.numpy(), number)
    assert np.array_equal(np.asarray(h, dtype=np.float64), number.astype(np.float64))
    assert np.array_equal(np.exp(h), np.exp(number)) and np.array_equal(np.stack([h, h]), np.stack([number, number]))
    assert np.array_equal(np.from_dlpack(h), number)


def test_copies_and_pickles(values) -> None:
    h, number = values["h"], values["s"].results["h"]
    for other in (pickle.loads(pickle.dumps(h)), copy.deepcopy(h), copy.copy(h)):
        assert torch.equal(torch.as_tensor(other), number)


def test_matplotlib(values) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    figure, axes = pyplot.subplots()
    image = axes.imshow(values["row"])
    lines = axes.plot(values["row"])
    assert np.allclose(image.get_array(), values["row"].numpy())
    assert np.allclose(lines[3].get_ydata(), values["row"].numpy()[:, 3])
    pyplot.close(figure)


def test_scikit_learn(values) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    x = values["h"].reshape(10, 12)
    labels = np.arange(10) % 2
    probe = linear.LogisticRegression().fit(x, labels)
    assert probe.predict(x).shape == (10,)
    assert np.array_equal(probe.predict(x), linear.LogisticRegression().fit(x.numpy(), labels).predict(x.numpy()))


def test_what_was_not_saved_says_so_at_the_users_line(values) -> None:
    uses = (
        lambda x: x + 1,
        lambda x: x.numpy(),
        lambda x: float(x.sum()),
        lambda x: np.asarray(x),
        lambda x: x.value,
        lambda x: pickle.dumps(x),
        lambda x: x[0],
    )
    for use in uses:
        with pytest.raises(NotSavedError, match=r"\.save\(\)") as caught:
            use(values["lost"])
        assert caught.value.where is not None and caught.value.where.file == __file__
    assert "not saved" in repr(values["lost"])


def test_known_values_need_no_saving(values) -> None:
    assert values["known"].tolist() == [0, 1, 2]
    assert torch.equal(values["known"] + 1, torch.tensor([1, 2, 3]))


def test_a_session_that_failed_keeps_saying_so() -> None:
    with pytest.raises(ZeroDivisionError), model().session() as s:
        h = s.run(PROMPTS).resid_post[0]
        h.save("h")
        1 / 0  # noqa: B018
    for use in (lambda: h + 1, lambda: h.numpy(), lambda: h.value, lambda: h.save("again"), lambda: h.sum().item()):
        with pytest.raises(SessionError, match="failed") as caught:
            use()
        assert caught.value.where is not None and caught.value.where.file == __file__


def test_an_operation_fails_and_the_session_goes_on() -> None:
    with model().session() as s:
        h = s.run(PROMPTS).resid_post[0]
        with pytest.raises(OpError):
            h[h > 0]
        h.mean().save("mean")
    assert s.results["mean"].shape == ()


def test_memory_that_is_not_there_cannot_be_reached() -> None:
    with model().session() as s:
        h = s.run(PROMPTS).resid_post[0]
        with pytest.raises(RuntimeError, match="data pointer"):
            torch.utils.dlpack.to_dlpack(h)
        h.save()
