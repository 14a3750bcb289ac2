"""A data set in another uncompressed encoding: its values as they were, byte for byte.

Only what stands before a value is written anew, so that character sets, values with odd
padding and elements that no dictionary knows come through untouched; libraries decode
and encode every value, and lose what they find wrong. Explicit VR is dropped or found:
by the dictionaries for public elements and for private ones whose creator is known, and
UN for all else (PS3.5 6.2.2). Numbers are turned round by their VR between big and
little endian.

Group lengths, which are retired, are worked out again. Encapsulated Pixel Data is never
met: it has no other encoding.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np
from pydicom.datadict import dictionary_VR, private_dictionary_VR

from dicom_node.elements import PIXEL_DATA, header
from dicom_node.errors import MalformedObjectError
from dicom_node.extents import LONG_VRS, UNDEFINED, VRS
from dicom_node.mapped import joined
from dicom_node.part10 import Encoding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dicom_node.mapped import Buffer

_Parts = list["Buffer"]
_Order = Literal["big", "little"]

MAX_DEPTH: Final = 32
"""Of sequences within sequences."""

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_IMPLICIT: Final = Encoding(is_implicit_vr=True, is_little_endian=True)
_BITS_ALLOCATED, _REPRESENTATION = 0x00280100, 0x00280103
_WAVEFORM_BITS: Final = 0x54001004
_WAVEFORMS: Final = frozenset({0x54000110, 0x54000112, 0x5400100A, 0x54001010})
_WIDTHS: Final = {
    **dict.fromkeys(("AT", "OW", "SS", "US"), 2),
    **dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), 4),
    **dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), 8),
}
"""Bytes that a number takes; of other VRs, order means nothing (PS3.5 7.3)."""


def reencoded(
    encoded: Buffer, source: Encoding, target: Encoding, *, is_signed: bool = False
) -> Buffer:
    """Return a data set in another encoding.

    Args:
        encoded: A data set without encapsulated Pixel Data.
        source: How it is encoded.
        target: How it is to be.
        is_signed: Whether pixels are, if the data set does not say so itself.

    Raises:
        MalformedObjectError: A length does not fit, or sequences are nested too deep.
    """
    if source == target:
        return encoded
    try:
        order: _Order = "little" if source.is_little_endian else "big"
        facts = _Facts(order, {_REPRESENTATION: int(is_signed)})
        written = _Writer(source, target).dataset(memoryview(encoded), facts, 0)
    except struct.error as error:
        raise MalformedObjectError(
            "the data set ends in the middle of an element"
        ) from error
    return joined(written, _size(written))


class _Facts:
    """What elements said that the VR of a later one rests on; items inherit them."""

    def __init__(self, order: _Order, numbers: Mapping[int, int]) -> None:
        self.order, self.numbers = order, dict(numbers)
        """The byte order that elements are in when they are noted."""
        self.creators: dict[int, str] = {}

    def note(self, tag: int, value: Buffer) -> None:
        group, element = tag >> 16, tag & 0xFFFF
        is_number = tag in {_BITS_ALLOCATED, _REPRESENTATION, _WAVEFORM_BITS}
        if is_number and len(value) == 2:
            self.numbers[tag] = int.from_bytes(value, self.order)
        elif group & 1 and 0x10 <= element <= 0xFF:
            self.creators[group << 8 | element] = (
                bytes(value[:64]).decode("ascii", "replace").strip(" \0")
            )

    def vr(self, tag: int) -> str:
        """Return the VR of an element that was encoded without one; UN if unknown."""
        group, element = tag >> 16, tag & 0xFFFF
        if element == 0:
            return "UL"
        if group & 1:
            if 0x10 <= element <= 0xFF:
                return "LO"
            creator = self.creators.get(group << 8 | element >> 8, "")
            try:
                found = private_dictionary_VR(tag, creator)
            except KeyError:
                return "UN"
        else:
            try:
                found = dictionary_VR(tag)
            except KeyError:
                return "UN"
        return self._settled(tag, found)

    def _settled(self, tag: int, vr: str) -> str:
        """Choose where the dictionary leaves a choice (PS3.5 A.1, A.2, PS3.6)."""
        if vr == "US or SS":
            return "SS" if self.numbers.get(_REPRESENTATION) else "US"
        if "or" not in vr:
            return vr if len(vr) == 2 else "UN"
        if tag == PIXEL_DATA and self.numbers.get(_BITS_ALLOCATED, 16) <= 8:
            return "OB"
        if tag in _WAVEFORMS and self.numbers.get(_WAVEFORM_BITS) == 8:
            return "OB"
        return "OW"


class _Found(NamedTuple):
    tag: int
    vr: str
    value: int
    length: int


class _Writer:
    def __init__(self, source: Encoding, target: Encoding) -> None:
        self.source, self.target = source, target
        order = "<" if source.is_little_endian else ">"
        self.order = "<" if target.is_little_endian else ">"
        self.tag = struct.Struct(f"{order}HH")
        self.short = struct.Struct(f"{order}H")
        self.long = struct.Struct(f"{order}I")

    def dataset(self, data: memoryview, facts: _Facts, depth: int) -> _Parts:
        """Return the elements of ``data``, which holds nothing else."""
        parts: list[tuple[int, _Parts]] = []
        position = 0
        while position < len(data):
            tag, part, position = self.element(data, position, facts, depth)
            parts.append((tag, part))
        return self.with_group_lengths(parts)

    def element(
        self, data: memoryview, position: int, facts: _Facts, depth: int
    ) -> tuple[int, _Parts, int]:
        """Return tag and encoding of the element at ``position``, and where it ends."""
        found = self.found(data, position, facts)
        is_undefined = found.length == UNDEFINED
        if is_undefined and found.vr == "UN" and not self.source.is_implicit_vr:
            # A sequence of unknown VR is Implicit VR inside, whatever is around it.
            reader = _Writer(_IMPLICIT, _IMPLICIT)
            inner, end = reader.items(data, found.value, facts, depth + 1)
            start = header(found.tag, "UN", UNDEFINED, self.target)
            return found.tag, [start, *inner, reader.bound(_SEQUENCE_END, 0)], end
        if is_undefined and found.vr not in {"SQ", "UN"}:
            raise MalformedObjectError("an element other than a sequence has no length")
        if is_undefined:
            inner, end = self.items(data, found.value, facts, depth + 1)
            return found.tag, self.written(found.tag, "SQ", inner, end=True), end
        end = found.value + found.length
        if end > len(data):
            raise MalformedObjectError("an element is longer than what it stands in")
        value = data[found.value : end]
        if found.vr == "SQ":
            try:
                inner, _ = self.items(value, 0, facts, depth + 1, is_all=True)
            except (MalformedObjectError, struct.error):
                # It or a dictionary calls it a sequence, and its bytes are none: they go
                # on as they are, and mean to whoever reads them what they meant before.
                return found.tag, self.written(found.tag, "UN", [value]), end
            return found.tag, self.written(found.tag, "SQ", inner), end
        is_in_words = (
            found.tag == PIXEL_DATA and facts.numbers.get(_BITS_ALLOCATED) == 16
        )
        # Samples of 16 bits are words, whatever the VR says of them.
        plain = self.turned("OW" if is_in_words else found.vr, value)
        facts.note(found.tag, value)
        vr = found.vr
        if vr.encode() not in LONG_VRS and len(plain) > 0xFFFF:
            vr = "UN"  # PS3.5 6.2.2, note 1
        return found.tag, self.written(found.tag, vr, [plain]), end

    def found(self, data: memoryview, position: int, facts: _Facts) -> _Found:
        group, element = self.tag.unpack_from(data, position)
        tag = group << 16 | element
        if self.source.is_implicit_vr:
            (length,) = self.long.unpack_from(data, position + 4)
            vr = facts.vr(tag)
            if length == UNDEFINED:
                vr = "SQ"
            return _Found(tag, vr, position + 8, length)
        code = bytes(data[position + 4 : position + 6])
        if code not in VRS:
            raise MalformedObjectError("an element has no known value representation")
        vr = code.decode("ascii")
        if code in LONG_VRS:
            (length,) = self.long.unpack_from(data, position + 8)
            return _Found(tag, vr, position + 12, length)
        (length,) = self.short.unpack_from(data, position + 6)
        return _Found(tag, vr, position + 8, length)

    def items(
        self,
        data: memoryview,
        position: int,
        facts: _Facts,
        depth: int,
        *,
        is_all: bool = False,
    ) -> tuple[_Parts, int]:
        """Return the items from ``position`` on, and where they end."""
        if depth > MAX_DEPTH:
            raise MalformedObjectError(f"sequences nested more than {MAX_DEPTH} deep")
        parts: _Parts = []
        while not (is_all and position == len(data)):
            group, element = self.tag.unpack_from(data, position)
            (length,) = self.long.unpack_from(data, position + 4)
            position += 8
            tag = group << 16 | element
            if tag == _SEQUENCE_END and not is_all:
                return parts, position
            if tag != _ITEM:
                raise MalformedObjectError("a sequence holds something but items")
            inner = _Facts(facts.order, facts.numbers)
            if length == UNDEFINED:
                content, position = self.open_item(data, position, inner, depth)
                parts += [
                    self.bound(_ITEM, UNDEFINED),
                    *content,
                    self.bound(_ITEM_END, 0),
                ]
            else:
                if position + length > len(data):
                    raise MalformedObjectError("an item is cut short")
                whole = data[position : position + length]
                content = self.dataset(whole, inner, depth)
                parts += [self.bound(_ITEM, _size(content)), *content]
                position += length
        return parts, position

    def open_item(
        self, data: memoryview, position: int, facts: _Facts, depth: int
    ) -> tuple[_Parts, int]:
        parts: list[tuple[int, _Parts]] = []
        while True:
            group, element = self.tag.unpack_from(data, position)
            if group << 16 | element == _ITEM_END:
                return self.with_group_lengths(parts), position + 8
            tag, part, position = self.element(data, position, facts, depth)
            parts.append((tag, part))

    def written(self, tag: int, vr: str, value: _Parts, *, end: bool = False) -> _Parts:
        length = UNDEFINED if end else _size(value)
        start = header(tag, vr, length, self.target)
        return [start, *value, *([self.bound(_SEQUENCE_END, 0)] if end else [])]

    def bound(self, tag: int, length: int) -> bytes:
        """Return the tag and length that a part of a sequence begins or ends with."""
        return struct.pack(f"{self.order}HHI", tag >> 16, tag & 0xFFFF, length)

    def turned(self, vr: str, value: memoryview) -> Buffer:
        """Return a value in the byte order of the target."""
        width = _WIDTHS.get(vr, 1)
        is_same = self.source.is_little_endian == self.target.is_little_endian
        if is_same or width == 1 or len(value) % width:
            return value
        return np.frombuffer(value, f"u{width}").byteswap().tobytes()

    def with_group_lengths(self, parts: list[tuple[int, _Parts]]) -> _Parts:
        """Return the elements with (gggg,0000) as long as the group is now."""
        lengths: dict[int, int] = {}
        for tag, part in parts:
            if tag & 0xFFFF:
                lengths[tag >> 16] = lengths.get(tag >> 16, 0) + _size(part)
        return list(self._lengthened(parts, lengths))

    def _lengthened(
        self, parts: list[tuple[int, _Parts]], lengths: dict[int, int]
    ) -> Iterator[Buffer]:
        for tag, part in parts:
            if tag & 0xFFFF:
                yield from part
            else:
                value = struct.pack(f"{self.order}I", lengths.get(tag >> 16, 0))
                yield header(tag, "UL", 4, self.target) + value


def _size(parts: _Parts) -> int:
    return sum(map(len, parts))
