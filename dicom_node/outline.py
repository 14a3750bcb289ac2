"""A large object without what is in its large values: enough to find its elements.

What is looked at as an object comes in are its elements, their lengths, what stands in
sequences, and small values. Of a sealed file only that is put into memory; the pixels are
holes, read as zeros, so that an object of two gigabytes takes what it says beside them.

Whoever finds something else in an outline than in its object finds less, and refuses: a
value that may hold items is there as a whole.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from pydicom import uid

from dicom_node.errors import MalformedObjectError
from dicom_node.extents import ITEM, LONG_VRS, UNDEFINED, VRS
from dicom_node.file_meta import read_head
from dicom_node.mapped import CHUNK, IN_MEMORY
from dicom_node.part10 import Encoding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from dicom_node.mapped import Readable, Source

_LEFT_OUT: Final = 1 << 20
"""Bytes of a value from which it is left out."""
_PIXEL_DATA: Final = 0x7FE00010
_SEEN: Final = 64
"""Bytes of such a value that are there all the same: they tell whether it holds items."""
_DELIMITERS: Final = frozenset({0xFFFEE00D, 0xFFFEE0DD})


def outline(source: Source) -> memoryview:
    """Return a file with holes where its large values are.

    Raises:
        MalformedObjectError: It says too much beside its large values.
        OSError: It cannot be read.
    """
    head = read_head(source)
    encoding = Encoding.of(uid.UID(head.transfer_syntax_uid))
    memory = os.memfd_create("outline")
    with os.fdopen(memory, "w+b") as drawn, source.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        drawn.truncate(size)
        kept, start = 0, 0
        for hole, end in (*_holes(stream, head.size, size, encoding), (size, size)):
            kept += hole - start
            if kept >= IN_MEMORY:
                raise MalformedObjectError(
                    f"more than {IN_MEMORY >> 20} MB beside its pixels",
                    hint="Nobody can find out what it is without reading all of it.",
                )
            drawn.seek(start)
            _copy(stream, start, hole, drawn)
            start = end
        drawn.flush()
        return memoryview(mmap.mmap(drawn.fileno(), 0, access=mmap.ACCESS_READ))


def _copy(stream: Readable, start: int, end: int, drawn: IO[bytes]) -> None:
    stream.seek(start)
    while start < end and (piece := stream.read(min(CHUNK, end - start))):
        start += drawn.write(piece)


def _holes(
    stream: Readable, position: int, size: int, encoding: Encoding
) -> Iterator[tuple[int, int]]:
    """Go through the elements of a data set; yield where large values start and end.

    What is of undefined length is entered, what says its length is passed. Where
    something is not as it should be there are no more holes.
    """
    long = struct.Struct("<I" if encoding.is_little_endian else ">I")
    numbers = struct.Struct("<HH" if encoding.is_little_endian else ">HH")
    item = numbers.pack(ITEM >> 16, ITEM & 0xFFFF)
    inside = [_Inside(encoding.is_implicit_vr)]
    while inside and position < size:
        stream.seek(position)
        # Tag and length of an element, and as much of its value as tells what it is.
        start = stream.read(32)
        if len(start) < 8:
            return
        level = inside[-1]
        group, number = numbers.unpack_from(start)
        tag = group << 16 | number
        if tag in _DELIMITERS:
            inside.pop()
            position += 8
            continue
        vr = b"" if tag == ITEM or level.is_implicit else start[4:6]
        if vr and vr not in VRS:
            return
        if vr and vr not in LONG_VRS:
            short = start[6:8]
            position += 8 + int.from_bytes(
                short, "little" if encoding.is_little_endian else "big"
            )
            continue
        at = 12 if vr else 8
        if len(start) < at:
            return
        (length,) = long.unpack_from(start, at - 4)
        value = position + at
        if length == UNDEFINED:
            is_pixels = vr in {b"OB", b"OW"} or (not vr and tag == _PIXEL_DATA)
            is_implicit = level.is_implicit
            if vr == b"UN":
                # As the scan takes it (PS3.5 6.2.2), and senders who never heard of it.
                is_implicit = start[at + 12 : at + 14] not in VRS
            inside.append(_Inside(is_implicit, is_pixels))
            position = value
            continue
        position = value + length
        # A fragment is never looked into, nor is a value that holds no items.
        is_shut = level.is_fragments if tag == ITEM else start[at : at + 4] != item
        if is_shut and length >= _LEFT_OUT and position <= size:
            yield value + _SEEN, position


class _Inside(NamedTuple):
    """What a position is inside of."""

    is_implicit: bool
    is_fragments: bool = False
