"""Pixel Data (7FE0,0010) to stored values and back, bit for bit.

Decoding takes the stored values out of their words; encoding puts them back where they
were and leaves every other bit as it was: bits beyond Bits Stored that a vendor uses for
overlays, a padding byte, bytes behind the last frame. Unused bits that merely repeat the
sign, or are zero, follow the new value instead.

What is marked today: MONOCHROME1, MONOCHROME2 and RGB, 8 or 16 Bits Allocated. Everything
else is refused by name. Neither windows nor codecs are known here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from pydicom import uid

from dicom_node.elements import PIXEL_DATA, header
from dicom_node.errors import (
    MalformedObjectError,
    NotAnImageError,
    UnmarkablePixelsError,
    UnsupportedPixelDataError,
)
from miadmark_core.image import HostImage, ValueRange

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

    from dicom_node.elements import Elements

    Words = NDArray[np.unsignedinteger[Any]]

NATIVE: Final = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
)
"""Uncompressed transfer syntaxes; what is compressed is decompressed before."""

MAX_SIZE: Final = 1 << 31
"""Bytes of all frames together; checked before anything is allocated."""

_OTHER_PIXELS: Final = (
    0x7FE00008,  # Float Pixel Data
    0x7FE00009,  # Double Float Pixel Data
    0x00287FE0,  # Pixel Data Provider URL
)

_SAMPLES: Final = {"MONOCHROME1": 1, "MONOCHROME2": 1, "RGB": 3}

# Tags that a layout is read from.
TAGS: Final = (
    0x00280002,  # Samples per Pixel
    0x00280004,  # Photometric Interpretation
    0x00280006,  # Planar Configuration
    0x00280008,  # Number of Frames
    0x00280010,  # Rows
    0x00280011,  # Columns
    0x00280100,  # Bits Allocated
    0x00280101,  # Bits Stored
    0x00280102,  # High Bit
    0x00280103,  # Pixel Representation
    0x00280120,  # Pixel Padding Value
    0x00280121,  # Pixel Padding Range Limit
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelLayout:
    """How stored values lie in native Pixel Data (PS3.3 C.7.6.3, PS3.5 8.1.1)."""

    frames: int
    rows: int
    columns: int
    samples: int
    photometric_interpretation: str
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool
    is_planar: bool
    padding: ValueRange | None
    is_little_endian: bool = True
    is_in_words: bool = False
    """8-bit samples lie in 16-bit words (VR OW), which matters in big endian."""

    @property
    def size(self) -> int:
        """Return how many bytes the frames take."""
        samples = self.frames * self.rows * self.columns * self.samples
        return samples * self.bits_allocated // 8

    @property
    def values(self) -> ValueRange:
        """Return what a stored value may be."""
        return ValueRange.stored(self.bits_stored, signed=self.is_signed)

    @property
    def shift(self) -> int:
        """Return how many bits lie below a stored value in its word."""
        return self.high_bit + 1 - self.bits_stored


class Decoded(NamedTuple):
    """Stored values, and what else was in their words."""

    image: HostImage
    has_foreign_bits: bool
    """Bits outside Bits Stored hold something of their own, such as an overlay."""


def require_picture(elements: Elements) -> None:
    """Return if there is Pixel Data.

    Raises:
        NotAnImageError: There is nothing that could be a picture.
        UnmarkablePixelsError: There is, but in another form.
    """
    if PIXEL_DATA in elements:
        return
    if any(tag in elements for tag in _OTHER_PIXELS):
        raise UnmarkablePixelsError(
            "float pixels, or pixels kept elsewhere, carry no mark"
        )
    raise NotAnImageError("the object holds no picture")


def layout_of(attributes: Dataset) -> PixelLayout:
    """Return the layout that the Image Pixel attributes describe.

    Raises:
        UnsupportedPixelDataError: They describe something that cannot be marked;
            ``UnmarkablePixelsError`` where no version will.
        MalformedObjectError: They contradict each other.
    """
    try:
        photometric = str(attributes.PhotometricInterpretation)
        bits_allocated = int(attributes.BitsAllocated)
        bits_stored = int(attributes.get("BitsStored", bits_allocated))
        is_signed = bool(int(attributes.get("PixelRepresentation", 0)))
        layout = PixelLayout(
            frames=int(attributes.get("NumberOfFrames") or 1),
            rows=int(attributes.Rows),
            columns=int(attributes.Columns),
            samples=int(attributes.SamplesPerPixel),
            photometric_interpretation=photometric,
            bits_allocated=bits_allocated,
            bits_stored=bits_stored,
            high_bit=int(attributes.get("HighBit", bits_stored - 1)),
            is_signed=is_signed,
            is_planar=bool(int(attributes.get("PlanarConfiguration") or 0)),
            padding=_padding(attributes, bits_allocated, is_signed=is_signed),
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise MalformedObjectError(
            "the Image Pixel attributes are missing or not numbers"
        ) from error
    return _checked(layout)


def _checked(layout: PixelLayout) -> PixelLayout:
    photometric = layout.photometric_interpretation
    if photometric not in _SAMPLES:
        raise UnsupportedPixelDataError(
            f"Photometric Interpretation {photometric!r} cannot be marked yet",
            hint="MONOCHROME1, MONOCHROME2 and RGB can.",
        )
    if layout.bits_allocated not in {8, 16}:
        raise UnmarkablePixelsError(
            f"{layout.bits_allocated} Bits Allocated carry no mark",
            hint="8 and 16 do.",
        )
    if layout.samples != _SAMPLES[photometric]:
        raise MalformedObjectError(f"{photometric} with {layout.samples} samples")
    if not 1 <= layout.bits_stored <= layout.high_bit + 1 <= layout.bits_allocated:
        raise MalformedObjectError(
            f"Bits Stored {layout.bits_stored}, High Bit {layout.high_bit} and "
            f"Bits Allocated {layout.bits_allocated} contradict each other"
        )
    if min(layout.rows, layout.columns, layout.frames) < 1 or layout.size > MAX_SIZE:
        raise MalformedObjectError(
            f"{layout.frames} frames of {layout.rows} x {layout.columns}"
        )
    return layout


def _padding(
    attributes: Dataset, bits_allocated: int, *, is_signed: bool
) -> ValueRange | None:
    """Return the padding values; they may be given with the wrong sign (VR US or SS)."""

    def as_stored(value: int) -> int:
        value &= (1 << bits_allocated) - 1
        negative = is_signed and value >> (bits_allocated - 1)
        return value - (1 << bits_allocated) if negative else value

    value = attributes.get("PixelPaddingValue")
    if value is None or int(attributes.SamplesPerPixel) != 1:
        return None
    limit = attributes.get("PixelPaddingRangeLimit")
    ends = (as_stored(int(value)), as_stored(int(value if limit is None else limit)))
    return ValueRange(min(ends), max(ends))


def native(
    elements: Elements, layout: PixelLayout, syntax: UID
) -> tuple[bytes, PixelLayout]:
    """Return native Pixel Data, and how it lies.

    Raises:
        NotAnImageError: There is no Pixel Data.
        UnsupportedPixelDataError: It is compressed.
        MalformedObjectError: It is shorter than the image it should hold.
    """
    element = elements.get(PIXEL_DATA)
    if element is None:
        raise NotAnImageError("the object holds no Pixel Data")
    if syntax not in NATIVE or element.is_undefined_length:
        raise UnsupportedPixelDataError(
            f"transfer syntax {syntax.name} cannot be marked yet",
            hint="Decompress it first.",
        )
    layout = replace(
        layout,
        is_little_endian=elements.encoding.is_little_endian,
        is_in_words=element.vr == "OW",
    )
    found = element.end - element.value
    if found < layout.size:
        raise MalformedObjectError(
            f"Pixel Data holds {found} bytes, its image takes {layout.size}",
            hint="The object is cut short; ask its sender for it again.",
        )
    # What stands behind the image would leave as it is, so it must be nothing.
    if any(elements.value_of(PIXEL_DATA)[layout.size + layout.size % 2 :]):
        raise MalformedObjectError(
            f"Pixel Data holds {found} bytes, its image takes {layout.size}",
            hint="Number of Frames, Rows and Columns do not cover all of it.",
        )
    return bytes(elements.value_of(PIXEL_DATA)), layout


def decode(pixel_data: bytes, layout: PixelLayout) -> Decoded:
    """Return the stored values in native Pixel Data."""
    words = _words(pixel_data, layout)
    fields = _fields(words, layout)
    expected = _as_words(fields, layout)
    pixels = fields.reshape(_shape(layout))
    if layout.is_planar:
        pixels = pixels.transpose(0, 2, 3, 1)
    image = HostImage(
        pixels=np.ascontiguousarray(pixels),
        values=layout.values,
        padding=layout.padding,
    )
    return Decoded(image, not np.array_equal(expected, words))


def encode(
    image: HostImage, pixel_data: bytes, layout: PixelLayout, *, has_foreign_bits: bool
) -> bytes:
    """Return ``pixel_data`` with other stored values: the inverse of :func:`decode`.

    Args:
        image: What to put in.
        pixel_data: What it was decoded from, or something of the same layout.
        layout: Of both.
        has_foreign_bits: Leave the bits outside Bits Stored as they are.
    """
    pixels = image.pixels
    if layout.is_planar:
        pixels = pixels.transpose(0, 3, 1, 2)
    words = _as_words(np.ascontiguousarray(pixels).reshape(-1), layout)
    if has_foreign_bits:
        mask = words.dtype.type(((1 << layout.bits_stored) - 1) << layout.shift)
        words = (words & mask) | (_words(pixel_data, layout) & ~mask)
    if _is_swapped(layout):
        pairs = _pairs(pixel_data, layout).copy()
        pairs[: layout.size] = words  # a last odd sample shares its word with padding
        encoded = pairs.view("<u2").astype(">u2").tobytes()
        return encoded + pixel_data[len(encoded) :]
    order = "<" if layout.is_little_endian else ">"
    encoded = words.astype(f"{order}u{words.dtype.itemsize}").tobytes()
    return encoded + pixel_data[layout.size :]


def element(pixel_data: bytes, elements: Elements, layout: PixelLayout) -> bytes:
    """Return native Pixel Data as the element that takes the place of the old one.

    Its VR stays what it was.
    """
    old = elements.get(PIXEL_DATA)
    vr = "OW" if layout.bits_allocated > 8 else "OB"
    if old is not None and old.vr:
        vr = old.vr
    return header(PIXEL_DATA, vr, len(pixel_data), elements.encoding) + pixel_data


def _shape(layout: PixelLayout) -> tuple[int, int, int, int]:
    if layout.is_planar:
        return (layout.frames, layout.samples, layout.rows, layout.columns)
    return (layout.frames, layout.rows, layout.columns, layout.samples)


def _is_swapped(layout: PixelLayout) -> bool:
    """Say whether bytes stand in pairs the wrong way round (PS3.5 7.3)."""
    return (
        layout.is_in_words
        and layout.bits_allocated == 8
        and not layout.is_little_endian
    )


def _pairs(pixel_data: bytes, layout: PixelLayout) -> NDArray[np.uint8]:
    """Return bytes that stand in pairs the wrong way round, put right; an even number."""
    words = np.frombuffer(pixel_data, ">u2", (layout.size + 1) // 2)
    return words.astype("<u2").view(np.uint8)


def _words(pixel_data: bytes, layout: PixelLayout) -> Words:
    """Return the words of all samples, in the order they are kept, native byte order."""
    if _is_swapped(layout):
        return _pairs(pixel_data, layout)[: layout.size]
    order = "<" if layout.is_little_endian else ">"
    dtype = np.dtype(f"{order}u{layout.bits_allocated // 8}")
    words = np.frombuffer(pixel_data, dtype, layout.size // dtype.itemsize)
    return words.astype(dtype.newbyteorder("="))


def _fields(words: Words, layout: PixelLayout) -> NDArray[np.integer[Any]]:
    """Return the stored value in each word, in the type of the layout's range."""
    word_bits = layout.bits_allocated
    # To the top, and down again: the second shift brings the sign along.
    signed = np.dtype(f"{'i' if layout.is_signed else 'u'}{word_bits // 8}")
    top = word_bits - 1 - layout.high_bit
    fields = (words << words.dtype.type(top)).view(signed)
    fields = fields >> signed.type(word_bits - layout.bits_stored)
    values: NDArray[np.integer[Any]] = fields.astype(layout.values.dtype)
    return values


def _as_words(fields: NDArray[np.integer[Any]], layout: PixelLayout) -> Words:
    """Return each value in its place, the bits above repeating its sign."""
    word = np.dtype(f"u{layout.bits_allocated // 8}")
    words: Words = fields.astype(word) << word.type(layout.shift)
    return words
