"""Pixel Data (7FE0,0010) to stored values and back, bit for bit.

Decoding takes out of their words the stored values that a mark may change; encoding puts
them back where they were and leaves every other bit as it was: the chrominance of YBR
pictures, bits beyond Bits Stored that a vendor uses for overlays, a padding byte. Unused
bits that merely repeat the sign, or are zero, follow the new value instead. What is left
as it was is *the rest*, and has a digest of its own, so that whoever puts an original
back can tell whether somebody changed that.

Of YBR pictures the luminance is marked, and nothing else: a conversion to grey then
leaves the mark whole. PALETTE COLOR decodes to indices, which no mark can be added to;
:mod:`dicom_node.palette` makes colours of them.

Frames are decoded one at a time where they are too many for memory. Neither windows nor
codecs are known here.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from dicom_node.elements import PIXEL_DATA, Streamed, header
from dicom_node.errors import (
    MalformedObjectError,
    NotAnImageError,
    UnsupportedPixelDataError,
)
from dicom_node.mapped import is_mapped, let_go
from dicom_node.pixel_layout import NATIVE, YBR_422
from miadmark_core.image import HostImage, LazyFrames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from pydicom.uid import UID

    from dicom_node.elements import Elements
    from dicom_node.mapped import Buffer
    from dicom_node.pixel_layout import PixelLayout
    from miadmark_core.image import StoredValues

    Words = NDArray[np.unsignedinteger[Any]]

MOST_HELD: Final = 1 << 28
"""Bytes of frames that are held in memory once they are decoded."""


class Decoded(NamedTuple):
    """Stored values, and what else was in their words."""

    image: HostImage
    """Of YBR pictures the luminance."""
    has_foreign_bits: bool
    """Bits outside Bits Stored hold something of their own, such as an overlay."""


def native(
    elements: Elements, layout: PixelLayout, syntax: UID
) -> tuple[Buffer, PixelLayout]:
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
    return elements.value_of(PIXEL_DATA), layout


def decode(pixel_data: Buffer, layout: PixelLayout) -> Decoded:
    """Return the stored values in native Pixel Data that a mark may change."""
    foreign: list[bool] = []

    def look(words: Words, fields: StoredValues) -> None:
        if not any(foreign):
            foreign.append(not np.array_equal(_as_words(fields, layout), words))

    is_filled = layout.bits_stored == layout.bits_allocated
    image = _decoded(pixel_data, layout, None if is_filled else look)
    return Decoded(image, any(foreign))


def image_in(pixel_data: Buffer, layout: PixelLayout) -> HostImage:
    """Return the stored values alone, for whoever knows what else is in their words."""
    return _decoded(pixel_data, layout, None)


def _decoded(
    pixel_data: Buffer,
    layout: PixelLayout,
    look: Callable[[Words, StoredValues], object] | None,
) -> HostImage:
    """Return the stored values, and let ``look`` see every frame of them meanwhile."""
    read = _reader(pixel_data, layout)

    def make(number: int) -> StoredValues:
        return _parted(_fields(read(number), layout), layout)[0]

    frames = LazyFrames(layout.shape, layout.values.dtype, make)
    held = None
    if layout.size < MOST_HELD:
        held = np.empty(frames.shape, frames.dtype)
    for number in range(layout.frames):
        if held is None and look is None:
            break
        words = read(number)
        fields = _fields(words, layout)
        if held is not None:
            held[number] = _parted(fields, layout)[0]
        if look is not None:
            look(words, fields)
    return HostImage(
        pixels=frames if held is None else held,
        values=layout.values,
        padding=layout.padding,
    )


def rest(pixel_data: Buffer, layout: PixelLayout, *, has_foreign_bits: bool) -> bytes:
    """Return the SHA-256 of all that :func:`encode` leaves; empty if that is nothing.

    It does not depend on the order in which samples are kept.

    Args:
        pixel_data: With or without a mark: that makes no difference.
        layout: Of it.
        has_foreign_bits: Whether bits outside Bits Stored hold something of their own,
            as :func:`decode` said of the original.
    """
    if not has_foreign_bits and not layout.is_luminance:
        return b""
    read = _reader(pixel_data, layout)
    digest = hashlib.sha256(b"miadmark/v1/rest\n")
    for number in range(layout.frames):
        words = read(number)
        if has_foreign_bits:
            foreign = words & ~_mask(words, layout)
            digest.update(_interleaved(foreign, layout).tobytes())
        if layout.is_luminance:
            digest.update(_parted(_fields(words, layout), layout)[1].tobytes())
    return digest.digest()


def coloured(
    pixel_data: Buffer, layout: PixelLayout
) -> Callable[[int], NDArray[np.float32]]:
    """Return what makes the colours of one frame of a YBR picture.

    Returns:
        ``(rows, columns, 3)`` for the number of a frame, red, green and blue, 0..1.

    Source:
        PS3.3 C.7.6.3.1.2.
    """
    read = _reader(pixel_data, layout)
    top = layout.values.upper

    def colours(number: int) -> NDArray[np.float32]:
        luminance, rest = _parted(_fields(read(number), layout), layout)
        chroma = rest.astype(np.float32) - (top + 1) // 2
        if layout.photometric_interpretation == YBR_422:
            chroma = np.repeat(chroma, 2, axis=1)
        blue, red = chroma[..., :1], chroma[..., 1:]
        y = luminance.astype(np.float32)
        rgb = (y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue)
        seen: NDArray[np.float32] = np.clip(np.concatenate(rgb, -1) / top, 0, 1)
        return seen

    return colours


def encode(
    image: HostImage,
    pixel_data: Buffer,
    layout: PixelLayout,
    *,
    has_foreign_bits: bool,
) -> Iterator[Buffer]:
    """Yield ``pixel_data`` with other stored values: the inverse of :func:`decode`.

    Args:
        image: What to put in.
        pixel_data: What it was decoded from, or something of the same layout; without
            chrominance and bits to be left, its size is all that counts.
        layout: Of both.
        has_foreign_bits: Leave the bits outside Bits Stored as they are.
    """
    read = _reader(pixel_data, layout)
    if _is_swapped(layout):
        frames = [_put(image, n, read, layout, has_foreign_bits) for n in _all(layout)]
        pairs = _pairs(pixel_data, layout).copy()
        pairs[: layout.size] = np.concatenate(frames)
        # A last odd sample shares its word with padding.
        encoded = pairs.view("<u2").astype(">u2").tobytes()
        yield encoded
        yield pixel_data[len(encoded) :]
        return
    order = "<" if layout.is_little_endian else ">"
    for number in _all(layout):
        words = _put(image, number, read, layout, has_foreign_bits)
        ordered = words.astype(f"{order}u{words.dtype.itemsize}", copy=False)
        yield ordered.view(np.uint8).data
    yield pixel_data[layout.size :]


def element(
    parts: Iterator[Buffer],
    size: int,
    elements: Elements,
    layout: PixelLayout,
    vr: str = "",
) -> Streamed:
    """Return native Pixel Data as the element that takes the place of the old one.

    Args:
        parts: From :func:`encode`.
        size: Bytes of all of them.
        elements: Of the data set that it is for.
        layout: Of the pixels.
        vr: What it has; that of the old one by default.
    """
    if not vr:
        old = elements.get(PIXEL_DATA)
        vr = (old.vr if old else "") or ("OW" if layout.bits_allocated > 8 else "OB")
    start = header(PIXEL_DATA, vr, size, elements.encoding)

    def pieces() -> Iterator[Buffer]:
        yield start
        yield from parts

    return Streamed(len(start) + size, pieces())


def _all(layout: PixelLayout) -> range:
    return range(layout.frames)


def _put(
    image: HostImage,
    number: int,
    read: Callable[[int], Words],
    layout: PixelLayout,
    has_foreign_bits: bool,  # noqa: FBT001
) -> Words:
    """Return the words of one frame with the stored values of ``image``."""
    pixels = image.pixels[number]
    if layout.is_luminance:
        _, rest = _parted(_fields(read(number), layout), layout)
        if layout.photometric_interpretation == YBR_422:
            pairs = pixels.reshape(layout.rows, layout.columns // 2, 2)
            fields = np.concatenate([pairs, rest], -1)
        else:
            fields = np.concatenate([pixels, rest], -1)
    else:
        fields = pixels
    if layout.is_planar:
        fields = fields.transpose(2, 0, 1)
    words = _as_words(np.ascontiguousarray(fields).reshape(-1), layout)
    if has_foreign_bits:
        old = read(number)
        mask = _mask(old, layout)
        words = np.bitwise_or(words & mask, old & ~mask)
    return words


def _parted(
    fields: StoredValues, layout: PixelLayout
) -> tuple[StoredValues, StoredValues]:
    """Return what is marked of a frame, ``(rows, columns, samples)``, and what is not."""
    if layout.photometric_interpretation == YBR_422:
        pairs = fields.reshape(layout.rows, layout.columns // 2, 4)
        marked = pairs[..., :2].reshape(layout.rows, layout.columns, 1)
        return marked, pairs[..., 2:]
    pixels = _interleaved(fields, layout)
    if layout.is_luminance:
        return np.ascontiguousarray(pixels[..., :1]), pixels[..., 1:]
    return pixels, pixels[..., :0]


def _interleaved(values: StoredValues, layout: PixelLayout) -> StoredValues:
    """Return values of one frame with the samples of a pixel together."""
    if layout.photometric_interpretation == YBR_422:
        return values
    if layout.is_planar:
        planes = values.reshape(layout.samples, layout.rows, layout.columns)
        return np.ascontiguousarray(planes.transpose(1, 2, 0))
    return values.reshape(layout.rows, layout.columns, layout.samples)


def _mask(words: Words, layout: PixelLayout) -> np.unsignedinteger[Any]:
    mask: np.unsignedinteger[Any] = words.dtype.type(
        ((1 << layout.bits_stored) - 1) << layout.shift
    )
    return mask


def _is_swapped(layout: PixelLayout) -> bool:
    """Say whether bytes stand in pairs the wrong way round (PS3.5 7.3)."""
    return (
        layout.is_in_words
        and layout.bits_allocated == 8
        and not layout.is_little_endian
    )


def _pairs(pixel_data: Buffer, layout: PixelLayout) -> NDArray[np.uint8]:
    """Return bytes that stand in pairs the wrong way round, put right; an even number."""
    words = np.frombuffer(pixel_data, ">u2", (layout.size + 1) // 2)
    return words.astype("<u2").view(np.uint8)


def _reader(pixel_data: Buffer, layout: PixelLayout) -> Callable[[int], Words]:
    """Return what reads the words of one frame, as they are kept, native byte order."""
    count = layout.frame_size * 8 // layout.bits_allocated
    if _is_swapped(layout):
        pairs = _pairs(pixel_data, layout)
        return lambda number: pairs[number * count : (number + 1) * count]
    order = "<" if layout.is_little_endian else ">"
    dtype = np.dtype(f"{order}u{layout.bits_allocated // 8}")
    view = memoryview(pixel_data)

    def read(number: int) -> Words:
        start = number * layout.frame_size
        part = view[start : start + layout.frame_size]
        words = np.frombuffer(part, dtype, count)
        # What is mapped is copied, to be let go.
        words = words.astype(dtype.newbyteorder("="), copy=is_mapped(part))
        let_go(part)
        return words

    return read


def _fields(words: Words, layout: PixelLayout) -> NDArray[np.integer[Any]]:
    """Return the stored value in each word, in the type of the layout's range."""
    word_bits = layout.bits_allocated
    if not layout.is_signed and layout.shift == 0:
        if layout.bits_stored < word_bits:
            words = words & _mask(words, layout)
        return words.astype(layout.values.dtype, copy=False)
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
    words: Words = fields.astype(word)
    if layout.shift:
        words <<= word.type(layout.shift)
    return words
