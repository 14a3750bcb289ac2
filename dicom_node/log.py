"""One event a line: time, level, module, what happened. UIDs yes; names and dates never.

Configured once, by whoever starts a process. An error of a library may quote the value
that it tripped over, which is a patient's: of what is not this program's own, only the
kind of error and where it arose are told.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from dicom_node.errors import NodeError
from miadmark_core.errors import MiadMarkError

if TYPE_CHECKING:
    from types import TracebackType

    _ExcInfo = (
        tuple[type[BaseException], BaseException, TracebackType | None]
        | tuple[None, None, None]
    )

_LONGEST: Final = 2000
_FIELD: Final = re.compile(r"(\w+)=%[a-z.0-9]*[a-z]")
_PLACE: Final = re.compile(r"%[a-z.0-9]*[a-z]")


class Format(StrEnum):
    """How lines are written."""

    PLAIN = "plain"
    JSON = "json"
    """An object a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Logging:
    """The table ``[log]``."""

    format: Format = Format.PLAIN


def configure(kind: Format = Format.PLAIN, level: str = "INFO") -> None:
    """Send this program's events to standard error, and libraries' warnings with them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if kind is Format.JSON else PlainFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("dicom_node").setLevel(level)
    # Below error, pynetdicom describes messages at length, patients included.
    logging.getLogger("pynetdicom").setLevel(logging.ERROR)
    logging.getLogger("pydicom").setLevel(logging.ERROR)
    # They quote what they warn about.
    logging.captureWarnings(capture=True)
    logging.getLogger("py.warnings").setLevel(logging.CRITICAL)


class PlainFormatter(logging.Formatter):
    """A line for people, and the places of an error below it."""

    def __init__(self) -> None:
        """Set the form of a line."""
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802 its name there
        """Return where an error arose, and of which kind it is."""
        return "\n".join(_told(ei[1]))


class JsonFormatter(logging.Formatter):
    """An object a line: ``at``, ``level``, ``logger``, ``event``, and what it names.

    A message ``sent instance=%s to=%s`` becomes the event ``sent`` with the fields
    ``instance`` and ``to``; ``message`` is the line that people would read.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        template = str(record.msg)
        values: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(
                timespec="milliseconds"
            ),
            "level": record.levelname,
            "logger": record.name,
            "event": _PLACE.split(_FIELD.split(template)[0])[0].strip(" :"),
            "message": record.getMessage()[:_LONGEST],
        }
        values |= {n: v for n, v in _fields(record).items() if n not in values}
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            values |= {"error": type(error).__name__, "trace": _told(error)}
        return json.dumps(values)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """Return what the message names, in its order."""
    args = record.args if isinstance(record.args, tuple) else ()
    places = list(_PLACE.finditer(str(record.msg)))
    if len(places) != len(args):
        return {}
    named = {field.end(): field.group(1) for field in _FIELD.finditer(str(record.msg))}
    return {
        named[place.end()]: value if isinstance(value, (int, float)) else _short(value)
        for place, value in zip(places, args, strict=True)
        if place.end() in named
    }


def _short(value: object) -> str:
    return str(value)[:_LONGEST]


def _told(error: BaseException | None) -> list[str]:
    """Return an error line by line, the first cause first."""
    lines: list[str] = []
    while error is not None and len(lines) < 200:
        own = [f"{type(error).__name__}{_said(error)}", *_places(error.__traceback__)]
        lines = [*own, *lines]
        error = error.__cause__ or (
            None if error.__suppress_context__ else error.__context__
        )
    return lines


def _said(error: BaseException) -> str:
    """Return what an error says, if it is of those that never quote a data set."""
    if isinstance(error, (NodeError, MiadMarkError)):
        return f": {error}"
    if isinstance(error, OSError) and error.strerror:
        return f": {error.strerror}"
    return ""


def _places(trace: TracebackType | None) -> list[str]:
    return [
        f"  {frame.filename}:{frame.lineno} in {frame.name}"
        for frame in traceback.extract_tb(trace, limit=-20)
    ]
