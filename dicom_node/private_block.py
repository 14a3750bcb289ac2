"""Where the sealed record lives in a data set: a private block, found by its creator.

Elements of the block (0077,xx--), Private Creator ``MIAD-MARK 1``::

    (0077,xx01) CS  Mark Status: MARKED. For people and routers; nothing rests on it
    (0077,xx02) OB  Sealed Header
    (0077,xx03) OB  Sealed Payload

Both OB values begin with their length in 4 bytes, big-endian, since a value is padded to
an even length. The block is looked up by creator, never by number, as others may have
taken the first one (PS3.5 7.8.1), and the values are read from bytes, so that Implicit
VR and UN make no difference.

What is in the record is not known here.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from pydicom.datadict import add_private_dict_entries

from dicom_node.elements import header
from dicom_node.errors import MalformedObjectError
from miadmark_core.sealing.record import SealedRecord

if TYPE_CHECKING:
    from dicom_node.elements import Elements

GROUP: Final = 0x0077
CREATOR: Final = "MIAD-MARK 1"

CODING_SCHEME: Final = "99MIADMARK"
"""In whose terms a marked object says how it was derived."""

MAX_HEADER: Final = 64 * 1024
MAX_PAYLOAD: Final = 64 * 1024 * 1024

_STATUS, _HEADER, _PAYLOAD = 0x01, 0x02, 0x03

add_private_dict_entries(
    CREATOR,
    {
        GROUP << 16 | _STATUS: ("CS", "1", "Mark Status", ""),
        GROUP << 16 | _HEADER: ("OB", "1", "Sealed Header", ""),
        GROUP << 16 | _PAYLOAD: ("OB", "1", "Sealed Payload", ""),
    },
)


def find(elements: Elements) -> SealedRecord | None:
    """Return the sealed record that a data set carries, if it carries one.

    Raises:
        MalformedObjectError: The block is there, but not whole.
    """
    block = _block(elements)
    if block is None:
        return None
    try:
        return SealedRecord(
            _without_padding(elements, _tag(block, _HEADER), MAX_HEADER),
            _without_padding(elements, _tag(block, _PAYLOAD), MAX_PAYLOAD),
        )
    except (KeyError, struct.error, ValueError) as error:
        raise MalformedObjectError(
            "the private block of the mark is damaged",
            hint="It was changed after marking. Ask for the object again; or restore "
            "it where it was marked, from a copy without the block.",
        ) from error


def new_block(elements: Elements, record: SealedRecord) -> dict[int, bytes | None]:
    """Return the elements to add to a data set that carries no record.

    Raises:
        MalformedObjectError: No block of the group is free.
    """
    encoding = elements.encoding
    taken = {tag >> 8 & 0xFF for tag in elements.tags() if tag >> 16 == GROUP}
    taken |= {tag & 0xFF for tag in elements.tags() if tag >> 8 == GROUP << 8}
    block = next((b for b in range(0x10, 0x100) if b not in taken), None)
    if block is None:
        raise MalformedObjectError(f"group {GROUP:04X} has no free block")
    creator = GROUP << 16 | block
    values = {
        creator: ("LO", CREATOR.encode("ascii")),
        _tag(block, _STATUS): ("CS", b"MARKED"),
        _tag(block, _HEADER): ("OB", _with_length(record.header)),
        _tag(block, _PAYLOAD): ("OB", _with_length(record.payload)),
    }
    return {
        tag: header(tag, vr, len(value) + len(value) % 2, encoding)
        + value
        + (b"\0" if vr == "OB" else b" ") * (len(value) % 2)
        for tag, (vr, value) in values.items()
    }


def tags(elements: Elements) -> list[int]:
    """Return the tags of the block, its creator among them; none if there is none."""
    block = _block(elements)
    if block is None:
        return []
    own = [t for t in elements.tags() if t >> 16 == GROUP and t >> 8 & 0xFF == block]
    return [GROUP << 16 | block, *own]


def _block(elements: Elements) -> int | None:
    for block in range(0x10, 0x100):
        tag = GROUP << 16 | block
        if tag in elements:
            creator = bytes(elements.value_of(tag)).rstrip(b" \0")
            if creator == CREATOR.encode("ascii"):
                return block
    return None


def _tag(block: int, element: int) -> int:
    return GROUP << 16 | block << 8 | element


def _with_length(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def _without_padding(elements: Elements, tag: int, limit: int) -> bytes:
    value = elements.value_of(tag)
    (length,) = struct.unpack_from(">I", value)
    rest = bytes(value[4 + length :])
    if length > limit or len(value) < 4 + length or rest not in {b"", b"\0"}:
        raise ValueError("not as long as it says")
    return bytes(value[4 : 4 + length])
