"""Every error weft raises on purpose.

    WeftError
    ├── ProgramError            the experiment as written is not legal
    │   ├── ShapeError              shapes that do not fit one another
    │   ├── DtypeError              a dtype where another is needed
    │   ├── OpError                 an operation weft does not know, or will not run
    │   ├── SiteError               a site the model does not have (also an AttributeError)
    │   ├── CausalityError          a write that depends on something computed later
    │   ├── PositionError           a place in the text: not found, repeated, or on padding
    │   ├── GradientError           a gradient that would be incomplete
    │   └── BoundsError             an index outside the tensor it indexes
    ├── TraceError              a traced value used as what it is not
    │   ├── NoValueError            looked at before it was computed
    │   ├── NotSavedError           used after the block without having been saved
    │   ├── SessionError            used in, or after the failure of, another session
    │   └── OutsideWriteError       a traced value written into an ordinary tensor
    ├── ModelError              a model cannot be loaded, or lacks what was asked of it
    │   └── TokenError              text or tokens the tokenizer cannot take as given
    ├── LimitError              more memory, work, nodes or bytes than is allowed
    ├── FormatError             a file or message that is not what it says it is
    ├── ExecutionError          a legal experiment that failed while it ran
    └── ServiceError            the road to or from a server
        ├── UnreachableError        no server answers there
        ├── NotFoundError           no such job, model or result
        ├── JobCancelledError       the job was cancelled
        └── RefusedError            the server refused the request

An error crosses processes as data (`to_data`, `from_data`) under its `code`, which never changes; the client raises the
same class again, with the line of the user's own program.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Location:
    """A line of the user's own program."""

    file: str
    line: int
    text: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}"
        return f"{place}\n    {self.text}" if self.text else place


class WeftError(Exception):
    """Base of every error weft raises on purpose; `message`, `where` (the user's line) and `details` are data."""

    code: ClassVar[str] = "weft"

    def __init__(self, message: str, *, where: Location | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.details = details

    def __str__(self) -> str:
        return f"{self.message}\n  at {self.where}" if self.where else self.message

    def at(self, where: Location | None) -> WeftError:
        """The same error, pointing at `where` unless it points somewhere already."""
        if self.where is None:
            self.where = where
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (from_data, (self.to_data(),))

    def to_data(self) -> dict[str, Any]:
        """The error as plain JSON data."""
        where = self.where
        place = None if where is None else {"file": where.file, "line": where.line, "text": where.text}
        return {"code": self.code, "message": self.message, "where": place, "details": _plain(self.details)}


class ProgramError(WeftError):
    code = "program"


class ShapeError(ProgramError):
    code = "shape"


class DtypeError(ProgramError):
    code = "dtype"


class OpError(ProgramError):
    code = "op"


class SiteError(ProgramError, AttributeError):
    code = "site"


class CausalityError(ProgramError):
    code = "causality"


class PositionError(ProgramError):
    code = "position"


class GradientError(ProgramError):
    code = "gradient"


class BoundsError(ProgramError):
    code = "bounds"


class TraceError(WeftError):
    code = "trace"


class NoValueError(TraceError):
    code = "no-value"


class NotSavedError(TraceError):
    code = "not-saved"


class SessionError(TraceError):
    code = "session"


class OutsideWriteError(TraceError):
    code = "outside-write"


class ModelError(WeftError):
    code = "model"


class TokenError(ModelError):
    code = "token"


class LimitError(WeftError):
    code = "limit"


class FormatError(WeftError):
    code = "format"


class ExecutionError(WeftError):
    code = "execution"


class ServiceError(WeftError):
    code = "service"


class UnreachableError(ServiceError):
    code = "unreachable"


class NotFoundError(ServiceError):
    code = "not-found"


class JobCancelledError(ServiceError):
    code = "job-cancelled"


class RefusedError(ServiceError):
    code = "refused"


def _tree(cls: type[WeftError]) -> list[type[WeftError]]:
    return [cls, *(each for sub in cls.__subclasses__() for each in _tree(sub))]


BY_CODE: dict[str, type[WeftError]] = {cls.code: cls for cls in _tree(WeftError)}


def from_data(data: dict[str, Any]) -> WeftError:
    """Rebuild an error from `to_data`; an unknown code becomes a plain WeftError that names it."""
    code, place = str(data.get("code", "weft")), data.get("where")
    where = Location(str(place["file"]), int(place["line"]), str(place.get("text", ""))) if place else None
    message = str(data.get("message", ""))
    if code not in BY_CODE:
        return WeftError(f"{message} (unknown error code {code!r})", where=where)
    return BY_CODE[code](message, where=where, **dict(data.get("details") or {}))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
