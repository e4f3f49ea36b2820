"""The process that parses and checks what was posted, before anything is accepted: `python -m weft.serve.checker`.

No torch here, and nothing of the user's is run: a program is parsed and compared with the table and the model's card.
It is a process of its own so that the worst file can cost no more than this process: its address space is bounded, and
the server's event loop never waits for it.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
from functools import lru_cache
from pathlib import Path

from weft.errors import FormatError, LimitError, WeftError
from weft.ir.card import Card
from weft.ir.limits import Limits
from weft.ir.nodes import Experiment, Keep
from weft.record.channel import Channel
from weft.record.held import held_in
from weft.record.locations import pointed, read_body
from weft.record.messages import Check, Checked, Failed, Message

RECYCLE_BYTES = 320 << 20
"""After a check that needed more than this, the process ends, and the next check begins in a fresh one."""


@lru_cache(maxsize=16)
def read_card(path: str) -> Card:
    """The card in a file. Files are named by their content, so one read is enough."""
    from weft.ir.cardjson import card_from_json

    return card_from_json(Path(path).read_bytes())


def check_file(message: Check, limits: Limits) -> Message:
    """Parse and check one posted body."""
    from weft.ir.check import check
    from weft.ir.hash import content_hash

    experiment: Experiment | None = None
    try:
        experiment = read_body(
            Path(message.experiment).read_bytes(), message.locations, limits, held_in(message.values)
        )
        card = read_card(message.card)
        if card.kind != "module":  # a raw module's sites depend on the inputs' values: its worker checks
            check(experiment, card, limits)
        kept = [node.name for node in experiment.nodes if isinstance(node, Keep)]
        return Checked(message.job, content_hash(experiment), len(experiment.nodes), kept)
    except WeftError as error:
        return Failed(message.job, pointed(error, experiment).to_data())
    except (MemoryError, RecursionError) as error:
        return Failed(
            message.job, LimitError(f"this experiment is too large to be checked ({type(error).__name__})").to_data()
        )
    except Exception as error:
        # A file that makes the checker itself stumble is refused like any other bad file, never passed on.
        return Failed(
            message.job, FormatError(f"this experiment cannot be checked: {type(error).__name__}: {error}").to_data()
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m weft.serve.checker")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--limits", default="{}", help="JSON")
    parser.add_argument("--memory", type=int, required=True, help="bytes of address space")
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the server decides what it means
    resource.setrlimit(resource.RLIMIT_AS, (given.memory, given.memory))
    limits, channel = Limits(**json.loads(given.limits)), Channel.inherited(given.fd)
    while (message := channel.receive()) is not None:
        assert isinstance(message, Check)
        channel.send(check_file(message, limits))
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > RECYCLE_BYTES:
            break


if __name__ == "__main__":
    main()
