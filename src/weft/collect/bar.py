"""A progress bar over prompts: on a terminal, on standard error, and gone at the end."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any


class Bar:
    """`with Bar(True, total) as bar: bar.add(32)`; does nothing where there is no terminal. `total` may be None."""

    def __init__(self, wanted: bool, total: int | None) -> None:
        self._progress: Any = None
        if wanted and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("collecting"), BarColumn(), MofNCompleteColumn(), TextColumn("prompts"))
            self._progress = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self._task = self._progress.add_task("", total=total)

    def add(self, prompts: int) -> None:
        if self._progress is not None:
            self._progress.advance(self._task, prompts)

    def __enter__(self) -> Bar:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
