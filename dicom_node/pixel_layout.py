"""How stored values lie in Pixel Data, as the Image Pixel attributes say (PS3.3 C.7.6.3).

Everything is checked here before anything is allocated, and what cannot carry a mark is
refused by name. No byte of Pixel Data is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from pydicom import uid

from dicom_node.elements import PIXEL_DATA
from dicom_node.errors import (
    MalformedObjectError,
    NotAnImageError,
    UnmarkablePixelsError,
    UnsupportedPixelDataError,
)
from miadmark_core.image import ValueRange

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from dicom_node.elements import Elements
    from dicom_node.instance import OpenInstance
    from dicom_node.part10 import Encoding

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

YBR: Final = "YBR_FULL"
YBR_422: Final = "YBR_FULL_422"
PALETTE: Final = "PALETTE COLOR"

_SAMPLES: Final = {
    "MONOCHROME1": 1,
    "MONOCHROME2": 1,
    PALETTE: 1,
    "RGB": 3,
    YBR: 3,
    YBR_422: 3,
}

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
        return self.frames * self.frame_size

    @property
    def frame_size(self) -> int:
        """Return how many bytes one frame takes."""
        # Two pixels share their chrominance in YBR_FULL_422 (PS3.3 C.7.6.3.1.2).
        stored = 2 if self.photometric_interpretation == YBR_422 else self.samples
        return self.rows * self.columns * stored * self.bits_allocated // 8

    @property
    def is_luminance(self) -> bool:
        """Return whether the luminance is marked, and nothing else."""
        return self.photometric_interpretation in {YBR, YBR_422}

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return the shape of the image that is marked."""
        samples = 1 if self.is_luminance else self.samples
        return (self.frames, self.rows, self.columns, samples)

    @property
    def values(self) -> ValueRange:
        """Return what a stored value may be."""
        return ValueRange.stored(self.bits_stored, signed=self.is_signed)

    @property
    def shift(self) -> int:
        """Return how many bits lie below a stored value in its word."""
        return self.high_bit + 1 - self.bits_stored


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


def layout_in(instance: OpenInstance) -> PixelLayout:
    """Return the layout that an object describes; see :func:`layout_of`.

    The pictures of a series say the same byte for byte, and pydicom takes longer to read
    it than a mark takes to be subtracted: so what was said lately is remembered.
    """
    encoded = instance.elements.extract(TAGS)
    if len(encoded) > _SHORT:
        return layout_of(instance.attributes(*TAGS))
    return _known_layout(encoded, instance.file.encoding)


_SHORT: Final = 512
"""Bytes; a layout takes a hundred and fifty."""


@lru_cache(maxsize=256)
def _known_layout(encoded: bytes, encoding: Encoding) -> PixelLayout:
    return layout_of(encoding.decode(encoded))


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
            hint="MONOCHROME1 and 2, RGB, YBR_FULL, YBR_FULL_422 and PALETTE COLOR can.",
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
    if photometric == YBR_422 and (layout.columns % 2 or layout.is_planar):
        raise MalformedObjectError(
            f"{photometric} of {layout.columns} columns, or in planes of colour"
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
