"""Bytes that are a picture are told from bytes that are not."""

from __future__ import annotations

import base64
import gzip
import io
import zlib

import numpy as np
import pytest
from PIL import Image
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

from dicom_node.likeness import (
    format_in,
    inflated,
    is_document,
    is_noise,
    is_raw,
    plausible_shapes,
)

CHANCE = np.random.default_rng(7)
SMOOTH = np.clip(
    np.cumsum(CHANCE.normal(size=(48, 64)), 0).cumsum(1) + 128, 0, 255
).astype(np.uint8)


def written(name: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(SMOOTH).save(stream, name)
    return stream.getvalue()


FORMATS = {
    "JPEG": "JPEG",
    "PNG": "PNG",
    "JPEG2000": "JPEG 2000",
    "GIF": "GIF",
    "BMP": "BMP",
    "TIFF": "TIFF",
    "WEBP": "WebP",
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_picture_file_is_known_by_its_format(name: str) -> None:
    assert format_in(written(name)) == FORMATS[name]


@pytest.mark.parametrize("name", ["JPEG", "PNG", "JPEG2000"])
def test_a_picture_file_is_found_inside_something_else(name: str) -> None:
    hidden = b"\xff\xd8\xff header of a vendor" + written(name) + b"rest"
    assert format_in(hidden) == FORMATS[name]
    text = b"<icon>" + base64.encodebytes(written(name)) + b"</icon>"
    if name != "JPEG2000":  # PIL writes a box first, which no text betrays
        assert format_in(text) == f"{FORMATS[name]} in base64"


def test_bare_codestreams_are_known() -> None:
    for syntax, name in ((JPEGLSLossless, "JPEG"), (JPEG2000Lossless, "JPEG 2000")):
        encoded = get_encoder(syntax).encode(
            SMOOTH.tobytes(),
            rows=48,
            columns=64,
            samples_per_pixel=1,
            bits_allocated=8,
            bits_stored=8,
            photometric_interpretation="MONOCHROME2",
            pixel_representation=0,
            number_of_frames=1,
        )
        assert format_in(encoded) == name


def test_noise_text_and_zeros_are_no_picture_file() -> None:
    for value in (
        CHANCE.bytes(1 << 20),
        bytes(1 << 16),
        b"\xff\xd8\xff" * 5000,
        b"BM" + bytes(500),
        b"II*\0" + b"\xff" * 100,
        b"/9j/" + b"A" * 400,
        b"a report of some length " * 100,
    ):
        assert format_in(value) == ""


def test_raw_samples_are_known_at_their_own_width_only() -> None:
    raw = SMOOTH.tobytes()
    assert is_raw(raw, [(48, 64)], ["u1"]) == (48, 64)
    grains = CHANCE.normal(size=(52, 68))
    shifted = [grains[i : i + 48, j : j + 64] for i in range(5) for j in range(5)]
    soft = np.sum(shifted, axis=0)
    fine = (soft * 10 + 128).clip(0, 255).astype(np.uint8).tobytes()
    assert is_raw(fine, [(48, 64)], ["u1"]) == (48, 64)
    assert is_raw(fine, [(43, 71)], ["u1"]) is None
    wide = SMOOTH.astype("<u2") * 16
    assert is_raw(wide.tobytes(), [(48, 64)], ["<u2"]) == (48, 64)


def test_tables_and_noise_are_no_raw_picture() -> None:
    shape = [(64, 64)]
    table = np.arange(4096, dtype="<u2")
    records = np.tile(CHANCE.integers(0, 255, 64), 64).astype(np.uint8)
    for value in (
        table.tobytes(),
        records.tobytes(),
        CHANCE.bytes(4096),
        bytes(4096),
    ):
        kind = "<u2" if len(value) == 8192 else "u1"
        assert is_raw(value, shape, [kind]) is None


def test_shapes_of_a_thumbnail_are_square_or_like_the_image() -> None:
    assert plausible_shapes(64 * 64, 0, 0) == [(64, 64)]
    assert (64, 48) in plausible_shapes(64 * 48, 640, 480)
    assert plausible_shapes(15 * 15, 0, 0) == []


def test_a_deflated_value_is_looked_into() -> None:
    for packed in (zlib.compress(written("PNG")), gzip.compress(written("PNG"))):
        assert format_in(inflated(packed)) == "PNG"
    assert inflated(b"\x78\x9c broken") == b""


def test_what_is_compressed_looks_like_noise_and_text_does_not() -> None:
    assert is_noise(CHANCE.bytes(5000))
    assert not is_noise(CHANCE.bytes(1000))
    assert not is_noise(b"<a>some text, and 12345 more of it</a>" * 500)
    assert is_document(b"%PDF-1.7 and so on")
    assert not is_document(b"a PDF")
