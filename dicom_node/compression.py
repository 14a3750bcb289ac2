"""Objects in a lossless transfer syntax: the inverse of :mod:`dicom_node.decompression`.

Frame by frame, one fragment each. A codec is believed only once it has given the frame
back: what it cannot hold (an overlay in the bits above Bits Stored, say) is an error, and
the caller tries another syntax. RLE Lossless holds every bit of a word, the others what
Bits Stored covers. Every element but Pixel Data, and those that would no longer say the
truth of it, stays as it was, byte for byte.

Nothing is written lossy. Uncompressed YBR_FULL_422 has no lossless form here; YBR_FULL
has RLE only, since decoders of the others hand it out as RGB. No permissive library that
is installed writes HTJ2K, so an object is only ever left in it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydicom import uid
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.encoders.base import get_encoder

from dicom_node.decoding import CodedImage, decode_frames
from dicom_node.decompression import decompressed
from dicom_node.elements import PIXEL_DATA, Limits, Streamed, header, scan, splice
from dicom_node.errors import MalformedObjectError, UnsupportedPixelDataError
from dicom_node.extents import UNDEFINED
from dicom_node.instance import OpenInstance
from dicom_node.mapped import joined
from dicom_node.part10 import Encoding
from dicom_node.pixel_layout import NATIVE, TAGS
from dicom_node.reencoding import reencoded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

    from dicom_node.decoding import Decode
    from dicom_node.mapped import Buffer

COMPRESSED: Final = (uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.RLELossless)
"""Compressed transfer syntaxes that are written, where the codec is installed."""

LEAST_J2K_SIDE: Final = 32
"""Rows and columns that OpenJPEG's encoder needs for its six resolutions."""

_OFFSETS, _LENGTHS = 0x7FE00001, 0x7FE00002
_PHOTOMETRIC, _PLANAR = 0x00280004, 0x00280006
_MOST_OFFSET: Final = (1 << 32) - 1
_SAMPLES: Final = {"MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1, "RGB": 3}
_RLE_SAMPLES: Final = {**_SAMPLES, "YBR_FULL": 3}


def can(attributes: Dataset, syntax: UID) -> bool:
    """Say whether an uncompressed picture may be put into a compressed syntax.

    Whether it does go in is only known once it was tried: :func:`compressed`.

    Args:
        attributes: :data:`dicom_node.pixel_layout.TAGS` of it.
        syntax: One of :data:`COMPRESSED`; of others the answer is no.

    Source:
        PS3.5 8.2.2 to 8.2.4.
    """
    if syntax not in COMPRESSED or not _is_installed(syntax):
        return False
    try:
        photometric = str(attributes.PhotometricInterpretation)
        samples, allocated = (
            int(attributes.SamplesPerPixel),
            int(attributes.BitsAllocated),
        )
        stored = int(attributes.get("BitsStored", allocated))
        high = int(attributes.get("HighBit", stored - 1))
        sides = (int(attributes.Rows), int(attributes.Columns))
        signed = int(attributes.get("PixelRepresentation", 0))
    except (AttributeError, TypeError, ValueError):
        return False
    if allocated not in {8, 16} or not 1 <= stored <= allocated or min(sides) < 1:
        return False
    if syntax == uid.RLELossless:
        return _RLE_SAMPLES.get(photometric) == samples
    is_j2k = syntax == uid.JPEG2000Lossless
    return (
        _SAMPLES.get(photometric) == samples
        and high == stored - 1
        and not (signed and photometric in {"RGB", "PALETTE COLOR"})
        and (min(sides) >= LEAST_J2K_SIDE if is_j2k else stored >= 2)
    )


def _is_installed(syntax: UID) -> bool:
    return bool(get_encoder(syntax).is_available and get_decoder(syntax).is_available)


def put_into(
    instance: OpenInstance, syntax: UID, decode: Decode = decode_frames
) -> OpenInstance:
    """Return the object in another transfer syntax; itself, if it is in that one.

    What is compressed in another way is decompressed on the way, and stays flagged as
    lossy if it was.

    Args:
        instance: Not modified.
        syntax: Implicit or Explicit VR Little Endian, or one of :data:`COMPRESSED`.
        decode: Calls the codecs for what it is in; what is made here is decoded here.

    Raises:
        UnsupportedPixelDataError: It cannot be put into that syntax.
        MalformedObjectError: It cannot be read.
    """
    if instance.file.transfer_syntax == syntax:
        return instance
    instance = decompressed(instance, decode)
    if instance.file.transfer_syntax not in NATIVE:
        # Nothing in it is compressed: the syntax says how its elements are encoded.
        instance = _named(instance, uid.ExplicitVRLittleEndian, instance.file.dataset)
    native = syntax if syntax in NATIVE else uid.ExplicitVRLittleEndian
    if instance.file.transfer_syntax != native:
        target = Encoding.of(native)
        dataset = reencoded(instance.file.dataset, instance.file.encoding, target)
        instance = _named(instance, native, dataset)
    return instance if syntax == native else compressed(instance, syntax)


def compressed(instance: OpenInstance, syntax: UID) -> OpenInstance:
    """Return an Explicit VR Little Endian object compressed without loss.

    Raises:
        UnsupportedPixelDataError: It does not come back from that syntax as it was, or
            cannot be put into it at all.
        MalformedObjectError: It is shorter than the image it should hold.
    """
    attributes = instance.attributes(*TAGS)
    if PIXEL_DATA not in instance.elements or not can(attributes, syntax):
        raise UnsupportedPixelDataError(
            f"the object cannot be put into {syntax.name}",
            hint="No codec for it is installed, or it does not hold such pixels.",
        )
    options = _options(attributes, syntax)
    lengths: list[int] = []

    def told(frames: Iterable[bytes]) -> Iterator[bytes]:
        for frame in frames:
            lengths.append(len(frame))
            yield frame

    # They take no more than they did, or hardly: so much of memory or of a file.
    size = len(instance.elements.value_of(PIXEL_DATA))
    frames = joined(told(_encoded(instance, syntax, options)), size)
    encoding = instance.file.encoding
    changes = _pixel_elements(frames, lengths, encoding, _MOST_OFFSET)
    changes |= _described(options, syntax, encoding)
    return _named(instance, syntax, splice(instance.elements, changes))


def _options(attributes: Dataset, syntax: UID) -> dict[str, Any]:
    allocated = int(attributes.BitsAllocated)
    return {
        "rows": int(attributes.Rows),
        "columns": int(attributes.Columns),
        "number_of_frames": int(attributes.get("NumberOfFrames") or 1),
        "samples_per_pixel": int(attributes.SamplesPerPixel),
        "photometric_interpretation": _photometric(
            str(attributes.PhotometricInterpretation), syntax
        ),
        "planar_configuration": int(attributes.get("PlanarConfiguration") or 0),
        "bits_allocated": allocated,
        "bits_stored": int(attributes.get("BitsStored", allocated)),
        "pixel_representation": int(attributes.get("PixelRepresentation", 0)),
        "pixel_keyword": "PixelData",
    }


def _photometric(native: str, syntax: UID) -> str:
    """Return what the pixels are once they are compressed (PS3.5 8.2.4)."""
    # The colours of JPEG 2000 are turned into others on the way, and back.
    return "YBR_RCT" if (native, syntax) == ("RGB", uid.JPEG2000Lossless) else native


def _encoded(
    instance: OpenInstance, syntax: UID, options: dict[str, Any]
) -> Iterator[bytes]:
    """Yield each frame compressed, once it has been given back as it was."""
    samples = options["samples_per_pixel"]
    sides = (options["rows"], options["columns"])
    is_planar = samples > 1 and options["planar_configuration"]
    word = np.dtype(f"<u{options['bits_allocated'] // 8}")
    value = instance.elements.value_of(PIXEL_DATA)
    count = sides[0] * sides[1] * samples
    size = options["number_of_frames"] * count * word.itemsize
    if len(value) < size:
        raise MalformedObjectError(
            f"Pixel Data holds {len(value)} bytes, its image takes {size}",
            hint="The object is cut short; ask its sender for it again.",
        )
    if any(value[size:]):
        raise UnsupportedPixelDataError(
            "bytes behind the image would be lost in a compressed syntax"
        )
    words = np.frombuffer(value[:size], word).reshape(-1, count)
    for frame in words:
        pixels = frame.reshape(samples, *sides) if is_planar else frame
        if is_planar:
            pixels = pixels.transpose(1, 2, 0)
        yield _proven(pixels.reshape(*sides, samples), syntax, options)


def _proven(
    pixels: NDArray[np.unsignedinteger[Any]], syntax: UID, options: dict[str, Any]
) -> bytes:
    """Return one frame compressed.

    Raises:
        UnsupportedPixelDataError: The codec refuses it, or does not give it back.
    """
    one = options | {"number_of_frames": 1, "planar_configuration": 0}
    written = pixels
    if syntax == uid.RLELossless:
        # RLE knows nothing of Bits Stored, and its words are kept whole.
        one |= {"pixel_representation": 0, "bits_stored": one["bits_allocated"]}
    elif syntax == uid.JPEGLSLossless:
        # JPEG-LS knows no sign: what repeats it is cut off, and put back by decoders.
        written = pixels & pixels.dtype.type((1 << one["bits_stored"]) - 1)
        one |= {"pixel_representation": 0}
    try:
        frame = bytes(get_encoder(syntax).encode(written.tobytes(), **one))
    except Exception as error:
        raise UnsupportedPixelDataError(
            f"the codec of {syntax.name} refuses a frame: {type(error).__name__}"
        ) from error
    frame += b"\0" * (len(frame) % 2)
    image = CodedImage(
        transfer_syntax=str(syntax),
        rows=options["rows"],
        columns=options["columns"],
        samples=options["samples_per_pixel"],
        photometric_interpretation=options["photometric_interpretation"],
        bits_allocated=options["bits_allocated"],
        bits_stored=options["bits_stored"],
        pixel_representation=options["pixel_representation"],
    )
    back = decode_frames(image, [frame]).words
    if not np.array_equal(back.reshape(pixels.shape), pixels):
        raise UnsupportedPixelDataError(
            f"a frame does not come back from {syntax.name} as it was",
            hint="Bits outside Bits Stored hold something: RLE and the uncompressed "
            "syntaxes keep it.",
        )
    return frame


def _pixel_elements(
    frames: Buffer, lengths: Sequence[int], encoding: Encoding, most: int
) -> dict[int, bytes | Streamed | None]:
    """Return Pixel Data in fragments, and where each frame is (PS3.5 A.4).

    Args:
        frames: Compressed, one after the other.
        lengths: Of each; even.
        encoding: Explicit VR Little Endian.
        most: The last offset that the Basic Offset Table takes; above it there is an
            Extended Offset Table instead.
    """
    ends = np.cumsum(lengths, dtype=np.uint64)
    starts = ends - np.array(lengths, np.uint64)
    offsets = starts + 8 * np.arange(len(lengths), dtype=np.uint64)
    changes: dict[int, bytes | Streamed | None] = {}
    table = b""
    if int(offsets[-1]) <= most:
        table = offsets.astype("<u4").tobytes()
    else:
        for tag, numbers in ((_OFFSETS, offsets), (_LENGTHS, ends - starts)):
            value = numbers.astype("<u8").tobytes()
            changes[tag] = header(tag, "OV", len(value), encoding) + value
    view = memoryview(frames)
    start = header(PIXEL_DATA, "OB", UNDEFINED, encoding) + _item(len(table)) + table
    parts: list[Buffer] = [start]
    for begin, end in zip(starts.tolist(), ends.tolist(), strict=True):
        parts += [_item(end - begin), view[begin:end]]
    parts.append(struct.pack("<HHI", 0xFFFE, 0xE0DD, 0))  # Sequence Delimitation Item
    return changes | {PIXEL_DATA: Streamed(sum(map(len, parts)), parts)}


def _item(length: int) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, length)


def _described(
    options: dict[str, Any], syntax: UID, encoding: Encoding
) -> dict[int, bytes | Streamed | None]:
    """Return the attributes that no longer say the truth."""
    changes: dict[int, bytes | Streamed | None] = {}
    if options["photometric_interpretation"] == "YBR_RCT":
        changes[_PHOTOMETRIC] = header(_PHOTOMETRIC, "CS", 8, encoding) + b"YBR_RCT "
    if options["planar_configuration"] and syntax != uid.RLELossless:
        changes[_PLANAR] = header(_PLANAR, "US", 2, encoding) + b"\0\0"
    return changes


def _named(instance: OpenInstance, syntax: UID, dataset: Buffer) -> OpenInstance:
    file = instance.file.changed(
        dataset,
        str(instance.file.meta.get("MediaStorageSOPInstanceUID") or ""),
        syntax,
    )
    return OpenInstance(file, scan(dataset, file.encoding, Limits()))
