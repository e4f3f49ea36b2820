"""A result as one safetensors file: numbers as tensors, records as their own files, all else as JSON in the header.

file ::= "array/" name … , "coord/" array "/" name … , "record/" number … ; metadata {"weft.methods": JSON}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import weft
from weft.methods.result import CLASSES, PLAIN, Result

SCHEMA = 1
KEY = "weft.methods"


def save(result: Result, path: Path) -> Path:
    """Write it. ProgramError names what cannot be written."""
    from safetensors.numpy import save_file

    tensors: dict[str, np.ndarray] = {}
    described = {name: _array(name, array, tensors) for name, array in result.arrays.items()}
    for number, record in enumerate(result.records):
        tensors[f"record/{number}"] = np.frombuffer(record.to_bytes(), dtype=np.uint8)
    own = [
        each.name
        for each in fields(result)
        if each.name not in (*PLAIN, "arrays", "records") and each.metadata.get("saved", True)
    ]
    plain = {name: _plain(getattr(result, name)) for name in (*PLAIN, *own)}
    meta = {"schema": SCHEMA, "plain": plain, "arrays": described, "records": len(result.records)}
    try:
        text = json.dumps(meta, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise weft.errors.ProgramError(f"the settings of a result are JSON: {error}") from None
    save_file(tensors, path, metadata={KEY: text})
    return path


def load(path: str | Path) -> Any:
    """The result in a file that `save` wrote, of the class of its method; FormatError if it is none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()} if text else {}  # noqa: SIM118
    except SafetensorError as error:
        raise weft.errors.FormatError(f"{path} is no safetensors file: {error}") from None
    if not text:
        raise weft.errors.FormatError(
            f"{path} is no method's result; weft.methods.load reads what result.save(path) wrote (a record: weft show)"
        )
    meta = json.loads(text)
    if meta.get("schema") != SCHEMA:
        raise weft.errors.FormatError(f"{path} has schema {meta.get('schema')}; this weft reads {SCHEMA}")
    arrays = {name: _read(name, how, tensors) for name, how in meta["arrays"].items()}
    records = tuple(weft.Record.from_bytes(tensors[f"record/{i}"].tobytes()) for i in range(meta["records"]))
    kind = _class(meta["plain"]["method"])
    known = {each.name for each in fields(kind)}
    return kind(arrays=arrays, records=records, **{n: v for n, v in meta["plain"].items() if n in known})


def _class(method: str) -> type[Result]:
    if method not in CLASSES and f"weft.methods.{method}".replace("_", "").replace(".", "").isalnum():
        try:
            import_module(f"weft.methods.{method}")
        except ImportError:
            return Result  # a method of somebody's own: its numbers are read all the same
    return CLASSES.get(method, Result)


def _plain(value: Any) -> Any:
    """Mappings and tuples as JSON has them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _array(name: str, array: xr.DataArray, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    coords = {}
    for each, coord in array.coords.items():
        values = _values(f"coord/{name}/{each}", coord.values, tensors)
        coords[str(each)] = {"dims": list(coord.dims), **values}
    held = _values(f"array/{name}", array.values, tensors)
    return {"dims": list(array.dims), "coords": coords, "attrs": _plain(array.attrs), **held}


def _values(name: str, values: np.ndarray, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """Numbers go to the tensors, text into the description."""
    values = np.asarray(values)
    if values.dtype.kind in "biuf":
        tensors[name] = np.ascontiguousarray(values).reshape(values.shape)
        return {"shape": list(values.shape)}
    if values.dtype.kind in "UO" and all(isinstance(item, str) for item in values.ravel()):
        return {"shape": list(values.shape), "text": [str(item) for item in values.ravel()]}
    raise weft.errors.ProgramError(f"{name} holds {values.dtype}; numbers, truth values and text can be saved")


def _read(name: str, how: dict[str, Any], tensors: Mapping[str, np.ndarray]) -> xr.DataArray:
    coords = {
        each: (tuple(coord["dims"]), _back(f"coord/{name}/{each}", coord, tensors))
        for each, coord in how["coords"].items()
    }
    values = _back(f"array/{name}", how, tensors)
    return xr.DataArray(values, dims=how["dims"], coords=coords, attrs=how["attrs"])


def _back(name: str, how: dict[str, Any], tensors: Mapping[str, np.ndarray]) -> np.ndarray:
    if "text" in how:
        return np.array(how["text"], dtype=np.str_).reshape(how["shape"])
    if name not in tensors:
        raise weft.errors.FormatError(f"the file lacks {name}, which its header describes")
    return tensors[name].reshape(how["shape"])
