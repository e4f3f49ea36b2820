"""`python -m weft.tasks` prints the list of tasks with an example each, as it stands in docs/tasks.md."""

from __future__ import annotations

from weft.tasks import TASKS, BeliefTracking, Task

SHOWN: tuple[Task, ...] = (
    *(each() for each in TASKS.values()),
    *(BeliefTracking(layout=layout, characters=3) for layout in ("crossed", "listed", "numbered")),
)


def described(task: Task) -> str:
    """One task as Markdown: what it is, the first prompt of seed 0 and its counterfactual, and what is interchanged."""
    batch = task.sample(1)
    about = (type(task).__doc__ or "").splitlines()[0]
    layout = f", layout={task.layout!r}" if isinstance(task, BeliefTracking) and task.layout != "pairs" else ""
    taken = ", ".join(f"`{each}`" for each in task.swap.variables)
    return "\n".join(
        [
            f"### `{type(task).__name__}` ({task.name}{layout})",
            "",
            about,
            "",
            "```text",
            f"{batch.prompts[0]}{batch.answers[0]}",
            "```",
            "",
            f"Counterfactual, with {taken} of which the answer above becomes `{batch.expected[0].strip()}`:",
            "",
            "```text",
            f"{batch.counterfactual_prompts[0]}{batch.counterfactual_answers[0]}",
            "```",
            "",
            f"Roles: {', '.join(f'`{each}`' for each in batch.roles)}.",
            f"Variables: {', '.join(f'`{each}`' for each in task.causal_model.variables)}.",
            "",
        ]
    )


def document() -> str:
    """The examples of every task."""
    return "\n".join(described(task) for task in SHOWN)


if __name__ == "__main__":
    print(document(), end="")
