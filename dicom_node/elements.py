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
from dicom_node.extents import LONG_VRS, UNDEFINED, VRS, Extents, named
from dicom_node.mapped import joined

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from dicom_node.mapped import Buffer
    from dicom_node.part10 import Encoding

    Changes = Mapping[int, "bytes | Streamed | None"]
    """For each tag the whole encoded element, or None to leave it out."""

PIXEL_DATA: Final = 0x7FE00010
_LAST: Final = 0xFFFFFFFF
"""No tag is behind that."""

_PLAIN: Final = {vr: vr.decode("ascii") for vr in VRS - LONG_VRS}
"""VRs with a length of two bytes: none of them holds items."""


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


class Streamed(NamedTuple):
    """An encoded element that is made piece by piece."""

    size: int
    """Bytes, of all pieces together."""
    parts: Iterable[Buffer]


class Elements:
    """The elements of one encoded data set, in order."""

    def __init__(
        self, encoded: Buffer, encoding: Encoding, found: list[Element]
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
        return bytes(self.encoded[element.start : element.end])

    def value_of(self, tag: int) -> memoryview:
        """Return the value of the element ``tag``, without copying it."""
        element = self._by_tag[tag]
        return memoryview(self.encoded)[element.value : element.end]

    def extract(self, tags: Iterable[int]) -> bytes:
        """Return the elements among ``tags`` that exist, as a data set of their own."""
        return b"".join(self.bytes_of(tag) for tag in sorted({*tags}) if tag in self)


def scan(
    encoded: Buffer, encoding: Encoding, limits: Limits, through: int = _LAST
) -> Elements:
    """Return the top-level elements of a data set.

    Args:
        encoded: It.
        encoding: How it is encoded.
        limits: What it may hold.
        through: A tag behind which nothing is looked at, for whoever has scanned what it
            was made of.

    Raises:
        MalformedObjectError: A length does not fit, elements are out of order, or a
            limit is exceeded.
    """
    return Scanner(encoded, encoding, limits).scan(through)


def splice(elements: Elements, changes: Changes) -> Buffer:
    """Return the data set with some elements replaced, added or taken out.

    Args:
        elements: The data set as it is.
        changes: For each tag the whole encoded element, in the same encoding, or None
            to leave it out.
    """
    parts: list[Buffer | Streamed] = []
    view = memoryview(elements.encoded)
    new = {tag: element for tag, element in changes.items() if element is not None}
    waiting = sorted(new, reverse=True)
    copied_to = 0
    for element in elements:
        while waiting and waiting[-1] < element.tag:
            parts += [view[copied_to : element.start], new[waiting.pop()]]
            copied_to = element.start
        if element.tag in changes:
            parts.append(view[copied_to : element.start])
            copied_to = element.end
            if waiting and waiting[-1] == element.tag:
                parts.append(new[waiting.pop()])
    parts.append(view[copied_to:])
    parts += [new[tag] for tag in reversed(waiting)]
    size = sum(p.size if isinstance(p, Streamed) else len(p) for p in parts)
    return joined(_flat(parts), size)


def _flat(parts: Iterable[Buffer | Streamed]) -> Iterator[Buffer]:
    for part in parts:
        if isinstance(part, Streamed):
            yield from part.parts
        else:
            yield part


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


class Scanner:
    """Reads elements off their bytes, and checks that their lengths fit.

    What does not fit, or is too much, is a :class:`MalformedObjectError`.
    """

    def __init__(self, encoded: Buffer, encoding: Encoding, limits: Limits) -> None:
        """Begin; nothing is read yet."""
        self.encoded, self.encoding, self.limits = encoded, encoding, limits
        order = "<" if encoding.is_little_endian else ">"
        self.tag = struct.Struct(f"{order}HH")
        self.long = struct.Struct(f"{order}I")
        self.plain = struct.Struct(f"{order}HH2sH")
        self.extents = Extents(
            encoded,
            is_little_endian=encoding.is_little_endian,
            depth=limits.depth,
            items=limits.items + len(encoded) // limits.bytes_an_item,
            fragments=limits.items,
        )

    def scan(self, through: int = _LAST) -> Elements:
        """Return the elements, taken for those of the top level; see :func:`scan`."""
        found: list[Element] = []
        position, end = 0, len(self.encoded)
        last = -1
        is_implicit = self.encoding.is_implicit_vr
        while position < end and last < through:
            element = None if is_implicit else self._plain(position, end)
            if element is None:
                element = self.element(position, end, is_implicit=is_implicit)
                self._require_limits(element)
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

    def _plain(self, start: int, end: int) -> Element | None:
        """Return an element that says all of itself in eight bytes, as most do.

        The same as :meth:`element` in a fifth of the time; None where something is out
        of the ordinary.
        """
        if start + 8 > end:
            return None
        group, number, vr, length = self.plain.unpack_from(self.encoded, start)
        name, value = _PLAIN.get(vr), start + 8
        if name is None or value + length > end:
            return None
        return Element(group << 16 | number, name, start, value, value + length, False)  # noqa: FBT003

    def _require_limits(self, element: Element) -> None:
        """Return if what stands in a value of known length is within the limits."""
        tag, vr, _, start, end, is_undefined = element
        if not is_undefined and self.extents.may_hold_items(vr.encode(), start, end):
            self.extents.require_limits(
                tag,
                vr.encode(),
                start,
                end,
                is_implicit=self.encoding.is_implicit_vr,
            )

    def element(self, start: int, end: int, *, is_implicit: bool) -> Element:
        """Return the element that begins at ``start`` and ends before ``end``."""
        tag, extents = self.read_tag(start, end), self.extents
        vr, value, length = extents.element_at(tag, start, end, is_implicit=is_implicit)
        is_undefined = length == UNDEFINED
        if is_undefined:
            value_end = extents.end_of(tag, vr, value, end, is_implicit=is_implicit)
        elif (value_end := value + length) > end:
            raise MalformedObjectError(
                f"element {named(tag)} says it has {length} bytes, "
                f"{max(end - value, 0)} follow",
                hint="The object is cut short; ask its sender for it again.",
            )
        return Element(tag, vr.decode(), start, value, value_end, is_undefined)

    def item(self, position: int, end: int, *, is_implicit: bool) -> int:
        """Return where an item of undefined length ends, its delimiter included."""
        return self.extents.end_of_item(position, end, is_implicit=is_implicit)

    def read_tag(self, position: int, end: int) -> int:
        """Return a tag behind which there is room for a length."""
        if position + 8 > end:
            raise MalformedObjectError(
                "the data set ends in the middle of an element",
                hint="The object is cut short; ask its sender for it again.",
            )
        group, element = self.tag.unpack_from(self.encoded, position)
        return int(group) << 16 | int(element)

    def read_length(self, position: int) -> int:
        """Return the length behind a tag that :meth:`read_tag` returned."""
        return int(self.long.unpack_from(self.encoded, position)[0])
