"""What else an object shows of a picture, besides the Pixel Data that a mark is put into.

Icons at any depth, pictures in private elements, overlays, documents. Each finding says
where, what, how large, how sure, and what to do; never what is in it. ``is`` means that
it is a picture; ``may be``, that it could be one and that nobody can say without knowing
the vendor: such elements are told, and left alone.

Whether an object is marked is taken from what it says of itself: no key is asked. What is
in the picture of an overlay, a document or an unknown codec is not known here.
"""

from __future__ import annotations

import struct
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from dicom_node import private_block
from dicom_node.elements import PIXEL_DATA
from dicom_node.likeness import (
    format_in,
    inflated,
    is_document,
    is_noise,
    is_raw,
    plausible_shapes,
)
from dicom_node.nested import Nest, standard_vr

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dicom_node.elements import Elements
    from dicom_node.instance import OpenInstance
    from dicom_node.nested import Place


class Certainty(StrEnum):
    """How sure it is that an element carries image content."""

    IS = "is"
    MAY_BE = "may be"


class Kind(StrEnum):
    """What an element is, or may be."""

    UNMARKED = "unmarked picture"
    """The Pixel Data of an object that carries no mark."""
    LABELS = "labels"
    ICON = "icon"
    NESTED = "nested picture"
    PRIVATE = "private picture"
    COMPRESSED = "compressed or encrypted"
    OTHER_PIXELS = "float pixels"
    ELSEWHERE = "pixels elsewhere"
    OVERLAY = "overlay"
    DOCUMENT = "document"
    PADDING = "trailing padding"
    UNREADABLE = "unreadable sequence"


ADVICE: Final = {
    Kind.UNMARKED: "Mark it, or see that it goes nowhere a marked object of its study "
    "goes.",
    Kind.LABELS: "Labels or quantities, not a picture: left as they are by design.",
    Kind.ICON: "Marking takes it out and seals it.",
    Kind.NESTED: "Marking takes it out and seals it.",
    Kind.PRIVATE: "Marking takes it out and seals it.",
    Kind.COMPRESSED: "Ask the vendor what it is; take it out before sending if it shows "
    "the image.",
    Kind.OTHER_PIXELS: "They cannot be marked yet: hold the object.",
    Kind.ELSEWHERE: "Whoever follows the address sees the original: marking takes it out "
    "and seals it.",
    Kind.OVERLAY: "Graphics over the image, or a picture of its own: look at it, and "
    "take it out before sending if it shows more than annotations.",
    Kind.DOCUMENT: "It may show the images: look at it before it is sent beside them.",
    Kind.PADDING: "Nothing but zeros belongs there: look at it.",
    Kind.UNREADABLE: "It cannot be read as a sequence, so nobody knows what is in it.",
}

_ICON: Final = 0x00880200
_ALWAYS: Final = {
    0x7FE00008: (Kind.OTHER_PIXELS, Certainty.IS),  # Float Pixel Data
    0x7FE00009: (Kind.OTHER_PIXELS, Certainty.IS),  # Double Float Pixel Data
    0x00420011: (Kind.DOCUMENT, Certainty.MAY_BE),  # Encapsulated Document
    0x00287FE0: (Kind.ELSEWHERE, Certainty.MAY_BE),  # Pixel Data Provider URL
}
_TRAILING: Final = 0xFFFCFFFC
_PRIVATE_META: Final = 0x00020102
_LEAST: Final = 64
"""Bytes of a private value that are worth a look."""

_LEAST_PADDING: Final = 1024
"""Bytes of rubbish behind an object that could be a thumbnail."""

_TEXTS: Final = frozenset({"LT", "ST", "UT", "UC"})
_BINARIES: Final = frozenset({"SQ", "OB", "OD", "OF", "OL", "OV", "OW", "UN", ""})
_TYPES: Final = {"OF": ("f4",), "OD": ("f8",), "OL": ("u4",), "OV": ("u8",)}

VENDORS: Final = frozenset(
    {
        # As named in pydicom's private dictionary (which is GDCM's):
        ("GEMS_SENO_02", 0x0045, 0x3F),  # Vignette Pixel Data
        ("MAROTECH Inc.", 0x0037, 0x23),  # JPEG Compressed Icon
        ("VEPRO VIF 3.0 DATA", 0x0055, 0x30),  # Icon data
        ("VEPRO VIM 5.0 DATA", 0x0055, 0x30),  # ICONDATA2
        ("ELSCINT1", 0x07A1, 0x0A),  # Tamar Compressed Pixel Data
        ("SIEMENS MED NM", 0x7FE1, 0x10),  # Compressed Pixel Data
        ("SPI-P Release 1", 0x7FE1, 0x10),  # Pixel Data
        # As the readers of SlicerHeart and of Hologic's tomosynthesis find them:
        ("KRETZ_US", 0x7FE1, 0x01),  # volume of an ultrasound machine
        ("GEMS_Ultrasound_MovieGroup_001", 0x7FE1, 0x60),  # frames of a loop
        ("HOLOGIC, Inc.", 0x7E01, 0x12),  # slices of a tomosynthesis
    }
)
"""Private elements that hold pictures: creator, group, element. Sequences of thumbnails
(GEIIS, Voxar) need no entry: the Pixel Data in them is found as it is."""


class Finding(NamedTuple):
    """An element that carries image content, or may."""

    path: str
    """In the notation of the standard, a private one with its creator."""
    kind: Kind
    size: int
    """Bytes."""
    certainty: Certainty
    detail: str = ""
    """A format or a shape, where one was recognised."""

    @property
    def advice(self) -> str:
        """Return what to do about it."""
        return ADVICE[self.kind]

    def as_json(self) -> dict[str, object]:
        """Return it as a JSON object."""
        return {
            "path": self.path,
            "kind": self.kind.value,
            "size": self.size,
            "certainty": self.certainty.value,
            "detail": self.detail,
            "advice": self.advice,
        }

    def __str__(self) -> str:
        """Return it as a line."""
        what = f"{self.kind.value}{f' ({self.detail})' if self.detail else ''}"
        return f"{self.path} {self.certainty.value} {what}, {self.size} bytes"


def findings(instance: OpenInstance, *, is_label: bool = False) -> list[Finding]:
    """Return everything in an object that carries image content other than marked pixels.

    Args:
        instance: Marked or not.
        is_label: Its pixels are labels or quantities, which are no picture to protect.

    Raises:
        MalformedObjectError: Its sequences hold more than is looked at.
    """
    elements = instance.elements
    own = frozenset(private_block.tags(elements))
    geometry = Geometry.of(elements)
    found = [
        finding
        for place in Nest(elements).walk()
        if place.top not in own
        and (finding := judged(place, elements, geometry)) is not None
    ]
    pixels = elements.get(PIXEL_DATA)
    if pixels is not None and not says_marked(instance):
        kind = Kind.LABELS if is_label else Kind.UNMARKED
        certainty = Certainty.MAY_BE if is_label else Certainty.IS
        size = pixels.end - pixels.value
        found.append(Finding("(7FE0,0010)", kind, size, certainty))
    found += _in_meta(instance)
    if not is_label:
        return found
    return [
        f._replace(kind=Kind.LABELS, certainty=Certainty.MAY_BE)
        if f.kind is Kind.OTHER_PIXELS
        else f
        for f in found
    ]


def says_marked(instance: OpenInstance) -> bool:
    """Say whether an object says it is marked: by its block, or how it was derived."""
    if private_block.tags(instance.elements):
        return True
    codes = instance.attributes(0x00089215).get("DerivationCodeSequence") or ()
    return any(
        item.get("CodingSchemeDesignator") == private_block.CODING_SCHEME
        for item in codes
    )


class Geometry(NamedTuple):
    """Rows and columns of the image; 0 where they are not given."""

    rows: int
    columns: int

    @classmethod
    def of(cls, elements: Elements) -> Geometry:
        """Return those that a data set gives."""
        order = "<" if elements.encoding.is_little_endian else ">"
        sides = []
        for tag in (0x00280010, 0x00280011):
            value = elements.value_of(tag) if tag in elements else b""
            sides.append(struct.unpack(f"{order}H", value)[0] if len(value) == 2 else 0)
        return cls(*sides)


def judged(place: Place, elements: Elements, geometry: Geometry) -> Finding | None:
    """Return what an element carries of a picture; None if nothing.

    The Pixel Data of the object itself is not judged here.
    """
    element = place.element
    tag = element.tag
    found = None
    if tag == _ICON and place.is_unreadable:
        found = _finding(place, Kind.ICON, Certainty.IS)
    elif place.is_unreadable:
        found = _private(place, elements, geometry)
        found = found or _finding(place, Kind.UNREADABLE, Certainty.MAY_BE)
    elif element.end == element.value:
        pass
    elif tag == PIXEL_DATA:
        found = _pixels(place)
    elif tag in _ALWAYS:
        found = _finding(place, *_ALWAYS[tag])
    elif tag >> 24 == 0x60 and not tag >> 16 & 1:
        found = _overlay(place, elements)
    elif not (vr := standard_vr(tag)):
        found = _private(place, elements, geometry)
    elif tag == _TRAILING:
        found = _padding(place, elements)
    elif (element.vr or vr) in _TEXTS:
        found = _text(place, elements)
    return found


def _pixels(place: Place) -> Finding | None:
    if not place.within:
        return None
    is_icon = any(step.sequence.tag == _ICON for step in place.within)
    return _finding(place, Kind.ICON if is_icon else Kind.NESTED, Certainty.IS)


def _overlay(place: Place, elements: Elements) -> Finding | None:
    """Return an overlay of its own, or one in unused bits of Pixel Data (retired)."""
    tag = place.element.tag
    if tag & 0xFFFF == 0x3000:
        return _finding(place, Kind.OVERLAY, Certainty.MAY_BE)
    is_position = tag & 0xFFFF == 0x0102 and not place.within
    if not is_position or (tag & 0xFFFF0000 | 0x3000) in elements:
        return None
    if not any(_value(place, elements)):
        return None
    return _finding(place, Kind.OVERLAY, Certainty.MAY_BE, "in bits of Pixel Data")


def _padding(place: Place, elements: Elements) -> Finding | None:
    value = _value(place, elements)
    if len(value) < _LEAST_PADDING or not any(value):
        return None
    return _finding(place, Kind.PADDING, Certainty.MAY_BE)


def _text(place: Place, elements: Elements) -> Finding | None:
    detail = format_in(_value(place, elements))
    return _finding(place, Kind.PRIVATE, Certainty.IS, detail) if detail else None


def _private(place: Place, elements: Elements, geometry: Geometry) -> Finding | None:
    """Return what an element that the standard does not know carries."""
    vr = place.element.vr
    value = _value(place, elements)
    if len(value) < _LEAST or vr not in _BINARIES:
        return _text(place, elements) if vr in _TEXTS else None
    inside = inflated(value)
    key = (place.creator, place.element.tag >> 16, place.element.tag & 0xFF)
    detail = format_in(value) or _deflated(format_in(inside))
    if detail or (key in VENDORS and vr != "SQ"):
        return _finding(place, Kind.PRIVATE, Certainty.IS, detail)
    shape, is_own = _raw_shape(inside or value, vr, elements, geometry)
    if shape is not None:
        certainty = Certainty.IS if is_own else Certainty.MAY_BE
        rows, columns = shape
        return _finding(place, Kind.PRIVATE, certainty, f"{rows} x {columns}, raw")
    kind = _unknown(value, inside)
    return None if kind is None else _finding(place, kind, Certainty.MAY_BE)


def _unknown(value: bytes, inside: bytes) -> Kind | None:
    if is_document(value):
        return Kind.DOCUMENT
    return Kind.COMPRESSED if not inside and is_noise(value) else None


def _deflated(detail: str) -> str:
    return f"{detail}, deflated" if detail else ""


def _raw_shape(
    value: bytes, vr: str, elements: Elements, geometry: Geometry
) -> tuple[tuple[int, int] | None, bool]:
    """Return the shape of a raw picture, and whether it is that of the image itself."""
    order = "<" if elements.encoding.is_little_endian else ">"
    types = tuple(f"{order}{t}" for t in _TYPES.get(vr, ("u1", "u2", "i2")))
    area = geometry.rows * geometry.columns
    for sample in types:
        width = int(sample[2:])
        is_whole = (
            area and len(value) // (area * width) * area * width >= len(value) - 1
        )
        if is_whole and (shape := is_raw(value, [geometry], [sample])):
            return shape, True
        shapes = plausible_shapes(len(value) // width, *geometry)
        if shape := is_raw(value, shapes, [sample]):
            return shape, False
    return None, False


def _in_meta(instance: OpenInstance) -> Iterator[Finding]:
    """Return a picture among the private information of the file (PS3.10 7.1)."""
    value = instance.file.meta.get_item(_PRIVATE_META)
    content = bytes(value.value or b"") if value is not None else b""
    if detail := format_in(content):
        yield Finding("(0002,0102)", Kind.PRIVATE, len(content), Certainty.IS, detail)
    elif is_noise(content):
        yield Finding("(0002,0102)", Kind.COMPRESSED, len(content), Certainty.MAY_BE)


def _value(place: Place, elements: Elements) -> bytes:
    return bytes(elements.encoded[place.element.value : place.element.end])


def _finding(
    place: Place, kind: Kind, certainty: Certainty, detail: str = ""
) -> Finding:
    size = place.element.end - place.element.value
    return Finding(place.path, kind, size, certainty, detail)
