"""What methods give: arrays with names, said in words, and a file that gives all of it back."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr

import weft

GRID = np.array([[0.5, np.nan], [np.inf, -0.25]], dtype=np.float32)


def result(**changes: object) -> weft.methods.Result:
    grid = xr.DataArray(GRID, dims=("layer", "head"), coords={"layer": [3, 4], "head": [0, 1]}, attrs={"unit": "nats"})
    text = xr.DataArray(np.array([["é", ""], ["b", "日本"]]), dims=("row", "rank"))
    small = xr.DataArray(np.arange(3, dtype=np.int64) > 1, dims=("row",), coords={"name": ("row", ["x", "y", "z"])})
    fields: dict = dict(  # noqa: C408
        model="m", mediator="heads", search="exhaustive", intervention="patching", metric="logit", control="none",
        seeds=(1, 2), settings={"n": 3, "roles": ("a", "b")}, arrays={"effect": grid, "words": text, "right": small},
    )  # fmt: skip
    return weft.methods.Result(**{**fields, **changes})


def a_record() -> weft.Record:
    model = weft.load("induction")
    with model.session() as s:
        s.run("one two one").logits[:, -1, :3].save("x")
    return s.record


def test_a_file_gives_all_of_it_back(tmp_path: Path) -> None:
    record = a_record()
    before = result(records=(record, record), stopped="after 2 of 5")
    after = weft.methods.load(before.save(tmp_path / "r.safetensors"))
    assert type(after) is weft.methods.Result
    assert after.words == before.words and after.stopped == before.stopped and after.seeds == (1, 2)
    assert after.settings == {"n": 3, "roles": ["a", "b"]}
    assert list(after.arrays) == list(before.arrays)
    for name, array in before.arrays.items():
        xr.testing.assert_identical(after[name], array)
        assert after[name].dtype.kind == array.dtype.kind
    assert after["effect"].dtype == np.float32
    assert [each.hash for each in after.records] == [record.hash] * 2


def test_a_method_of_ones_own_has_its_class_back(tmp_path: Path) -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Mine(weft.methods.Result):
        method: str = "mine_alone"
        place: int = 0

    mine = Mine(
        **{f.name: getattr(result(), f.name) for f in dataclasses.fields(result()) if f.name != "method"}, place=7
    )
    path = mine.save(tmp_path / "mine.safetensors")
    assert type(weft.methods.load(path)) is Mine
    assert weft.methods.load(path).place == 7
    from weft.methods.result import CLASSES

    del CLASSES["mine_alone"]  # as in a process that does not know the method
    assert type(weft.methods.load(path)) is weft.methods.Result


def test_arrays_are_not_written_into_by_accident() -> None:
    source = xr.DataArray(np.zeros(3), dims=("layer",))
    held = result(arrays={"curve": source})["curve"]
    source[0] = 5
    assert float(held[0]) == 0
    with pytest.raises(ValueError, match="read-only"):
        held[0] = 1


def test_a_table_has_a_column_for_each_axis() -> None:
    table = result().to_dataframe()
    assert list(table.columns) == ["layer", "head", "effect"]
    assert table[(table.layer == 4) & (table["head"] == 1)].effect.item() == -0.25


def test_figures_hold_the_numbers() -> None:
    figure = result().plot()
    assert isinstance(figure, go.Figure)
    assert np.array_equal(np.array(figure.data[0].z, dtype=np.float32), GRID, equal_nan=True)
    line = result(arrays={"curve": xr.DataArray([1.0, 2.0], dims=("layer",))}).plot()
    assert list(line.data[0].y) == [1.0, 2.0]


def test_a_figure_of_more_axes_is_chosen_along_one() -> None:
    cube = xr.DataArray(
        np.arange(8.0).reshape(2, 2, 2), dims=("layer", "position", "head"), coords={"position": ["a", "b"]}
    )
    figure = result(arrays={"effect": cube}).plot(position="b")
    assert np.array_equal(figure.data[0].z, [[2.0, 3.0], [6.0, 7.0]])
    with pytest.raises(ValueError, match="two axes, not of 3"):
        result(arrays={"effect": cube}).plot()


def test_an_array_that_is_not_there_is_named() -> None:
    with pytest.raises(KeyError, match="effect, words, right"):
        result()["curve"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"no tensors here")
    with pytest.raises(weft.errors.FormatError, match="no safetensors file"):
        weft.methods.load(path)
    a_record().save(path)
    with pytest.raises(weft.errors.FormatError, match="no method's result"):
        weft.methods.load(path)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(weft.errors.ProgramError, match="array/effect holds complex128"):
        result(arrays={"effect": xr.DataArray([1j], dims=("x",))}).save(tmp_path / "r.safetensors")
    with pytest.raises(weft.errors.ProgramError, match="JSON"):
        result(settings={"model": object()}).save(tmp_path / "r.safetensors")
