"""Objects for a soak: thousands of sound ones, and a few that are odd on purpose.

Each has a number, which says everything about it: its UID, its pixels, the route that it
goes to and, if it is odd, in which way. So whoever has the same size of a soak knows what
has to become of it, in whatever process.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from pydicom import dcmread, uid

from dicom_node.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import Iterator

SIDE: Final = 96
_ROOT: Final = "1.2.826.0.1.3680043.10.1490"
_PLACE: Final = f"{_ROOT}.1{0:012}"
"""UIDs are all of one length, so that a name is put in the place of another."""
TOGETHER: Final = 50
"""Objects that one sender sends one after another, of one study."""

_DEEP: Final = 3000 * (
    b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff"  # a sequence of any length,
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff"  # and in its first item
)
_BOMB: Final = 32 << 20
"""Bytes that a deflated object grows to."""


class Way(StrEnum):
    """Over which route an object goes."""

    PASSED = "PASS"
    STRIPPED = "STRIP"
    MARKED = "MARK"


class Odd(StrEnum):
    """In which way an object is odd."""

    CUT = "cut short"
    LENGTH = "a length beyond its end"
    NAMES = "another name than its command says"
    CLASH = "other bytes under a known name"
    DEFLATED = "deflated"
    DEEP = "sequences without end"
    PIXELLESS = "fewer pixels than its rows and columns say"
    CODESTREAM = "a codestream that is none"
    ALTERED = "pixels altered after they were marked"
    RECORD = "a damaged record"
    KILLER = "kills its worker"


REFUSED: Final = frozenset(
    {Odd.CUT, Odd.LENGTH, Odd.NAMES, Odd.DEFLATED, Odd.DEEP, Odd.CLASH}
)
"""What the node does not take over."""

_ODD_OF: Final = {
    Way.PASSED: (Odd.CUT, Odd.LENGTH, Odd.NAMES, Odd.CLASH, Odd.DEFLATED, Odd.DEEP),
    Way.STRIPPED: (Odd.ALTERED, Odd.RECORD),
    Way.MARKED: (Odd.PIXELLESS, Odd.CODESTREAM),
}


class Piece(NamedTuple):
    """One object of a soak."""

    number: int
    way: Way
    odd: Odd | None = None
    known: int = 0
    """Number of the object whose name it has, if it clashes with one."""

    @property
    def uid(self) -> str:
        """Return its SOP Instance UID."""
        return f"{_ROOT}.1{self.number:012}"

    @property
    def is_taken(self) -> bool:
        """Return whether the node has to take it over."""
        return self.odd not in REFUSED

    @property
    def is_held(self) -> bool:
        """Return whether the node has to keep it for a person."""
        return self.odd is not None and self.is_taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """How many objects of which kind; the same every time."""

    objects: int
    poison: float
    """The share that is odd."""
    marked: int
    """That are marked, which takes longest; beside the odd ones."""
    killers: int
    """That kill whoever marks them."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not 0 <= self.poison <= 0.5 or self.objects < 20:
            raise NodeError(
                "no such soak", hint="At least 20 objects, at most half of them poison."
            )

    def pieces(self) -> Iterator[Piece]:
        """Yield every object, in the order in which they are sent.

        Killers come first: what they cost is over when memory is looked at.
        """
        every = round(1 / self.poison) if self.poison else self.objects + 1
        kinds = [(way, odd) for way, kinds in _ODD_OF.items() for odd in kinds]
        between = max(1, self.objects // max(1, self.marked))
        known = 0
        for number in range(self.objects):
            if number < self.killers:
                yield Piece(number, Way.MARKED, Odd.KILLER)
            elif number % every == every - 1:
                way, odd = kinds[number // every % len(kinds)]
                # The same sender has sent the object whose name it has.
                is_near = known // TOGETHER == number // TOGETHER and known
                odd = Odd.CUT if odd is Odd.CLASH and not is_near else odd
                yield Piece(number, way, odd, known)
            elif number % between == between // 2 and self.marked:
                yield Piece(number, Way.MARKED)
            elif number % 10 == 3:
                yield Piece(number, Way.STRIPPED)
            else:
                yield Piece(number, Way.PASSED)
                known = number


class Templates:
    """Makes the bytes of objects, a thousand times faster than by way of data sets."""

    def __init__(self) -> None:
        """Make the one that all others are made of."""
        image = resources.files("dicom_node.demo") / "images" / "ct.dcm"
        one = dcmread(io.BytesIO(image.read_bytes()))
        one.PixelData = one.pixel_array[:SIDE, :SIDE].tobytes()
        one.Rows = one.Columns = SIDE
        name = uid.UID(_PLACE)
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = name
        one.StudyInstanceUID = _PLACE.replace(".1000", ".2000")
        del one[0xFFFC, 0xFFFC]
        self._size = len(one.PixelData)
        self._pixels = np.frombuffer(one.PixelData, "<i2")
        self._native = _encoded(one)
        one.PixelData = one.PixelData[: self._size // 2]
        self._short = _encoded(one)
        one.PixelData = bytes(_BOMB)
        one.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
        self._deflated = _encoded(one)
        one.file_meta.TransferSyntaxUID = uid.JPEG2000Lossless
        one["PixelData"].VR = "OB"
        one["PixelData"].is_undefined_length = True
        junk = b"\xff\x4f\xff\x51" + bytes(400)
        one.PixelData = (
            bytes.fromhex("feff00e000000000feff00e0")
            + len(junk).to_bytes(4, "little")
            + junk
        )
        self._coded = _encoded(one)

    def pixels(self, number: int) -> bytes:
        """Return the pixels of an object's original."""
        values = np.roll(self._pixels, number % 89 * SIDE).copy()
        values[:3] = (number >> 20 & 0x3FF, number >> 10 & 0x3FF, number & 0x3FF)
        return values.tobytes()

    def original(self, piece: Piece) -> bytes:
        """Return the file of an object that nobody has marked, odd or not."""
        other = {
            Odd.PIXELLESS: self._short,
            Odd.CODESTREAM: self._coded,
            Odd.DEFLATED: self._deflated,
        }
        if piece.odd in other:
            return _named(other[piece.odd], piece)
        whole = _named(self._native, piece)
        whole = whole[: -self._size] + self.pixels(piece.number)
        return self._spoilt(whole, piece)

    def _spoilt(self, whole: bytes, piece: Piece) -> bytes:
        """Return a sound file as it is sent, if it is odd as a whole."""
        size, name = self._size, piece.uid.encode()
        if piece.odd is Odd.CUT:
            whole = whole[: -size // 2]
        elif piece.odd is Odd.LENGTH:
            whole = whole[: -size - 4] + b"\xf0\xff\xff\x7f" + whole[-size:]
        elif piece.odd is Odd.NAMES:  # the command is made of the head
            whole = whole.replace(name, _PLACE.encode(), 1)
        elif piece.odd is Odd.CLASH:
            known = Piece(piece.known, piece.way)
            whole = whole.replace(name, known.uid.encode())
        elif piece.odd is Odd.DEEP:
            before = whole.index(b"\x09\x00\x10\x00LO")
            whole = whole[:before] + _DEEP + whole[before:]
        return whole


def _named(template: bytes, piece: Piece) -> bytes:
    study = f"{_ROOT}.2{piece.number // TOGETHER:012}"
    place = _PLACE.replace(".1000", ".2000").encode()
    return template.replace(_PLACE.encode(), piece.uid.encode()).replace(
        place, study.encode()
    )


def _encoded(one: object) -> bytes:
    buffer = io.BytesIO()
    one.save_as(buffer)  # type: ignore[attr-defined]
    return buffer.getvalue()
