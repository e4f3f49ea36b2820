"""`python -m weft.worker --fd 5 --source gpt2`: started by the server, with one end of a socket pair."""

from __future__ import annotations

import argparse
import json
import signal

from weft.ir.limits import Limits
from weft.record.channel import Channel
from weft.worker.engine import Engine, find_loader
from weft.worker.loop import serve


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m weft.worker", description="Own one model and run jobs on it.")
    parser.add_argument("--fd", type=int, required=True, help="number of the inherited socket to the server")
    parser.add_argument("--source", required=True, help="built-in name, folder or hub id of the model")
    parser.add_argument("--loader", default="weft.worker.engine:load", help="module:function that loads it")
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="for the loader, e.g. dtype=float64"
    )
    parser.add_argument("--limits", default="{}", help="the limits an experiment is checked against, as JSON")
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the server decides what it means
    options = dict(each.split("=", 1) for each in given.option)

    def make() -> Engine:
        return find_loader(given.loader)(given.source, options)

    serve(Channel.inherited(given.fd), make, Limits(**json.loads(given.limits)))


if __name__ == "__main__":
    main()
