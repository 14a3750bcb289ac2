"""PDUs as they come in over a socket (PS3.8 9.3): within a size, and within a time.

Nothing here knows what they say, but for the first of a connection, which has to ask for
an association.
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import socket

MAX_PDU: Final = 131_072
"""Bytes; the largest that DCMTK takes."""

HEADER: Final = 6
"""Bytes: type, one that is reserved, and the length of the rest (PS3.8 9.3)."""

_ASSOCIATE_RQ: Final = 0x01
KNOWN: Final = range(0x01, 0x08)
_LARGE: Final = range(0x01, 0x05)
"""A-ASSOCIATE and P-DATA; the others have four bytes."""
_SMALL_PDU: Final = 1024


class CutOffError(Exception):
    """The peer has broken a limit; it says which."""


def objection(header: bytes | bytearray) -> str | None:
    """Return what is wrong with the header of a PDU; None if nothing is."""
    kind, _, length = struct.unpack(">BBL", header)
    largest = MAX_PDU if kind in _LARGE else _SMALL_PDU
    if kind in KNOWN and length > largest:
        return f"a PDU of {length} bytes is announced, and {largest} are the most"
    return None


def association_request(connection: socket.socket, deadline: float) -> bytes:
    """Return the first PDU of a connection, which must ask for an association.

    Args:
        connection: Connected.
        deadline: Until when, by :func:`time.monotonic`.

    Raises:
        CutOffError: It is something else, or too large, or late.
        OSError: The peer is gone.
    """
    header = received(connection, HEADER, deadline)
    if len(header) < HEADER:
        raise OSError("closed")
    if header[0] != _ASSOCIATE_RQ:
        raise CutOffError("what came first is no association request")
    wrong = objection(header)
    if wrong is not None:
        raise CutOffError(wrong)
    length = int.from_bytes(header[2:], "big")
    body = received(connection, length, deadline)
    if len(body) < length:
        raise OSError("closed")
    return bytes(header + body)


def received(connection: socket.socket, count: int, deadline: float) -> bytearray:
    """Return ``count`` bytes, or fewer if the peer has closed.

    Raises:
        CutOffError: They were not there in time.
        OSError: The peer is gone.
    """
    content = bytearray(count)
    view, have = memoryview(content), 0
    while have < count:
        left = deadline - time.monotonic()
        if left <= 0:
            raise CutOffError("it did not come in time")
        connection.settimeout(left)
        try:
            got = connection.recv_into(view[have:])
        except TimeoutError:
            raise CutOffError("it did not come in time") from None
        if not got:
            break
        have += got
    view.release()
    del content[have:]
    return content


def abort_pdu(reason: int) -> bytes:
    """Return an A-ABORT of the service provider (PS3.8 9.3.8)."""
    return struct.pack(">BBLBBBB", 0x07, 0, 4, 0, 0, 2, reason)


def reject_pdu(result: int, source: int, diagnostic: int) -> bytes:
    """Return an A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
    return struct.pack(">BBLBBBB", 0x03, 0, 4, 0, result, source, diagnostic)
