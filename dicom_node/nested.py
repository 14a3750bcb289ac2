"""What stands inside the sequences of a data set: found, and changed byte by byte.

A change is a cut: some bytes of one top-level element replaced by others. The lengths of
the items and sequences around it follow, and every byte that no cut covers stays as it
was. So a sequence of two thousand items costs what is changed in it, and character sets
and odd encodings come through.

Walking is bounded as the scan is. What calls itself a sequence and cannot be read as one
is told, never guessed at; what any element means is not known here.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from pydicom.datadict import dictionary_VR

from dicom_node.elements import (
    ITEM,
    PIXEL_DATA,
    SEQUENCE_END,
    Element,
    Limits,
    Scanner,
)
from dicom_node.errors import MalformedObjectError
from dicom_node.extents import UNDEFINED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from dicom_node.elements import Elements

NESTED: Final = Limits(elements=5_000_000, items=5_000_000)
"""What is looked at inside sequences at most: 10,000 frames with 500 elements each."""


class Item(NamedTuple):
    """One item of a sequence."""

    number: int
    """From 1, as the standard counts them (PS3.3 10.17)."""
    start: int
    """Where its first element begins."""
    end: int
    """Behind its last element; a delimiter follows if its length is undefined."""
    behind: int
    """Where the next item begins."""
    is_undefined_length: bool
    is_implicit: bool


class Step(NamedTuple):
    """The way from a data set into one of its items."""

    sequence: Element
    item: Item
    creator: str
    """Of the sequence, if it is private."""


class Place(NamedTuple):
    """One element, wherever it stands."""

    element: Element
    creator: str
    """Who defined it, if it is private; empty if nobody says so."""
    within: tuple[Step, ...]
    """From the outside to the inside; empty at the top."""
    is_unreadable: bool = False
    """It is a sequence, or begins like one, and cannot be read as one."""

    @property
    def top(self) -> int:
        """Return the tag of the top-level element that it stands in, or is."""
        return self.within[0].sequence.tag if self.within else self.element.tag

    @property
    def path(self) -> str:
        """Return where it stands, as the standard writes it: no value is in it."""
        steps = [
            f"{_named(s.sequence.tag, s.creator)}[{s.item.number}]" for s in self.within
        ]
        return " > ".join([*steps, _named(self.element.tag, self.creator)])


class Cut(NamedTuple):
    """Bytes that give way to others."""

    start: int
    end: int
    new: bytes
    within: tuple[Step, ...]
    """Whose lengths follow."""


class Nest:
    """The inside of one data set."""

    def __init__(self, elements: Elements, limits: Limits = NESTED) -> None:
        """Look into ``elements``, within ``limits``."""
        self.elements, self.limits = elements, limits
        self._scanner = Scanner(elements.encoded, elements.encoding, limits)
        self._seen = 0

    def items(self, sequence: Element, *, is_implicit: bool) -> list[Item]:
        """Return the items of a sequence.

        Args:
            sequence: Of this data set, at any depth.
            is_implicit: Whether its own header is in Implicit VR.

        Raises:
            MalformedObjectError: It is none, or a limit is exceeded.
        """
        scanner = self._scanner
        inner = is_implicit or sequence.vr == "UN"  # PS3.5 6.2.2
        found: list[Item] = []
        position, end = sequence.value, sequence.end
        while position < end:
            tag = scanner.read_tag(position, end)
            length = scanner.read_length(position + 4)
            position += 8
            if tag == SEQUENCE_END and sequence.is_undefined_length:
                return found
            if tag != ITEM:
                raise MalformedObjectError("a sequence that holds no items")
            self._count(1)
            if length == UNDEFINED:
                behind = scanner.item(position, end, is_implicit=inner)
                stop = behind - 8
            else:
                behind = stop = position + length
            if behind > end:
                raise MalformedObjectError("an item is longer than its sequence")
            found.append(
                Item(len(found) + 1, position, stop, behind, length == UNDEFINED, inner)
            )
            position = behind
        return found

    def inside(self, item: Item) -> Iterator[Element]:
        """Go through the elements of an item.

        Raises:
            MalformedObjectError: They cannot be read, or a limit is exceeded.
        """
        position = item.start
        while position < item.end:
            element = self._scanner.element(
                position, item.end, is_implicit=item.is_implicit
            )
            self._count(1)
            yield element
            position = element.end

    def walk(self, enters: Callable[[Place], bool] = lambda _: True) -> Iterator[Place]:
        """Go through all elements of the data set, those inside sequences too.

        Args:
            enters: Says of a sequence whether to look inside.

        Raises:
            MalformedObjectError: A limit is exceeded.
        """
        is_implicit = self.elements.encoding.is_implicit_vr
        yield from self._level(self.elements, (), enters, is_implicit=is_implicit)

    def _level(
        self,
        elements: Iterable[Element],
        within: tuple[Step, ...],
        enters: Callable[[Place], bool],
        *,
        is_implicit: bool,
    ) -> Iterator[Place]:
        creators: dict[int, str] = {}
        for element in elements:
            tag = element.tag
            creator = ""
            if tag >> 16 & 1:
                if 0x10 <= tag & 0xFFFF <= 0xFF:
                    creators[tag] = self._text(element)
                creator = creators.get(tag >> 16 << 16 | tag >> 8 & 0xFF, "")
            place = Place(element, creator, within)
            if not self._is_sequence(element, is_implicit=is_implicit):
                yield place
                continue
            try:
                levels = self._levels(place, is_implicit=is_implicit)
            except MalformedObjectError:
                self._count(0)  # a limit is an error of its own
                yield place._replace(is_unreadable=True)
                continue
            yield place
            if not enters(place):
                continue
            for step, found in levels:
                yield from self._level(
                    found, (*within, step), enters, is_implicit=step.item.is_implicit
                )

    def _levels(
        self, place: Place, *, is_implicit: bool
    ) -> list[tuple[Step, list[Element]]]:
        """Return the items of a sequence, and the elements of each."""
        if len(place.within) >= self.limits.depth:
            raise MalformedObjectError("sequences are nested too deep")
        sequence = place.element
        return [
            (Step(sequence, item, place.creator), list(self.inside(item)))
            for item in self.items(sequence, is_implicit=is_implicit)
        ]

    def _is_sequence(self, element: Element, *, is_implicit: bool) -> bool:
        """Say whether an element is a sequence, or begins like one."""
        if element.tag == PIXEL_DATA:
            return False
        if not is_implicit:
            if element.vr != "UN":
                return element.vr == "SQ"
        elif vr := standard_vr(element.tag):
            return vr == "SQ"
        if element.is_undefined_length:
            return True
        begins = self.elements.encoded[
            element.value : min(element.value + 4, element.end)
        ]
        if len(begins) < 4:
            return False
        group, number = self._scanner.tag.unpack(begins)
        return bool(group << 16 | number == ITEM)

    def _text(self, element: Element) -> str:
        """Return a Private Creator, as far as it is fit to be shown."""
        value = self.elements.encoded[element.value : element.end][:64]
        text = bytes(value).decode("latin-1")
        return "".join(
            c if " " <= c <= "~" and c != '"' else "?" for c in text.strip("\0 ")
        )

    def _count(self, more: int) -> None:
        self._seen += more
        if self._seen > self.limits.elements:
            raise MalformedObjectError(
                f"sequences hold more than {self.limits.elements} elements"
            )


def rewritten(elements: Elements, tag: int, cuts: Sequence[Cut]) -> bytes:
    """Return a top-level element with some of its inside changed.

    A cut that lies within another one is left out.

    Args:
        elements: The data set.
        tag: Of the element.
        cuts: All of them lie within it.
    """
    top = elements.get(tag)
    if top is None:
        raise KeyError(tag)
    kept: list[Cut] = []
    for cut in sorted(cuts, key=lambda c: (c.start, c.start != c.end, -c.end)):
        if not kept or cut.start >= kept[-1].end:
            kept.append(cut)
    changes = [(cut.start, cut.end, cut.new) for cut in kept]
    changes += _lengths(elements, kept)
    parts: list[bytes | memoryview] = []
    view, copied_to = memoryview(elements.encoded), top.start
    for start, end, new in sorted(changes, key=lambda c: (c[0], c[0] != c[1])):
        parts += [view[copied_to:start], new]
        copied_to = end
    return b"".join([*parts, view[copied_to : top.end]])


def _lengths(elements: Elements, cuts: Sequence[Cut]) -> list[tuple[int, int, bytes]]:
    """Return the lengths that are others: where each stands, and what it says."""
    order = "<" if elements.encoding.is_little_endian else ">"
    grown: dict[int, int] = {}
    for cut in cuts:
        more = len(cut.new) - (cut.end - cut.start)
        for step in cut.within:
            for container in (step.sequence, step.item):
                if not container.is_undefined_length:
                    position = _length_at(container)
                    grown[position] = grown.get(position, 0) + more
    changes = []
    for position, more in grown.items():
        (length,) = struct.unpack_from(f"{order}I", elements.encoded, position)
        new = struct.pack(f"{order}I", length + more)
        changes.append((position, position + 4, new))
    return changes


def _length_at(container: Element | Item) -> int:
    """Return where the length stands: right before the content (PS3.5 7.1, 7.5)."""
    if isinstance(container, Item):
        return container.start - 4
    return container.value - 4


@lru_cache(maxsize=8192)
def standard_vr(tag: int) -> str:
    """Return the VR that the standard gives an element; empty if it does not know it."""
    if tag >> 16 & 1:
        return ""
    try:
        return dictionary_VR(tag)
    except KeyError:
        return ""


def _named(tag: int, creator: str) -> str:
    """Return a tag; a private one with its creator (PS3.5 7.8.1)."""
    if creator:
        return f'({tag >> 16:04X},"{creator}",{tag & 0xFF:02X})'
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
