"""The items of sequences, at any depth, as spans of an encoded data set.

:mod:`dicom_node.elements` looks at the top level only; this goes down from there, and
decodes no more than it does: tags, VRs and lengths. What a sequence is, an encoding
without VRs does not say; there the dictionary does (PS3.6), and an undefined length
(PS3.5 7.5).
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from pydicom.datadict import dictionary_VR

from dicom_node.elements import Limits, Scanner
from dicom_node.errors import MalformedObjectError
from dicom_node.extents import ITEM, ITEM_END, SEQUENCE_END, UNDEFINED
from dicom_node.part10 import Encoding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dicom_node.elements import Element, Elements

MAX_DEPTH: Final = 32
MAX_ELEMENTS: Final = 5_000_000
"""Of all items together that were opened; a slide of 100 000 tiles has a million."""

_INSIDE_UN: Final = Encoding(is_implicit_vr=True, is_little_endian=True)


class Item(NamedTuple):
    """One item of a sequence: where its elements are, and how they are encoded."""

    value: int
    end: int
    """Of its last element; a delimiter comes after it."""
    is_undefined_length: bool
    encoding: Encoding


class Nesting:
    """Goes down into the sequences of one data set."""

    def __init__(self, dataset: Elements, most: int | None = None) -> None:
        """Begin; nothing is read yet.

        Args:
            dataset: What to go down into.
            most: Elements of all items together that may be opened; by default
                ``MAX_ELEMENTS``.
        """
        self.encoded = dataset.encoded
        self._most = MAX_ELEMENTS if most is None else most
        self._opened = 0
        self._scanners: dict[Encoding, Scanner] = {}

    def elements(self, item: Item) -> Iterator[Element]:
        """Go through the elements of an item.

        Raises:
            MalformedObjectError: They do not fit, or are too many.
        """
        scanner, position = self._scanner(item.encoding), item.value
        while position < item.end:
            self._opened += 1
            self.require_room()
            element = scanner.element(
                position, item.end, is_implicit=item.encoding.is_implicit_vr
            )
            yield element
            position = element.end

    def require_room(self) -> None:
        """Return if no more was opened than may be.

        Raises:
            MalformedObjectError: It was.
        """
        if self._opened > self._most:
            raise MalformedObjectError(f"more than {self._most} elements in items")

    def items(
        self, sequence: Element, encoding: Encoding, depth: int
    ) -> Iterator[Item]:
        """Go through the items of a sequence.

        Args:
            sequence: For which :func:`is_sequence` holds.
            encoding: Of the data set or item that it stands in.
            depth: How many sequences are around it.

        Raises:
            MalformedObjectError: They do not fit, or are nested too deep.
        """
        if depth >= MAX_DEPTH:
            raise MalformedObjectError(f"sequences nested more than {depth} deep")
        inside = _INSIDE_UN if sequence.vr == "UN" else encoding
        scanner = self._scanner(inside)
        position, end = sequence.value, sequence.end
        while position < end:
            tag = scanner.read_tag(position, end)
            length = scanner.read_length(position + 4)
            position += 8
            if tag == SEQUENCE_END and sequence.is_undefined_length:
                return
            if tag != ITEM:
                raise MalformedObjectError(
                    "a sequence holds something other than items"
                )
            if length == UNDEFINED:
                after = scanner.item(position, end, is_implicit=inside.is_implicit_vr)
                yield Item(position, after - 8, True, inside)  # noqa: FBT003
            else:
                after = position + length
                if after > end:
                    raise MalformedObjectError("an item is longer than its sequence")
                yield Item(position, after, False, inside)  # noqa: FBT003
            position = after

    def _scanner(self, encoding: Encoding) -> Scanner:
        if encoding not in self._scanners:
            self._scanners[encoding] = Scanner(
                self.encoded, encoding, Limits(items=4 * MAX_ELEMENTS)
            )
        return self._scanners[encoding]


def is_sequence(element: Element, encoding: Encoding) -> bool:
    """Say whether the value of an element is items of a sequence.

    A private element is one only where it says so itself.
    """
    if element.vr == "SQ":
        return True
    # Inside UN all is little endian, whatever is around it (PS3.5 6.2.2): in big endian,
    # which is retired, nobody does that right.
    may_be = element.vr == "" or (element.vr == "UN" and encoding.is_little_endian)
    return may_be and (element.is_undefined_length or _in_dictionary(element.tag))


def item(content: bytes, like: Item) -> bytes:
    """Return an item with other content, its length in the form that it had."""
    order = "<" if like.encoding.is_little_endian else ">"
    length = UNDEFINED if like.is_undefined_length else len(content)
    return (
        _delimiter(order, ITEM, length)
        + content
        + (_delimiter(order, ITEM_END, 0) if like.is_undefined_length else b"")
    )


def item_tag(encoding: Encoding) -> bytes:
    """Return what every item begins with."""
    return _delimiter("<" if encoding.is_little_endian else ">", ITEM, 0)[:4]


def sequence_end(encoding: Encoding) -> bytes:
    """Return what stands behind the last item of a sequence of undefined length."""
    return _delimiter("<" if encoding.is_little_endian else ">", SEQUENCE_END, 0)


def _delimiter(order: str, tag: int, length: int) -> bytes:
    return struct.pack(f"{order}HHI", tag >> 16, tag & 0xFFFF, length)


@lru_cache(maxsize=8192)
def _in_dictionary(tag: int) -> bool:
    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return False
