"""A real server with a fake engine, once a module; `weft.serve.background` starts it as any user would."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session", autouse=True)
def _fake_engine_importable() -> Iterator[None]:
    """Servers and workers are subprocesses: they find the fake engine by PYTHONPATH."""
    before = os.environ.get("PYTHONPATH")
    source = HERE.parents[1] / "src"
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), str(source), before]))
    yield
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from helpers import fake

    from weft.serve import background

    folder = tmp_path_factory.mktemp("server")
    with background([fake(folder)], folder) as url:
        yield url


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server with real models, and its folder: one for all tests that need no server of their own."""
    from helpers import NAME

    from weft.serve import background

    folder = tmp_path_factory.mktemp("real")
    with background([NAME, "induction"], folder) as url:
        yield url, folder
