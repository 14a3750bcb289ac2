"""The top-level elements of an encoded data set, as spans of its bytes.

What is not touched is not decoded: a changed data set is spliced together from the
original's own bytes and the few elements that are new, so character sets, unknown and
private elements, odd encodings and group lengths come through byte for byte. That makes
``splice`` its own inverse, with the elements that it took out.

The scan is also the guard: it checks that every length fits and every limit is kept,
in one pass over the bytes, before any library looks at a hostile object (PS3.5 7.1, 7.5,
A.4). It knows tags, VRs and lengths, and nothing of what they mean.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from dicom_node.errors import MalformedObjectError
from dicom_node.nesting import LONG_VRS, UNDEFINED, Nesting, named

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from dicom_node.part10 import Encoding


PIXEL_DATA: Final = 0x7FE00010


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an object may hold at most; an ordinary one is far below."""

    elements: int = 20_000
    depth: int = 32
    items: int = 200_000
    """Of all sequences, the elements in them, and fragments, together."""
    bytes_an_item: int = 32
    """For each of which there may be one more: multi-frame objects say much of every
    frame, and have pixels to show for it. So what a scan costs is bound by what was sent,
    and a real element with its value is rarely shorter."""


class Element(NamedTuple):
    """One top-level element: where it starts, its value, and where it ends."""

    tag: int
    vr: str
    """Two letters; empty where the encoding does not say (Implicit VR)."""
    start: int
    value: int
    end: int
    is_undefined_length: bool


class Elements:
    """The elements of one encoded data set, in order."""

    def __init__(
        self, encoded: bytes, encoding: Encoding, found: list[Element]
    ) -> None:
        """Keep what :func:`scan` found."""
        self.encoded = encoded
        self.encoding = encoding
        self._by_tag = {element.tag: element for element in found}

    def __contains__(self, tag: int) -> bool:
        """Say whether there is an element ``tag``."""
        return tag in self._by_tag

    def __iter__(self) -> Iterator[Element]:
        """Go through the elements in ascending order of their tags."""
        return iter(self._by_tag.values())

    def tags(self) -> list[int]:
        """Return the tags, ascending."""
        return list(self._by_tag)

    def get(self, tag: int) -> Element | None:
        """Return the element ``tag``, if there is one."""
        return self._by_tag.get(tag)

    def bytes_of(self, tag: int) -> bytes:
        """Return tag, length and value of the element ``tag``, as encoded."""
        element = self._by_tag[tag]
        return self.encoded[element.start : element.end]

    def value_of(self, tag: int) -> memoryview:
        """Return the value of the element ``tag``, without copying it."""
        element = self._by_tag[tag]
        return memoryview(self.encoded)[element.value : element.end]

    def extract(self, tags: Iterable[int]) -> bytes:
        """Return the elements among ``tags`` that exist, as a data set of their own."""
        return b"".join(self.bytes_of(tag) for tag in sorted(tags) if tag in self)


def scan(encoded: bytes, encoding: Encoding, limits: Limits) -> Elements:
    """Return the top-level elements of a data set.

    Raises:
        MalformedObjectError: A length does not fit, elements are out of order, or a
            limit is exceeded.
    """
    return _Scanner(encoded, encoding, limits).scan()


def splice(elements: Elements, changes: Mapping[int, bytes | None]) -> bytes:
    """Return the data set with some elements replaced, added or taken out.

    Args:
        elements: The data set as it is.
        changes: For each tag the whole encoded element, in the same encoding, or None
            to leave it out.
    """
    parts: list[bytes | memoryview] = []
    view = memoryview(elements.encoded)
    new = sorted(tag for tag, element in changes.items() if element is not None)
    position = 0
    copied_to = 0
    for element in elements:
        while position < len(new) and new[position] < element.tag:
            parts.append(view[copied_to : element.start])
            copied_to = element.start
            parts.append(changes[new[position]] or b"")
            position += 1
        if element.tag in changes:
            parts.append(view[copied_to : element.start])
            copied_to = element.end
            if position < len(new) and new[position] == element.tag:
                parts.append(changes[element.tag] or b"")
                position += 1
    parts.append(view[copied_to:])
    parts += [changes[tag] or b"" for tag in new[position:]]
    return b"".join(parts)


def header(tag: int, vr: str, length: int, encoding: Encoding) -> bytes:
    """Return what stands before the value of an element (PS3.5 7.1.2, 7.1.3)."""
    order = "<" if encoding.is_little_endian else ">"
    start = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    if encoding.is_implicit_vr:
        return start + struct.pack(f"{order}I", length)
    code = vr.encode("ascii")
    if code in LONG_VRS:
        return start + code + b"\0\0" + struct.pack(f"{order}I", length)
    return start + code + struct.pack(f"{order}H", length)


class _Scanner:
    def __init__(self, encoded: bytes, encoding: Encoding, limits: Limits) -> None:
        self.encoded, self.encoding, self.limits = encoded, encoding, limits
        self.tag = struct.Struct("<HH" if encoding.is_little_endian else ">HH")
        self.nesting = Nesting(
            encoded,
            is_little_endian=encoding.is_little_endian,
            depth=limits.depth,
            items=limits.items + len(encoded) // limits.bytes_an_item,
            fragments=limits.items,
        )

    def scan(self) -> Elements:
        found: list[Element] = []
        position, end = 0, len(self.encoded)
        last = -1
        while position < end:
            element = self.element(position, end)
            if element.tag <= last:
                raise MalformedObjectError(
                    f"element {named(element.tag)} stands out of order",
                    hint="PS3.5 7.1 wants ascending tags, each once.",
                )
            if len(found) == self.limits.elements:
                raise MalformedObjectError(f"more than {len(found)} elements")
            found.append(element)
            last, position = element.tag, element.end
        return Elements(self.encoded, self.encoding, found)

    def element(self, start: int, end: int) -> Element:
        tag = self.read_tag(start, end)
        is_implicit = self.encoding.is_implicit_vr
        nesting = self.nesting
        vr, value, length = nesting.element_at(tag, start, end, is_implicit=is_implicit)
        is_undefined = length == UNDEFINED
        if is_undefined:
            value_end = nesting.end_of(tag, vr, value, end, is_implicit=is_implicit)
        elif (value_end := value + length) > end:
            raise MalformedObjectError(
                f"element {named(tag)} says it has {length} bytes, "
                f"{max(end - value, 0)} follow",
                hint="The object is cut short; ask its sender for it again.",
            )
        elif nesting.may_hold_items(vr, value, value_end):
            nesting.require_limits(tag, vr, value, value_end, is_implicit=is_implicit)
        return Element(tag, vr.decode(), start, value, value_end, is_undefined)

    def read_tag(self, position: int, end: int) -> int:
        if position + 8 > end:
            raise MalformedObjectError(
                "the data set ends in the middle of an element",
                hint="The object is cut short; ask its sender for it again.",
            )
        group, element = self.tag.unpack_from(self.encoded, position)
        return int(group) << 16 | int(element)
