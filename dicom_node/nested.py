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

from dicom_node.elements import PIXEL_DATA, Element, Limits
from dicom_node.errors import MalformedObjectError
from dicom_node.nesting import Item, Nesting, item_tag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from dicom_node.elements import Elements
    from dicom_node.part10 import Encoding

NESTED: Final = Limits(elements=5_000_000, items=5_000_000)
"""What is looked at inside sequences at most: 10,000 frames with 500 elements each."""


class Step(NamedTuple):
    """The way from a data set into one of its items."""

    sequence: Element
    item: Item
    number: int
    """Of the item, from 1, as the standard counts them (PS3.3 10.17)."""
    creator: str = ""
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
            f"{_named(s.sequence.tag, s.creator)}[{s.number}]" for s in self.within
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
        self._nesting = Nesting(elements, limits.elements)

    def steps(
        self, sequence: Element, encoding: Encoding, creator: str = ""
    ) -> list[Step]:
        """Return the ways into the items of a sequence.

        Args:
            sequence: Of this data set, at any depth.
            encoding: Of what it stands in.
            creator: Of the sequence, if it is private.

        Raises:
            MalformedObjectError: It is none, or a limit is exceeded.
        """
        items = self._nesting.items(sequence, encoding, depth=0)
        return [
            Step(sequence, item, number, creator)
            for number, item in enumerate(items, 1)
        ]

    def inside(self, item: Item) -> Iterator[Element]:
        """Go through the elements of an item.

        Raises:
            MalformedObjectError: They cannot be read, or a limit is exceeded.
        """
        return self._nesting.elements(item)

    def walk(self, enters: Callable[[Place], bool] = lambda _: True) -> Iterator[Place]:
        """Go through all elements of the data set, those inside sequences too.

        Args:
            enters: Says of a sequence whether to look inside.

        Raises:
            MalformedObjectError: A limit is exceeded.
        """
        yield from self._level(self.elements, (), enters, self.elements.encoding)

    def _level(
        self,
        elements: Iterable[Element],
        within: tuple[Step, ...],
        enters: Callable[[Place], bool],
        encoding: Encoding,
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
            if not self._is_sequence(element, encoding):
                yield place
                continue
            try:
                levels = self._levels(place, encoding)
            except MalformedObjectError:
                self._nesting.require_room()  # a limit is an error of its own
                yield place._replace(is_unreadable=True)
                continue
            yield place
            if not enters(place):
                continue
            for step, found in levels:
                yield from self._level(
                    found, (*within, step), enters, step.item.encoding
                )

    def _levels(
        self, place: Place, encoding: Encoding
    ) -> list[tuple[Step, list[Element]]]:
        """Return the items of a sequence, and the elements of each."""
        if len(place.within) >= self.limits.depth:
            raise MalformedObjectError("sequences are nested too deep")
        steps = self.steps(place.element, encoding, place.creator)
        return [(step, list(self.inside(step.item))) for step in steps]

    def _is_sequence(self, element: Element, encoding: Encoding) -> bool:
        """Say whether an element is a sequence, or begins like one."""
        if element.tag == PIXEL_DATA:
            return False
        if not encoding.is_implicit_vr:
            if element.vr != "UN":
                return element.vr == "SQ"
        elif vr := standard_vr(element.tag):
            return vr == "SQ"
        if element.is_undefined_length:
            return True
        end = min(element.value + 4, element.end)
        begins = bytes(self.elements.encoded[element.value : end])
        return begins == item_tag(encoding)

    def _text(self, element: Element) -> str:
        """Return a Private Creator, as far as it is fit to be shown."""
        end = min(element.value + 64, element.end)
        value = self.elements.encoded[element.value : end]
        text = bytes(value).decode("latin-1")
        return "".join(
            c if " " <= c <= "~" and c != '"' else "?" for c in text.strip("\0 ")
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
                    # It stands right before the content (PS3.5 7.1, 7.5).
                    position = container.value - 4
                    grown[position] = grown.get(position, 0) + more
    changes = []
    for position, more in grown.items():
        (length,) = struct.unpack_from(f"{order}I", elements.encoded, position)
        new = struct.pack(f"{order}I", length + more)
        changes.append((position, position + 4, new))
    return changes


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
