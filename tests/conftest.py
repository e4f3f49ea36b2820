"""What every test gets: no network, two threads at most, the real models where they are, and no silent skips in CI."""

from __future__ import annotations

import os

# Before anything imports torch or transformers: both read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

ASSETS = Path(__file__).parents[2] / "shared" / "assets"
NO_ASSETS = f"the real models are not here ({ASSETS.name} folder beside the project)"
ALLOWED_IN_CI = ("needs a CUDA device",)
CHECKED_AT_RUN_TIME = [
    "weft.planted",
    "weft.plot",
    "weft.trace.metrics",
    "weft.execute.attend",
    "weft.execute.sampling",
]
"""Modules whose annotated shapes are checked in tests (jaxtyping with beartype)."""


def pytest_configure() -> None:
    try:
        from jaxtyping import install_import_hook
    except ImportError:
        return
    install_import_hook(CHECKED_AT_RUN_TIME, "beartype.beartype")


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real models and data, e.g. `assets / "hf-stories260k"`; skips where it is absent."""
    if not ASSETS.is_dir():
        pytest.skip(NO_ASSETS)
    return ASSETS


@pytest.fixture(autouse=True)
def _single_thread() -> Iterator[None]:
    """Sums in one fixed order, and no fight between test processes for the cores."""
    import sys

    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)
    yield


def is_unexpected_skip(reason: str) -> bool:
    """Whether a skip hides a hole: in CI, where the assets are, only the reasons in ALLOWED_IN_CI are good ones."""
    in_ci = os.environ.get("CI", "").lower() in ("1", "true")
    return in_ci and ASSETS.is_dir() and not any(good in reason for good in ALLOWED_IN_CI)


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if is_unexpected_skip(reason):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where nothing may be: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped(report)
    return report
