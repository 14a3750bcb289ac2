"""Compressed objects as uncompressed ones: the pixels that they decode to, and no others.

What was lossy stays what it decoded to, and stays flagged as lossy; a mark is put into
those pixels and comes off them again. YBR pictures of JPEG and JPEG 2000 become RGB,
since that is what decodes; every other element stays as it was, byte for byte.

Everything is bounded before a codec sees a byte: the size that the attributes promise,
and the number of fragments. RLE Lossless, JPEG-LS and JPEG 2000 decode with permissive
libraries; JPEG itself needs ``pylibjpeg-libjpeg``, whose licence is the GPL, so that it
is for a site to choose.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydicom import uid
from pydicom.encaps import parse_fragments
from pydicom.pixels.decoders.base import get_decoder

from dicom_node.elements import PIXEL_DATA, Limits, header, scan, splice
from dicom_node.errors import (
    MalformedObjectError,
    UnmarkablePixelsError,
    UnsupportedPixelDataError,
)
from dicom_node.instance import OpenInstance
from dicom_node.pixel_data import MAX_SIZE, NATIVE

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from dicom_node.part10 import Encoding

DECODED: Final = (
    uid.RLELossless,
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEGLSNearLossless,
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.HTJ2K,
)
"""Compressed transfer syntaxes that are read, where the codec is installed."""

MOST_FRAGMENTS: Final = 64
"""For each frame: an encoder that makes more is broken, or hostile."""

_OFFSETS, _LENGTHS = 0x7FE00001, 0x7FE00002
_PHOTOMETRIC: Final = 0x00280004
_TAGS: Final = (
    0x00280002,  # Samples per Pixel
    _PHOTOMETRIC,
    0x00280006,  # Planar Configuration
    0x00280008,  # Number of Frames
    0x00280010,  # Rows
    0x00280011,  # Columns
    0x00280100,  # Bits Allocated
    0x00280101,  # Bits Stored
    0x00280102,  # High Bit
    0x00280103,  # Pixel Representation
)


def uncompressed(syntax: uid.UID) -> uid.UID:
    """Return the transfer syntax of an object of ``syntax`` once it is decompressed."""
    return syntax if syntax in NATIVE else uid.ExplicitVRLittleEndian


def decompressed(instance: OpenInstance) -> OpenInstance:
    """Return the object uncompressed; itself, if it is, or holds no Pixel Data.

    Raises:
        UnsupportedPixelDataError: Its transfer syntax is not read here.
        MalformedObjectError: It does not decode, or not to the image it describes.
    """
    syntax = instance.file.transfer_syntax
    if syntax in NATIVE or PIXEL_DATA not in instance.elements:
        return instance
    if syntax not in DECODED:
        raise UnsupportedPixelDataError(
            f"transfer syntax {syntax.name} cannot be read here",
            hint="Uncompressed, RLE, JPEG, JPEG-LS and JPEG 2000 objects can.",
        )
    attributes = instance.attributes(*_TAGS)
    options = _options(attributes, syntax)
    shape = (
        options["number_of_frames"],
        options["rows"],
        options["columns"],
        options["samples_per_pixel"],
    )
    pixels, photometric = _decoded(instance, syntax, options, shape)
    changes: dict[int, bytes | None] = dict.fromkeys(
        tag for tag in (_OFFSETS, _LENGTHS) if tag in instance.elements
    )
    encoding = instance.file.encoding
    if photometric != str(attributes.PhotometricInterpretation):
        changes[_PHOTOMETRIC] = _text(_PHOTOMETRIC, photometric, encoding)
    if int(attributes.get("PlanarConfiguration") or 0) and shape[-1] > 1:
        pixels = pixels.transpose(0, 3, 1, 2)
    value = np.ascontiguousarray(pixels).tobytes()
    value += b"\0" * (len(value) % 2)
    vr = "OW" if options["bits_allocated"] > 8 else "OB"  # PS3.5 A.2
    changes[PIXEL_DATA] = header(PIXEL_DATA, vr, len(value), encoding) + value
    dataset = splice(instance.elements, changes)
    file = instance.file.changed(
        dataset,
        str(instance.file.meta.get("MediaStorageSOPInstanceUID") or ""),
        uid.ExplicitVRLittleEndian,
    )
    return OpenInstance(file, scan(dataset, file.encoding, Limits()))


def _options(attributes: Dataset, syntax: uid.UID) -> dict[str, Any]:
    """Return what a decoder has to know, checked before anything is allocated."""
    try:
        options: dict[str, Any] = {
            "rows": int(attributes.Rows),
            "columns": int(attributes.Columns),
            "number_of_frames": int(attributes.get("NumberOfFrames") or 1),
            "samples_per_pixel": int(attributes.SamplesPerPixel),
            "photometric_interpretation": str(attributes.PhotometricInterpretation),
            "planar_configuration": 0,
            "bits_allocated": int(attributes.BitsAllocated),
            "bits_stored": int(attributes.get("BitsStored", attributes.BitsAllocated)),
            "pixel_representation": int(attributes.get("PixelRepresentation", 0)),
            "pixel_keyword": "PixelData",
            "transfer_syntax_uid": syntax,
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise MalformedObjectError(
            "the Image Pixel attributes are missing or not numbers"
        ) from error
    if options["bits_allocated"] not in {8, 16}:
        raise UnmarkablePixelsError(
            f"{options['bits_allocated']} Bits Allocated carry no mark",
            hint="8 and 16 do.",
        )
    high_bit = int(attributes.get("HighBit", options["bits_stored"] - 1))
    if syntax != uid.RLELossless and high_bit != options["bits_stored"] - 1:
        raise UnsupportedPixelDataError(
            f"High Bit {high_bit} with {options['bits_stored']} Bits Stored cannot be "
            "read compressed",
            hint="A codec returns values, and does not say where in a word they lay.",
        )
    sides = [options[k] for k in ("number_of_frames", "rows", "columns")]
    samples = options["samples_per_pixel"]
    size = options["bits_allocated"] // 8 * samples
    for side in sides:
        size *= side
    if min(*sides, samples) < 1 or samples > 3 or size > MAX_SIZE:
        raise MalformedObjectError(f"{sides[0]} frames of {sides[1]} x {sides[2]}")
    return options


def _decoded(
    instance: OpenInstance,
    syntax: uid.UID,
    options: dict[str, Any],
    shape: tuple[int, ...],
) -> tuple[NDArray[np.integer[Any]], str]:
    decoder = get_decoder(syntax)
    if not decoder.is_available:
        raise UnsupportedPixelDataError(
            f"no codec for {syntax.name} is installed",
            hint="pip install 'miadmark[codecs]'; for JPEG pylibjpeg-libjpeg as well.",
        )
    stream = bytes(instance.elements.value_of(PIXEL_DATA))
    _require_fragments(stream, syntax, shape[0])
    if all(tag in instance.elements for tag in (_OFFSETS, _LENGTHS)):
        options = options | {
            "extended_offsets": tuple(
                bytes(instance.elements.value_of(tag)) for tag in (_OFFSETS, _LENGTHS)
            )
        }
    is_in_words = syntax == uid.RLELossless
    if is_in_words:  # whole: pydicom would cut them to Bits Stored, from the lowest bit
        options = options | {
            "bits_stored": options["bits_allocated"],
            "pixel_representation": 0,
        }
    try:
        # RLE's samples are stored values as they are; others may be YBR.
        pixels, told = decoder.as_array(stream, raw=is_in_words, **options)
    except Exception as error:
        raise MalformedObjectError(
            f"the pixel data ({syntax.name}) cannot be decoded: {type(error).__name__}",
            hint="Ask its sender for the object uncompressed.",
        ) from error
    if pixels.size != np.prod(shape):
        raise MalformedObjectError("the compressed pixel data does not hold the image")
    word = np.dtype(f"<u{options['bits_allocated'] // 8}")
    words = pixels.reshape(shape).astype(word)
    return words, str(told["photometric_interpretation"])


def _require_fragments(stream: bytes, syntax: uid.UID, frames: int) -> None:
    """Return if there are as many fragments as frames can have (PS3.5 A.4)."""
    try:
        offsets = 8 + int.from_bytes(stream[4:8], "little")  # the Basic Offset Table
        fragments, _ = parse_fragments(BytesIO(stream[offsets:]))
    except Exception as error:
        raise MalformedObjectError(
            f"the fragments of the pixel data cannot be read: {type(error).__name__}"
        ) from error
    # One fragment a frame in RLE (PS3.5 A.4.2); another would be left out unnoticed.
    most = frames if syntax == uid.RLELossless else frames * MOST_FRAGMENTS
    if not frames <= fragments <= most:
        raise MalformedObjectError(f"{fragments} fragments for {frames} frames")


def _text(tag: int, text: str, encoding: Encoding) -> bytes:
    value = text.encode("ascii")
    value += b" " * (len(value) % 2)
    return header(tag, "CS", len(value), encoding) + value
