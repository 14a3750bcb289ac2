"""The messages of storing, as bytes: requests to store or to echo, and their answers.

Command sets are Implicit VR Little Endian whatever the data set is (PS3.7 6.3.1), and of
a C-STORE there are seven elements, always the same. pynetdicom makes and reads them by
way of data sets, which takes longer than all else that sending an object costs here.

Nothing here knows a socket, a file or a data set.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dicom_node.mapped import Buffer

P_DATA: Final = 0x04
COMMAND: Final = 0x01
LAST: Final = 0x02
PDV_HEADER: Final = 12
"""Bytes that one value in a P-DATA-TF takes before its fragment (PS3.8 9.3.5)."""

STORE_RESPONSE: Final = 0x8001
ECHO_RESPONSE: Final = 0x8030
_STORE_REQUEST: Final = 0x0001
_ECHO_REQUEST: Final = 0x0030
_MEDIUM: Final = 0x0000
_WITH_DATASET: Final = 0x0001
_WITHOUT_DATASET: Final = 0x0101
_VERIFICATION: Final = "1.2.840.10008.1.1"


class ResponseError(Exception):
    """What came is no answer to the request."""


class Response(NamedTuple):
    """A response to a request."""

    message: int
    """Of the request that it answers."""
    status: int


class Value(NamedTuple):
    """One presentation data value."""

    context: int
    is_command: bool
    is_last: bool
    fragment: bytes


def store_request(message: int, sop_class: str, sop_instance: str) -> bytes:
    """Return the command set of a C-STORE request (PS3.7 9.3.1.1).

    Args:
        message: Its number, below 65536.
        sop_class: Affected SOP Class UID.
        sop_instance: Affected SOP Instance UID.
    """
    elements = b"".join(
        (
            _uid(0x0002, sop_class),
            _number(0x0100, _STORE_REQUEST),
            _number(0x0110, message),
            _number(0x0700, _MEDIUM),
            _number(0x0800, _WITH_DATASET),
            _uid(0x1000, sop_instance),
        )
    )
    return struct.pack("<HHLL", 0, 0, 4, len(elements)) + elements


def echo_request(message: int) -> bytes:
    """Return the command set of a C-ECHO request (PS3.7 9.3.5.1).

    Args:
        message: Its number, below 65536.
    """
    elements = b"".join(
        (
            _uid(0x0002, _VERIFICATION),
            _number(0x0100, _ECHO_REQUEST),
            _number(0x0110, message),
            _number(0x0800, _WITHOUT_DATASET),
        )
    )
    return struct.pack("<HHLL", 0, 0, 4, len(elements)) + elements


def read_response(command: bytes, kind: int = STORE_RESPONSE) -> Response:
    """Return what a command set says.

    Args:
        command: The command set.
        kind: Which response it should be.

    Raises:
        ResponseError: It is another, or none.
    """
    values: dict[int, int] = {}
    position = 0
    try:
        while position < len(command):
            group, element, length = struct.unpack_from("<HHL", command, position)
            position += 8
            if group == 0 and length == 2:
                (values[element],) = struct.unpack_from("<H", command, position)
            position += length
        is_whole = position == len(command)
        is_answer = is_whole and values[0x0100] == kind
        response = Response(values[0x0120], values[0x0900])
    except (struct.error, KeyError):
        is_answer = False
    if not is_answer:
        raise ResponseError("what came is no answer to the request")
    return response


def pdu_header(context: int, flags: int, size: int) -> bytes:
    """Return what comes before a fragment in a P-DATA-TF that holds nothing else.

    Args:
        context: Presentation context.
        flags: Of :data:`COMMAND` and :data:`LAST`.
        size: Bytes of the fragment.
    """
    return struct.pack(">BBLLBB", P_DATA, 0, size + 6, size + 2, context, flags)


def values(content: Buffer) -> Iterator[Value]:
    """Yield what is in a P-DATA-TF, its first six bytes taken off.

    Raises:
        ResponseError: It is damaged.
    """
    position = 0
    while position < len(content):
        try:
            size, context, flags = struct.unpack_from(">LBB", content, position)
        except struct.error as error:
            raise ResponseError("a P-DATA-TF is cut short") from error
        end = position + 4 + size
        if size < 2 or end > len(content):
            raise ResponseError("a P-DATA-TF is cut short")
        yield Value(
            context,
            bool(flags & COMMAND),
            bool(flags & LAST),
            bytes(content[position + 6 : end]),
        )
        position = end


def _uid(element: int, value: str) -> bytes:
    encoded = value.encode("ascii")
    encoded += b"\0" * (len(encoded) % 2)
    return struct.pack("<HHL", 0, element, len(encoded)) + encoded


def _number(element: int, value: int) -> bytes:
    return struct.pack("<HHLH", 0, element, 2, value)
