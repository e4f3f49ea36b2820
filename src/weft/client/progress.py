"""A progress bar where a person may see it: on a terminal, on standard error, and gone when it is done."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Bar:
    """`with Bar() as bar: bar.show("running", 0.5, "layer 6")`; does nothing where there is no terminal."""

    def __init__(self, wanted: bool = True) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        if wanted and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
            self._progress = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True)

    def show(self, state: str, fraction: float, stage: str) -> None:
        if self._progress is None:
            return
        text = f"{state}: {stage}" if stage else state
        if self._task is None:
            self._task = self._progress.add_task(text, total=1.0)
        self._progress.update(self._task, description=text, completed=fraction)

    def __enter__(self) -> Bar:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
