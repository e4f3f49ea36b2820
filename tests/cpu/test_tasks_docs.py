"""docs/tasks.md shows what the tasks give."""

from __future__ import annotations

import re
from pathlib import Path

from weft.tasks import TASKS
from weft.tasks.__main__ import document

PAGE = Path(__file__).parents[2] / "docs/tasks.md"


def test_the_examples_are_those_that_the_command_prints() -> None:
    assert PAGE.read_text(encoding="utf-8").endswith(document())


def test_every_task_is_shown() -> None:
    shown = set(re.findall(r"^### `\w+` \((\w+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert shown == set(TASKS)


def test_the_pages_program_runs(capsys) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(code, str(PAGE), "exec"), {})
    assert capsys.readouterr().out.startswith("1.000 (")
