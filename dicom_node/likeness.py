"""Whether bytes are a picture: by how picture files begin, and by what pictures are like.

A file format is believed once its header is followed as far as the size of the picture.
Raw samples look like a picture if neighbours are alike along the rows and along the
columns of a width that is tried: a table or a curve is alike along one of them at most.
Nothing is decoded, and nothing of what is looked at is kept or told.

What is encrypted looks like nothing, and a codec that nobody documented like noise: of
such bytes only that can be said.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
import zlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

LEAST_SIDE: Final = 8
"""Pixels: what is smaller shows nobody anything."""

MOST_INFLATED: Final = 1 << 24
"""Bytes of a deflated value that are looked at."""

NOISE_BITS: Final = 7.2
"""Bits a byte, of 8, from which bytes are taken for compressed or encrypted ones; code,
text and tables stay below 6.5."""

LEAST_NOISE: Final = 4096
"""Bytes that a picture takes at least if it is compressed by a codec nobody knows."""

_TRIES: Final = 1000
_ALIKE: Final = 0.6
"""Correlation of neighbours; of natural images it is above 0.9 (cf. Ruderman 1994)."""

_SOF: Final = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
_BASE64: Final = re.compile(
    rb"(?:/9j/|iVBORw0KGgo|R0lGOD|/0//UQ)[A-Za-z0-9+/\r\n]{60,}={0,2}"
)


def format_in(value: bytes) -> str:
    """Return the format of the first picture file in ``value``; empty if there is none.

    JPEG (JPEG-LS too), JPEG 2000 and PNG are found wherever they begin, as they are or in
    base64; TIFF, BMP, GIF, WebP and DICOM at the beginning.
    """
    for begins, name, is_one in (
        (b"\xff\xd8\xff", "JPEG", _is_jpeg),
        (b"\xff\x4f\xff\x51", "JPEG 2000", _is_codestream),
        (b"\x89PNG\r\n\x1a\n", "PNG", _is_png),
    ):
        position = value.find(begins)
        for _ in range(_TRIES):
            if position < 0:
                break
            if is_one(value, position):
                return name
            position = value.find(begins, position + 1)
    if found := _at_the_beginning(value):
        return found
    for match in _BASE64.finditer(value):
        text = re.sub(rb"[\r\n=]", b"", match[0])
        try:
            decoded = base64.b64decode(text[: len(text) // 4 * 4])
        except binascii.Error:
            continue
        if found := format_in(decoded):
            return f"{found} in base64"
    return ""


def inflated(value: bytes) -> bytes:
    """Return what a zlib or gzip stream holds, up to a limit; empty if it is none."""
    if value[:2] not in {
        b"\x78\x01",
        b"\x78\x5e",
        b"\x78\x9c",
        b"\x78\xda",
        b"\x1f\x8b",
    }:
        return b""
    try:
        return zlib.decompressobj(wbits=47).decompress(value, MOST_INFLATED)
    except zlib.error:
        return b""


def is_document(value: bytes) -> bool:
    """Say whether bytes begin like a document that may hold pictures."""
    return value.startswith((b"%PDF-", b"PK\3\4", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"))


def is_noise(value: bytes) -> bool:
    """Say whether bytes are compressed or encrypted, and many enough for a picture."""
    if len(value) < LEAST_NOISE:
        return False
    counts = np.bincount(np.frombuffer(value[: 1 << 20], np.uint8), minlength=256)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum()) > NOISE_BITS


def is_raw(
    value: bytes, shapes: Iterable[tuple[int, int]], types: Iterable[str]
) -> tuple[int, int] | None:
    """Return the shape of raw samples, if they look like a picture of one of ``shapes``.

    Args:
        value: The samples; of several frames or planes the first is looked at.
        shapes: Rows and columns to try.
        types: Of a sample, as numpy names them, to try with each.
    """
    kinds = [np.dtype(t) for t in types]
    for rows, columns in shapes:
        for kind in kinds:
            size = rows * columns * kind.itemsize
            if min(rows, columns) < LEAST_SIDE or len(value) < size:
                continue
            samples = np.frombuffer(value, kind, rows * columns)
            if _is_like_a_picture(samples.reshape(rows, columns)):
                return rows, columns
    return None


def plausible_shapes(samples: int, rows: int, columns: int) -> list[tuple[int, int]]:
    """Return rows and columns of a thumbnail of so many samples.

    Args:
        samples: How many there are; one of padding may follow.
        rows: Of the image whose thumbnail it would be; 0 if that is not known.
        columns: Likewise.
    """
    found = []
    for count in (samples, samples - 1):
        sides = {round(count**0.5)}
        if rows and columns:
            sides.add(round((count * rows / columns) ** 0.5))
        found += [
            (side, count // side)
            for side in sorted(sides)
            if side >= 16 and count % side == 0
        ]
    return found


def _is_like_a_picture(samples: NDArray[Any]) -> bool:
    with np.errstate(all="ignore"):
        plane = samples.astype(np.float64)
        if not np.isfinite(plane).all():
            return False
        steps = np.diff(plane.ravel())
        if (steps >= 0).all() or (steps <= 0).all():  # constant, or a lookup table
            return False
        if len(np.unique(plane)) < 8:
            return False
        down = _correlation(plane[:-1], plane[1:])
        across = _correlation(plane[:, :-1], plane[:, 1:])
    return down > _ALIKE and across > _ALIKE


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    one, other = one - one.mean(), other - other.mean()
    scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / scale if scale else 0.0


def _is_jpeg(value: bytes, start: int) -> bool:
    """Follow the markers to the frame header (ITU-T T.81 B.1, T.87 C.2.2)."""
    position = start + 2
    for _ in range(_TRIES):
        while value[position : position + 2] == b"\xff\xff":
            position += 1
        if position + 9 > len(value) or value[position] != 0xFF:
            return False
        marker = value[position + 1]
        if marker in _SOF:
            rows, columns = struct.unpack_from(">HH", value, position + 5)
            return bool(columns >= LEAST_SIDE and (rows == 0 or rows >= LEAST_SIDE))
        if not 0xC0 <= marker <= 0xFE or 0xD0 <= marker <= 0xDA:
            return False
        position += 2 + int.from_bytes(value[position + 2 : position + 4], "big")
    return False


def _is_codestream(value: bytes, start: int) -> bool:
    """Read the SIZ marker segment (ITU-T T.800 A.5.1)."""
    if start + 24 > len(value):
        return False
    length, _, columns, rows, left, top = struct.unpack_from(
        ">HHIIII", value, start + 4
    )
    return bool(length >= 41 and min(columns - left, rows - top) >= LEAST_SIDE)


def _is_png(value: bytes, start: int) -> bool:
    if value[start + 12 : start + 16] != b"IHDR" or start + 24 > len(value):
        return False
    return bool(min(struct.unpack_from(">II", value, start + 16)) >= LEAST_SIDE)


def _at_the_beginning(value: bytes) -> str:
    if value[:6] in {b"GIF87a", b"GIF89a"}:
        return "GIF"
    if value[:4] == b"RIFF" and value[8:12] == b"WEBP":
        return "WebP"
    if value[128:132] == b"DICM":
        return "DICOM"
    if value[:2] == b"BM" and len(value) >= 26:
        size, _, offset, header = struct.unpack_from("<IIII", value, 2)
        fits = 54 <= offset < size <= len(value) + 1
        return "BMP" if fits and header in {40, 52, 56, 108, 124} else ""
    if value[:4] in {b"II*\0", b"MM\0*"}:
        order = "<" if value[:1] == b"I" else ">"
        (directory,) = struct.unpack_from(f"{order}I", value.ljust(8, b"\0"), 4)
        if 8 <= directory <= len(value) - 2:
            (entries,) = struct.unpack_from(f"{order}H", value, directory)
            return "TIFF" if 4 <= entries <= 200 else ""
    return ""
