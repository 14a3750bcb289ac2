"""Compressed objects as uncompressed ones: the pixels that they decode to, and no others.

What was lossy stays what it decoded to, and stays flagged as lossy; a mark is put into
those pixels and comes off them again. YBR pictures of JPEG and JPEG 2000 become RGB,
since that is what decodes; every other element stays as it was, byte for byte.

Everything is bounded before a codec sees a byte: the size that the attributes promise,
the number of fragments, and what each coded frame says of its own size. RLE Lossless,
JPEG-LS and JPEG 2000 decode with permissive libraries; JPEG itself needs
``pylibjpeg-libjpeg``, whose licence is the GPL, so that it is for a site to choose.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Final, cast

from pydicom import uid
from pydicom.encaps import generate_frames, parse_fragments

from dicom_node.coded_frames import require_claim
from dicom_node.decoding import CodedImage, Decode, DecodedFrames, decode_frames
from dicom_node.elements import PIXEL_DATA, Limits, header, scan, splice
from dicom_node.errors import (
    MalformedObjectError,
    UnmarkablePixelsError,
    UnsupportedPixelDataError,
)
from dicom_node.instance import OpenInstance
from dicom_node.pixel_layout import MAX_SIZE, NATIVE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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

_PORTION: Final = 32 << 20
_PORTION_FRAMES: Final = 4096
"""Bytes and frames that are decoded together, at most."""

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CodedPixels:
    """Encapsulated Pixel Data, checked and taken apart, and not decoded yet."""

    image: CodedImage
    frames: Sequence[bytes]
    """Coded, in order, as many as the object says."""
    is_planar: bool
    """Whether the object says that it keeps its samples by plane."""

    def decoded(
        self, numbers: Sequence[int], decode: Decode = decode_frames
    ) -> DecodedFrames:
        """Return the frames ``numbers``, the first being 0, decoded.

        Raises:
            FilterError: They cannot be decoded.
        """
        return decode(self.image, [self.frames[number] for number in numbers])


def decompressed(
    instance: OpenInstance, decode: Decode = decode_frames
) -> OpenInstance:
    """Return the object uncompressed; itself, if it is, or holds no Pixel Data.

    Args:
        instance: What to decompress. Not modified.
        decode: Calls the codecs; in this process, unless
            :class:`dicom_node.codec_process.CodecProcess` does it in another.

    Raises:
        UnsupportedPixelDataError: Its transfer syntax is not read here.
        MalformedObjectError: It does not decode, or not to the image it describes.
    """
    if instance.file.transfer_syntax in NATIVE or PIXEL_DATA not in instance.elements:
        return instance
    coded = coded_pixels(instance)
    image = coded.image
    parts: list[bytes] = []
    photometric = image.photometric_interpretation
    for numbers in _portions(coded):
        pixels, photometric = coded.decoded(numbers, decode)
        if coded.is_planar and image.samples > 1:
            pixels = pixels.transpose(0, 3, 1, 2)
        parts.append(pixels.tobytes())
    if sum(map(len, parts)) % 2:
        parts.append(b"\0")
    encoding = instance.file.encoding
    changes: dict[int, bytes | None] = dict.fromkeys(
        tag for tag in (_OFFSETS, _LENGTHS) if tag in instance.elements
    )
    if photometric != image.photometric_interpretation:
        changes[_PHOTOMETRIC] = _text(_PHOTOMETRIC, photometric, encoding)
    vr = "OW" if image.bits_allocated > 8 else "OB"  # PS3.5 A.2
    start = header(PIXEL_DATA, vr, sum(map(len, parts)), encoding)
    changes[PIXEL_DATA] = b"".join((start, *parts))
    dataset = splice(instance.elements, changes)
    file = instance.file.changed(
        dataset,
        str(instance.file.meta.get("MediaStorageSOPInstanceUID") or ""),
        uid.ExplicitVRLittleEndian,
    )
    return OpenInstance(file, scan(dataset, file.encoding, Limits()))


def _portions(coded: CodedPixels) -> Iterator[range]:
    """Yield the numbers of frames that are decoded together: few, if they are large."""
    count = len(coded.frames)
    step = min(max(1, _PORTION // coded.image.frame_size), _PORTION_FRAMES)
    for start in range(0, count, step):
        yield range(start, min(start + step, count))


def coded_pixels(instance: OpenInstance) -> CodedPixels:
    """Return the coded frames of a compressed object, before any codec has seen them.

    Raises:
        UnsupportedPixelDataError: Its transfer syntax is not read here.
        MalformedObjectError: They are not those of the image it describes.
    """
    syntax = instance.file.transfer_syntax
    if syntax not in DECODED:
        raise UnsupportedPixelDataError(
            f"transfer syntax {syntax.name} cannot be read here",
            hint="Uncompressed, RLE, JPEG, JPEG-LS and JPEG 2000 objects can.",
        )
    attributes = instance.attributes(*_TAGS)
    image, count = _image(attributes, syntax)
    stream = bytes(instance.elements.value_of(PIXEL_DATA))
    _require_fragments(stream, syntax, count)
    offsets = None
    if all(tag in instance.elements for tag in (_OFFSETS, _LENGTHS)):
        offsets = tuple(
            bytes(instance.elements.value_of(tag)) for tag in (_OFFSETS, _LENGTHS)
        )
    try:
        frames = list(
            generate_frames(
                stream,
                number_of_frames=count,
                extended_offsets=cast("tuple[bytes, bytes] | None", offsets),
            )
        )
    except Exception as error:
        raise MalformedObjectError(
            f"the fragments of the pixel data cannot be read: {type(error).__name__}"
        ) from error
    if len(frames) != count:
        raise MalformedObjectError(f"{len(frames)} coded frames, {count} are described")
    for frame in frames:
        require_claim(frame, image)
    is_planar = bool(int(attributes.get("PlanarConfiguration") or 0))
    return CodedPixels(image=image, frames=frames, is_planar=is_planar)


def _image(attributes: Dataset, syntax: uid.UID) -> tuple[CodedImage, int]:
    """Return what a decoder has to know, and the number of frames.

    All is checked before anything is allocated.
    """
    try:
        count = int(attributes.get("NumberOfFrames") or 1)
        image = CodedImage(
            transfer_syntax=str(syntax),
            rows=int(attributes.Rows),
            columns=int(attributes.Columns),
            samples=int(attributes.SamplesPerPixel),
            photometric_interpretation=str(attributes.PhotometricInterpretation),
            bits_allocated=int(attributes.BitsAllocated),
            bits_stored=int(attributes.get("BitsStored", attributes.BitsAllocated)),
            pixel_representation=int(attributes.get("PixelRepresentation", 0)),
        )
        int(attributes.get("PlanarConfiguration") or 0)
    except (AttributeError, TypeError, ValueError) as error:
        raise MalformedObjectError(
            "the Image Pixel attributes are missing or not numbers"
        ) from error
    if image.bits_allocated not in {8, 16}:
        raise UnmarkablePixelsError(
            f"{image.bits_allocated} Bits Allocated carry no mark",
            hint="8 and 16 do.",
        )
    high_bit = int(attributes.get("HighBit", image.bits_stored - 1))
    if syntax != uid.RLELossless and high_bit != image.bits_stored - 1:
        raise UnsupportedPixelDataError(
            f"High Bit {high_bit} with {image.bits_stored} Bits Stored cannot be "
            "read compressed",
            hint="A codec returns values, and does not say where in a word they lay.",
        )
    least = min(count, image.rows, image.columns, image.samples)
    if least < 1 or image.samples > 3 or image.frame_size * count > MAX_SIZE:
        raise MalformedObjectError(f"{count} frames of {image.rows} x {image.columns}")
    return image, count


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
