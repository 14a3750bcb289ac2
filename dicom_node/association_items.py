"""Whether an association request is put together as it says it is (PS3.8 9.3.2).

pynetdicom reads what it can of items that do not fit, an identity among them. Here a
request whose lengths do not add up is no request. Pure: bytes in, a verdict out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIXED: Final = 74
"""Bytes before the first item, the header of the PDU included."""
_PRESENTATION_CONTEXT: Final = 0x20
_USER_INFORMATION: Final = 0x50
_USER_IDENTITY: Final = 0x58
_IDENTITY_TYPES: Final = range(1, 6)  # PS3.7 table D.3-14


class MisfitError(ValueError):
    """A length leads beyond what there is; it says of which item."""


def check(request: bytes) -> None:
    """Return if every item of an A-ASSOCIATE-RQ fits.

    Args:
        request: The whole PDU.

    Raises:
        MisfitError: One does not, or a user identity is none.
    """
    if len(request) < _FIXED:
        raise MisfitError("it is cut short")
    for kind, content in _items(request[_FIXED:]):
        if kind == _PRESENTATION_CONTEXT:
            for _ in _items(content[4:]):
                pass
        elif kind == _USER_INFORMATION:
            for inner, value in _items(content):
                if inner == _USER_IDENTITY:
                    _check_identity(value)


def _items(content: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(content):
        end = at + 4 + int.from_bytes(content[at + 2 : at + 4], "big")
        if end > len(content) or at + 4 > len(content):
            raise MisfitError(f"item 0x{content[at]:02X} does not fit")
        yield content[at], content[at + 4 : end]
        at = end


def _check_identity(value: bytes) -> None:
    """Check a user identity: its type, and two fields with their lengths.

    Source:
        PS3.7 D.3.3.7.1.
    """
    at = 2
    for _ in range(2):
        at += 2 + int.from_bytes(value[at : at + 2], "big")
    if at != len(value) or value[0] not in _IDENTITY_TYPES:
        raise MisfitError("the user identity is none")
