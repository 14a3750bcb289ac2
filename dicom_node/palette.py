"""PALETTE COLOR: indices into a table of colours, made into colours and back again.

No mark can be added to indices: one more may be another colour altogether. So a marked
palette picture goes out as RGB, 8 bits a sample, the high ones where its table has more;
and what tells the index of each pixel from its colour goes into the sealed record. It is
little: the table as far as it was used, and those pixels whose colour stands for several
indices, where theirs is not the most frequent.

Layout of what is kept, integers little-endian::

    deflated: digest of the indices (32) | used colours (4) | frames (4) | tail (1)
    | VR of Pixel Data (2) | exceptions (4) for each frame
    | colours, 4 each: red, green, blue, 0 | their most frequent indices, 4 each
    | exceptions: places in their frame, 4 each | their indices, 4 each | tail

The tail is what stands behind the indices: a padding byte, if any.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from dicom_node.elements import Limits, scan
from dicom_node.errors import MalformedObjectError, UnsupportedPixelDataError
from miadmark_core.errors import AlteredImageError, DamagedSealError
from miadmark_core.image import HostImage, ValueRange

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from dicom_node.elements import Elements
    from dicom_node.pixel_data import Decoded
    from dicom_node.pixel_layout import PixelLayout
    from miadmark_core.image import StoredValues

TAGS: Final = (
    *(0x00281101, 0x00281102, 0x00281103),  # Red, Green, Blue Palette Descriptors
    *(0x00281201, 0x00281202, 0x00281203),  # Data
    *(0x00281221, 0x00281222, 0x00281223),  # Segmented Data
    0x00281199,  # Palette Color Lookup Table UID
)
"""Attributes that hold the table (PS3.3 C.7.6.3.1.5 and 6, C.7.9)."""

_HEAD: Final = struct.Struct("<32sIIB2s")
_BYTES: Final = ValueRange(0, 255)
_MAX_BODY: Final = 1 << 31


class Coloured(NamedTuple):
    """A palette picture in colours."""

    image: HostImage
    """Three samples of 8 bits."""
    kept: bytes
    """What :func:`indexed` needs to make it indices again."""


class Indexed(NamedTuple):
    """A palette picture as it was."""

    image: HostImage
    tail: bytes
    """What stood behind the indices."""
    vr: str
    """Of Pixel Data; empty in Implicit VR."""


def coloured(
    decoded: Decoded, attributes: Dataset, *, tail: bytes, vr: str
) -> Coloured:
    """Return the colours of a palette picture, and what makes them indices again.

    Args:
        decoded: The indices.
        attributes: With those of :data:`TAGS`.
        tail: What stands behind the indices in Pixel Data.
        vr: Of Pixel Data; empty in Implicit VR.

    Raises:
        UnsupportedPixelDataError: There are bits beside the indices.
        MalformedObjectError: The table cannot be read.
    """
    if decoded.has_foreign_bits:
        raise UnsupportedPixelDataError(
            "a palette picture with other bits beside its indices cannot be marked"
        )
    indices = decoded.image
    lower = indices.values.lower
    table = _table(attributes, indices.values)
    codes = _codes(table)
    counts = np.zeros(len(table), np.int64)
    for frame in indices.pixels:
        counts += np.bincount(_places(frame, lower), minlength=len(table))
    used = np.flatnonzero(counts)
    # Of the indices of one colour the most frequent first, then the lowest.
    order = used[np.lexsort((used, -counts[used], codes[used]))]
    colours, first = np.unique(codes[order], return_index=True)
    canonical = order[first]
    usual = np.zeros(len(table), np.int64)
    usual[used] = canonical[np.searchsorted(colours, codes[used])]
    places, values = [], []
    for frame in indices.pixels:
        at = _places(frame, lower)
        (odd,) = np.nonzero(usual[at] != at)
        places.append(odd.astype("<u4"))
        values.append(at[odd].astype("<u4"))
    head = _HEAD.pack(
        indices.digest(), len(colours), len(places), len(tail), vr.encode().ljust(2)
    )
    kept = b"".join(
        [
            head,
            np.array([len(p) for p in places], "<u4").tobytes(),
            colours.astype("<u4").tobytes(),
            canonical.astype("<u4").tobytes(),
            *(p.tobytes() for p in places),
            *(v.tobytes() for v in values),
            tail,
        ]
    )

    def made(number: int) -> StoredValues:
        shown: StoredValues = table[_places(indices.pixels[number], lower)]
        return shown.reshape(*indices.pixels.shape[1:3], 3)

    pixels = indices.made_of(made, 3, _BYTES.dtype)
    image = HostImage(pixels=pixels, values=_BYTES)
    return Coloured(image, zlib.compress(kept, 9))


def indexed(colours: HostImage, kept: bytes, layout: PixelLayout) -> Indexed:
    """Return the indices of a picture in colours; the inverse of :func:`coloured`.

    Args:
        colours: Of three samples of 8 bits.
        kept: What :func:`coloured` returned.
        layout: Of the indices.

    Raises:
        DamagedSealError: ``kept`` is something else.
        AlteredImageError: The colours are others.
    """
    try:
        parts = _parsed(kept)
    except (struct.error, ValueError, zlib.error) as error:
        raise DamagedSealError("what a palette was kept in is damaged") from error
    lower = layout.values.lower
    dtype = layout.values.dtype

    def make(number: int) -> StoredValues:
        codes = _codes(colours.pixels[number])
        found = np.searchsorted(parts.colours, codes).clip(max=len(parts.colours) - 1)
        if not np.array_equal(parts.colours[found], codes):
            raise AlteredImageError("a colour is not in the palette of the original")
        at = parts.canonical[found].reshape(-1)
        at[parts.places[number]] = parts.values[number]
        frame: StoredValues = (at + lower).astype(dtype).reshape(*codes.shape, 1)
        return frame

    pixels = colours.made_of(make, 1, dtype)
    image = HostImage(pixels=pixels, values=layout.values)
    if image.digest() != parts.digest:
        raise AlteredImageError("the palette does not give back the original")
    return Indexed(image, parts.tail, parts.vr)


def sent_layout(layout: PixelLayout) -> PixelLayout:
    """Return how a palette picture lies once it is in colours."""
    return replace(
        layout,
        samples=3,
        photometric_interpretation="RGB",
        bits_allocated=8,
        bits_stored=8,
        high_bit=7,
        is_signed=False,
        is_planar=False,
        padding=None,
        is_in_words=False,
    )


def changes(elements: Elements, layout: PixelLayout) -> dict[int, bytes | None]:
    """Return what else is another in a palette picture that is sent in colours.

    Args:
        elements: Of the object.
        layout: As it is sent.
    """
    new = Dataset()
    new.SamplesPerPixel = layout.samples
    new.PhotometricInterpretation = layout.photometric_interpretation
    new.PlanarConfiguration = 0
    new.BitsAllocated = layout.bits_allocated
    new.BitsStored = layout.bits_stored
    new.HighBit = layout.high_bit
    new.PixelRepresentation = 0
    encoding = elements.encoding
    found = scan(encoding.encode(new), encoding, Limits())
    gone = (tag for tag in (*TAGS, *_OF_INDICES) if tag in elements)
    return {**dict.fromkeys(gone), **{tag: found.bytes_of(tag) for tag in found.tags()}}


_OF_INDICES: Final = (
    *(0x00280106, 0x00280107),  # Smallest and Largest Image Pixel Value
    *(0x00280120, 0x00280121),  # Pixel Padding Value, Range Limit
    *(0x00281050, 0x00281051),  # Window Center, Width: of grey pictures
)


class _Parts(NamedTuple):
    digest: bytes
    colours: NDArray[np.int64]
    canonical: NDArray[np.int64]
    places: list[NDArray[np.int64]]
    values: list[NDArray[np.int64]]
    tail: bytes
    vr: str


def _parsed(kept: bytes) -> _Parts:
    inflater = zlib.decompressobj()
    body = inflater.decompress(kept, _MAX_BODY)
    digest, colours, frames, tail, vr = _HEAD.unpack_from(body)
    counts = np.frombuffer(body, "<u4", frames, _HEAD.size).astype(np.int64)
    start = _HEAD.size + 4 * frames
    numbers = 2 * (colours + int(counts.sum()))
    if not inflater.eof or not colours or len(body) != start + 4 * numbers + tail:
        raise ValueError("not as long as it says")
    lists = np.frombuffer(body, "<u4", numbers, start).astype(np.int64)
    tables, rest = lists[: 2 * colours], lists[2 * colours :]
    places, values = np.split(rest, 2)
    ends = np.cumsum(counts)[:-1]
    return _Parts(
        digest=digest,
        colours=tables[:colours],
        canonical=tables[colours:],
        places=np.split(places, ends),
        values=np.split(values, ends),
        tail=body[len(body) - tail :],
        vr=vr.decode("ascii").strip(),
    )


def _table(attributes: Dataset, values: ValueRange) -> NDArray[np.uint8]:
    """Return the colour of each index, ``(indices, 3)``."""
    indices = np.arange(values.lower, values.upper + 1)
    try:
        colours = np.asarray(apply_color_lut(indices, _unpadded(attributes)))
    except Exception as error:
        raise MalformedObjectError(
            f"the palette cannot be read: {type(error).__name__}"
        ) from error
    # Tables of 16 bits are now and then filled with bytes only.
    if colours.dtype.itemsize == 2 and colours.max() > 255:
        colours = colours >> 8
    table: NDArray[np.uint8] = colours[:, :3].astype(np.uint8)
    return table


def _unpadded(attributes: Dataset) -> Dataset:
    """Return the tables without the byte that makes an odd number of entries even."""
    tables = Dataset()
    tables.update(attributes)
    tables.set_original_encoding(*attributes.original_encoding)
    for name in ("Red", "Green", "Blue"):
        data = attributes.get(f"{name}PaletteColorLookupTableData")
        descriptor = attributes.get(f"{name}PaletteColorLookupTableDescriptor")
        if data and descriptor and len(data) == int(descriptor[0]) + 1:
            setattr(tables, f"{name}PaletteColorLookupTableData", data[:-1])
    return tables


def _codes(colours: NDArray[Any]) -> NDArray[np.int64]:
    wide = colours.astype(np.int64)
    codes: NDArray[np.int64] = wide[..., 0] | wide[..., 1] << 8 | wide[..., 2] << 16
    return codes


def _places(frame: StoredValues, lower: int) -> NDArray[np.int64]:
    return frame.reshape(-1).astype(np.int64) - lower
