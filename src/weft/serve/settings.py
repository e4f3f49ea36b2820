"""How a server is set up.

Settings(models=(ModelSpec("bobbin"),), folder=Path("~/.weft").expanduser())
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from weft.errors import RefusedError
from weft.ir.limits import DEFAULT, GIB, MIB, Limits

LOADER = "weft.worker.engine:load"


@dataclass(frozen=True)
class ModelSpec:
    """One model to serve: the name it is asked for by, where it comes from, and who loads it."""

    name: str
    source: str = ""
    loader: str = LOADER
    options: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def origin(self) -> str:
        return self.source or self.name


@dataclass(frozen=True)
class Settings:
    """Models, places and limits. `database` is an SQLAlchemy URL; by default SQLite in `folder`.

    Limits: `body_bytes` of one posted experiment, `check_seconds` and `check_bytes` (of address space) to check it,
    `value_bytes` of the values that stay for one key and model, `keep_seconds` after their last use until they are freed,
    `attempts` at a job whose worker died under it, `cancel_seconds` for a worker to stop before it is killed.
    """

    models: tuple[ModelSpec, ...]
    folder: Path
    database: str = ""
    limits: Limits = DEFAULT
    body_bytes: int = 256 * MIB
    check_seconds: float = 30.0
    check_bytes: int = 2048 * MIB
    value_bytes: int = 64 * GIB
    keep_seconds: float = 7 * 24 * 3600.0
    attempts: int = 3
    cancel_seconds: float = 10.0

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.folder / 'weft.sqlite'}"


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine, seen from itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refuse_open_bind(host: str) -> None:
    """RefusedError unless `host` is this machine alone: there are no keys to keep anybody else out."""
    # A later issue brings keys; a bind to other addresses is then allowed as soon as there is one.
    if not is_loopback(host):
        raise RefusedError(
            f"weft does not serve on {host!r}: anybody who can reach that address could use your models, and this "
            "version has no keys to keep them out. Serve on 127.0.0.1 and reach it through a tunnel, e.g. "
            "ssh -L 7787:127.0.0.1:7787 HOST",
            host=host,
        )
