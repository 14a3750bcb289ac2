"""A coded frame says it is as large as its object says, or no codec sees it."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.pixels.encoders.base import get_encoder

from dicom_node.coded_frames import require_claim
from dicom_node.decoding import CodedImage, decode_frames
from dicom_node.errors import MalformedObjectError

IMAGE = CodedImage(
    transfer_syntax=str(uid.JPEG2000Lossless),
    rows=48,
    columns=64,
    samples=1,
    photometric_interpretation="MONOCHROME2",
    bits_allocated=16,
    bits_stored=12,
    pixel_representation=0,
)
PIXELS = np.random.default_rng(1).integers(0, 4096, (48, 64), np.uint16)
SYNTAXES = [uid.JPEG2000Lossless, uid.JPEGLSLossless, uid.RLELossless]


def coded(image: CodedImage) -> bytes:
    described = Dataset()
    described.Rows, described.Columns = image.rows, image.columns
    described.SamplesPerPixel = image.samples
    described.PhotometricInterpretation = image.photometric_interpretation
    described.BitsAllocated, described.BitsStored = 16, 12
    described.HighBit, described.PixelRepresentation = 11, 0
    described.NumberOfFrames = 1
    described.PixelData = PIXELS.tobytes()
    described["PixelData"].VR = "OW"
    encoder = get_encoder(uid.UID(image.transfer_syntax))
    return encoder.encode(described, index=0)


@pytest.fixture(params=SYNTAXES, ids=[syntax.keyword for syntax in SYNTAXES])
def image(request: pytest.FixtureRequest) -> CodedImage:
    return replace(IMAGE, transfer_syntax=str(request.param))


def test_what_a_frame_says_of_itself_is_believed_if_its_object_says_so(
    image: CodedImage,
) -> None:
    frame = coded(image)
    require_claim(frame, image)
    words, photometric = decode_frames(image, [frame])
    np.testing.assert_array_equal(words.reshape(PIXELS.shape), PIXELS)
    assert photometric == "MONOCHROME2"


@pytest.mark.parametrize(
    "other",
    [{"rows": 49}, {"columns": 63}, {"samples": 3}, {"rows": 64, "columns": 48}],
)
@pytest.mark.parametrize("syntax", SYNTAXES[:2], ids=["j2k", "jls"])
def test_another_size_is_refused(syntax: uid.UID, other: dict[str, int]) -> None:
    image = replace(IMAGE, transfer_syntax=str(syntax))
    with pytest.raises(MalformedObjectError, match="its object says"):
        require_claim(coded(image), replace(image, **other))  # type: ignore[arg-type]


def test_a_jpeg_2000_file_is_looked_into() -> None:
    stream = coded(IMAGE)
    signature = b"\0\0\0\x0cjP  \r\n\x87\n"
    boxes = struct.pack(">I4s4x", 12, b"ftyp")
    for box in (
        struct.pack(">I4s", 0, b"jp2c"),
        struct.pack(">I4s", 8 + len(stream), b"jp2c"),
        struct.pack(">I4sQ", 1, b"jp2c", 16 + len(stream)),
    ):
        require_claim(signature + boxes + box + stream, IMAGE)
    with pytest.raises(MalformedObjectError):
        require_claim(signature + boxes, IMAGE)
    with pytest.raises(MalformedObjectError, match="no codestream"):
        require_claim(signature + bytes(64), IMAGE)


def test_a_frame_of_very_many_tiles_is_refused() -> None:
    """OpenJPEG keeps some kilobytes for each, before it has read one."""
    frame = coded(IMAGE)
    tiny = frame[:24] + struct.pack(">II", 1, 1) + frame[32:]
    with pytest.raises(MalformedObjectError, match="3072 tiles"):
        require_claim(tiny, IMAGE)


def test_the_largest_picture_in_two_hundred_bytes_is_a_bomb(image: CodedImage) -> None:
    """RLE of 65535 x 65535 made numpy ask for 4 GiB."""
    largest = replace(image, rows=65_535, columns=65_535)
    with pytest.raises(MalformedObjectError, match="cannot hold"):
        require_claim(coded(image)[:200], largest)


def test_run_lengths_cannot_hold_more_than_run_lengths_can() -> None:
    image = replace(IMAGE, transfer_syntax=str(uid.RLELossless))
    black = b"\x81\0" * (image.frame_size // 128)
    frame = struct.pack("<16I", 2, 64, *([0] * 14)) + black
    require_claim(frame, image)
    with pytest.raises(MalformedObjectError, match="cannot hold"):
        require_claim(frame[: image.frame_size // 64 - 1], image)


@pytest.mark.parametrize("syntax", SYNTAXES[:2], ids=["j2k", "jls"])
def test_every_cut_in_the_header_is_refused(syntax: uid.UID) -> None:
    image = replace(IMAGE, transfer_syntax=str(syntax))
    frame = coded(image)
    marker = b"\xff\x51" if syntax == uid.JPEG2000Lossless else b"\xff\xf7"
    for length in range(frame.index(marker) + 8):
        with pytest.raises(MalformedObjectError):
            require_claim(frame[:length], image)
