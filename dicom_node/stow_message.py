"""The messages of STOW-RS (PS3.18 10.5): the body of a request, and what is answered.

Instances go as they lie in their files, one part each, so that a body is made of heads
and files and its length is known before anything is read. What is answered is believed of
the instances that it names, one by one, and of no other.

Nothing here knows a network or a file.
"""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

ANSWER_TYPE: Final = "application/dicom+json"

_REFERENCED: Final = "00081199"
_FAILED: Final = "00081198"
_INSTANCE: Final = "00081155"
_FAILURE_REASON: Final = "00081197"
_WARNING_REASON: Final = "00081196"

_SYNTAX_NOT_SUPPORTED: Final = 0xC122
_PASSING: Final = (0x0110, 0x0213)
_LONGEST_WAIT_S: Final = 24 * 3600.0


class Kind(Enum):
    """What became of an instance."""

    STORED = "stored"
    BUSY = "busy"
    """It failed, and may not the next time."""
    SYNTAX = "syntax"
    """Its transfer syntax is not taken."""
    REFUSED = "refused"
    """It failed, and would again."""
    UNSAID = "unsaid"
    """The answer does not name it."""


class Outcome(NamedTuple):
    """What an answer says of one instance."""

    kind: Kind
    reason: int = 0
    """Failure Reason or Warning Reason; 0 for none."""


UNSAID: Final = Outcome(Kind.UNSAID)


class AnswerError(ValueError):
    """What was answered says nothing of instances."""


def content_type(boundary: str) -> str:
    """Return the media type of a request (PS3.18 8.6.1.2.1)."""
    return f'multipart/related; type="application/dicom"; boundary={boundary}'


def part_head(boundary: str) -> bytes:
    """Return what comes before an instance.

    Its transfer syntax is not named: it stands in the file, and some servers take no
    media type but the bare one.
    """
    return f"\r\n--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode(
        "ascii"
    )


def tail(boundary: str) -> bytes:
    """Return what comes after the last instance."""
    return f"\r\n--{boundary}--\r\n".encode("ascii")


def body_size(boundary: str, sizes: Iterable[int]) -> int:
    """Return the length of a body.

    Args:
        boundary: Between its parts.
        sizes: Of the files in it.
    """
    head = len(part_head(boundary))
    return sum(head + size for size in sizes) + len(tail(boundary))


def body(boundary: str, files: Iterable[Iterable[bytes]]) -> Iterator[bytes]:
    """Yield a body piece by piece.

    Args:
        boundary: Between its parts; nothing that is in a file.
        files: Each piece by piece.
    """
    for pieces in files:
        yield part_head(boundary)
        yield from pieces
    yield tail(boundary)


def outcomes(answer: bytes) -> dict[str, Outcome]:
    """Return what an answer says, by SOP Instance UID.

    An instance that is named both ways has failed.

    Args:
        answer: A Store Instances Response Module in the DICOM JSON model.

    Raises:
        AnswerError: It is something else.

    Source:
        PS3.18 10.5.3 and table I.2-2, PS3.3 C.12.1 for the failure reasons.
    """
    try:
        said = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise AnswerError("what is answered is no JSON") from error
    if isinstance(said, list):
        said = said[0] if len(said) == 1 else None
    if not isinstance(said, dict):
        raise AnswerError("what is answered is no data set")
    found: dict[str, Outcome] = {}
    for item in _items(said, _REFERENCED):
        found[_instance(item)] = Outcome(Kind.STORED, _number(item, _WARNING_REASON))
    for item in _items(said, _FAILED):
        reason = _number(item, _FAILURE_REASON)
        found[_instance(item)] = Outcome(_kind_of(reason), reason)
    return found


def retry_after(value: str | None, now: datetime) -> float:
    """Return how many seconds a server wants to be left alone; 0 if it does not say.

    Args:
        value: Of the header Retry-After (RFC 9110 10.2.3), if it is there.
        now: Aware.
    """
    if value is None:
        return 0.0
    try:
        wait_s = float(value)
    except ValueError:
        try:
            wait_s = (parsedate_to_datetime(value) - now).total_seconds()
        except (ValueError, TypeError):
            return 0.0
    return min(max(wait_s, 0.0), _LONGEST_WAIT_S) if wait_s == wait_s else 0.0  # noqa: PLR0124


def _kind_of(reason: int) -> Kind:
    if reason >> 8 == 0xA7 or reason in _PASSING:
        return Kind.BUSY
    return Kind.SYNTAX if reason == _SYNTAX_NOT_SUPPORTED else Kind.REFUSED


def _items(said: dict[str, Any], tag: str) -> Iterator[dict[str, Any]]:
    element = said.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    for item in values if isinstance(values, list) else ():
        if isinstance(item, dict):
            yield item


def _first(item: dict[str, Any], tag: str) -> object:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None


def _instance(item: dict[str, Any]) -> str:
    return str(_first(item, _INSTANCE) or "")


def _number(item: dict[str, Any], tag: str) -> int:
    value = _first(item, tag)
    try:
        return int(value) & 0xFFFF if isinstance(value, (int, str)) else 0
    except ValueError:
        return 0
