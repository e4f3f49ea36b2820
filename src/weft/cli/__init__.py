"""The command line: `weft demo | atlas MODEL | serve MODEL… | models | reproduce PAPER | show FILE | replay FILE | bench`.

Commands import what they need when they run, so that `weft --help` is there at once.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from weft.errors import WeftError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def main() -> None:
    """Run the command line; an error weft raises on purpose is shown without a traceback, and the status is 1."""
    try:
        app()
    except WeftError as error:
        print(f"weft: {error}", file=sys.stderr)
        if "--json" in sys.argv:
            print(json.dumps({"error": error.to_data()}))
        sys.exit(1)


@app.callback()
def weft() -> None:
    """Experiments on the insides of language models: run them, serve them, show them, run them again."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the figures, the record and the atlas.")] = Path("demo-out"),
    planted: Annotated[
        bool,
        typer.Option("--planted", help="A model built by hand instead, whose one head is known and must be found."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Bobbin, through a server of its own: an experiment, its replay, and its atlas. Status 0 only if all agrees."""
    shown: Any = import_module("weft.cli.induction_demo" if planted else "weft.cli.demo")
    findings = shown.run_demo(out)
    if as_json:
        print(json.dumps(findings.to_data(), indent=2, ensure_ascii=False))
    else:
        shown.show_demo(findings)
    raise typer.Exit(0 if findings.right else 1)


@app.command()
def atlas(
    model: Annotated[
        str, typer.Argument(help="A built-in name, a hub id or a folder; with --url, a name there.")
    ] = "bobbin",
    url: Annotated[str, typer.Option("--url", envvar="WEFT_URL", help="Of a model that a server holds.")] = "",
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report and the results; NAME-atlas if not given.")
    ] = None,
    n: Annotated[int, typer.Option(help="Prompts a task; other numbers follow from it.")] = 64,
    seed: Annotated[int, typer.Option(help="Draws the prompts.")] = 0,
    as_json: Json = False,
) -> None:
    """What a model can do and by which mechanisms, as one page. Status 1 if stopped; the same command goes on there."""
    from weft.cli.atlas import run_atlas

    raise typer.Exit(0 if run_atlas(model, url, out, n, seed, as_json) else 1)


@app.command()
def serve(
    models: Annotated[
        list[str] | None, typer.Argument(help="Built-in names, hub ids or folders; NAME=SOURCE gives a name. [bobbin]")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to serve on; this version serves this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to serve on; 0 takes a free one.")] = 7787,
    folder: Annotated[
        Path | None, typer.Option(help="Where jobs and records are kept; ~/.weft/server if not given.")
    ] = None,
) -> None:
    """Serve models over HTTP until interrupted."""
    from weft.cli.service import serve_models

    serve_models(models or ["bobbin"], host=host, port=port, folder=folder)


@app.command()
def models(
    name: Annotated[
        str, typer.Argument(help="A model type (llama, gpt_oss, …) or a folder; none lists the types.")
    ] = "",
    url: Annotated[str, typer.Option("--url", envvar="WEFT_URL", help="List what the server there holds.")] = "",
    write_docs: Annotated[bool, typer.Option("--write-docs", help="Write docs/models.md anew.")] = False,
    as_json: Json = False,
) -> None:
    """Which families of models weft has tables for, and which sites one of them has; with --url, what a server holds."""
    if url and not name:
        from weft.cli.service import list_models

        list_models(url, as_json)
        return
    from weft.cli.models import list_families, show_model, write_page

    if write_docs:
        print(write_page())
    elif name:
        show_model(name, as_json)
    else:
        list_families(as_json)


@app.command()
def show(file: Annotated[Path, typer.Argument(help="A record, or an experiment.")], as_json: Json = False) -> None:
    """Print an experiment or a record as text."""
    from weft.cli.files import show_file

    show_file(file, as_json)


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="A record.")],
    model: Annotated[str, typer.Option(help="What to run it on, if not the model the record names.")] = "",
    tolerance: Annotated[
        float, typer.Option(help="Largest difference, relative to each value's largest entry.")
    ] = 1e-5,
    as_json: Json = False,
) -> None:
    """Run a record again, here, and compare every value. Status 0 only if model and values agree."""
    from weft.cli.files import replay_file

    raise typer.Exit(0 if replay_file(file, model, tolerance, as_json) else 1)


@app.command()
def reproduce(
    paper: Annotated[str, typer.Argument(help="Which; none lists them.")] = "",
    model: Annotated[
        str, typer.Option(help="What to run it on: a built-in's name, a hub id, a folder, or with --url a name there.")
    ] = "",
    url: Annotated[str, typer.Option("--url", help="Run it on the server there.")] = "",
    tokenizer: Annotated[str, typer.Option(help="Folder of a tokenizer, where the model has none of its own.")] = "",
    dtype: Annotated[str, typer.Option(help="bfloat16, float32, …; the model's own if not given.")] = "",
    device: Annotated[str, typer.Option(help="cuda, cpu, …; auto takes all devices there are.")] = "",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results; finished parts in it are not run again.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of prompts, splits and controls.")] = 0,
    only_right: Annotated[
        bool | None,
        typer.Option(
            "--only-right/--unfiltered",
            help="Ask only what the model answers rightly, or everything; with neither, everything only where a model "
            "that is not the paper's is right too seldom.",
        ),
    ] = None,
    as_list: Annotated[bool, typer.Option("--list", help="List the papers.")] = False,
    as_json: Json = False,
) -> None:
    """A paper's whole settings, run on a model, and its numbers with ours beside them.

    Status 0 only if it ran whole and nothing that can be compared differs.
    """
    from weft.cli.reproduce import list_papers, reproduce_paper

    if as_list or not paper:
        list_papers(as_json)
        return
    right = reproduce_paper(
        paper, model, url=url, tokenizer=tokenizer, dtype=dtype, device=device, out=out, seed=seed,
        only_right=only_right, as_json=as_json,
    )  # fmt: skip
    raise typer.Exit(0 if right else 1)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(context: typer.Context, name: Annotated[str, typer.Argument(help="Which; none lists them.")] = "") -> None:
    """Run one of the benchmarks behind a published figure: `weft bench trace`; `weft bench all` runs every one."""
    from weft.cli.benchmarks import run_bench

    raise typer.Exit(run_bench(name, context.args))


if __name__ == "__main__":
    main()
