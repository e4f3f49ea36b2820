"""`python -m weft.serve`: what `background` starts. People use `weft serve`."""

from __future__ import annotations

import argparse
import json
import socket

from weft.serve.launch import run
from weft.serve.settings import ModelSpec


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m weft.serve")
    parser.add_argument("--socket", type=int, required=True, help="number of the inherited socket that listens")
    parser.add_argument("--alive", type=int, required=True, help="number of the inherited pipe whose end is ours")
    parser.add_argument("--given", type=json.loads, required=True, help="models, folder and settings as JSON")
    options = parser.parse_args()
    models = [ModelSpec(**each) for each in options.given["models"]]
    listening = socket.socket(fileno=options.socket)
    run(models, folder=options.given["folder"], sock=listening, alive=options.alive, **options.given["settings"])


if __name__ == "__main__":
    main()
