"""What a coded frame says of its size, read before a codec is given it.

A codec allocates what the codestream says, whatever the object around it says. So both
have to say the same, and what cannot be reached by honest compression is refused. Only
headers are read here, and nothing is decoded.

Source:
    PS3.5 annex G for RLE; ITU-T T.81 annex B for JPEG, T.87 annex C for JPEG-LS, T.800
    annexes A and I for JPEG 2000.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from pydicom import uid

from dicom_node.errors import MalformedObjectError

if TYPE_CHECKING:
    from dicom_node.decoding import CodedImage

RLE_RATIO: Final = 64
"""Two bytes become 128 at most (PS3.5 G.3.2)."""

LARGE_FRAME: Final = 16 << 20
LARGE_RATIO: Final = 1000
"""A small frame may be black and take next to nothing; a frame of more than 16 MiB, a
mammogram or larger, whose pixels take less than a thousandth is a bomb."""

LEAST_TILE_PIXELS: Final = 1024
LEAST_TILES: Final = 1024
"""Tiles beyond this number hold as many pixels, on average: each costs a codec some
kilobytes, whatever is in it."""

_J2K_START: Final = b"\xff\x4f\xff\x51"  # SOC, SIZ
_JP2_START: Final = b"\0\0\0\x0cjP  "

# Start of frame: baseline, extended, progressive, lossless and their arithmetic kin,
# and JPEG-LS; C4, C8 and CC are none.
_FRAME_MARKERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}


class _Claim(NamedTuple):
    rows: int
    columns: int
    samples: int


def require_claim(frame: bytes, image: CodedImage) -> None:
    """Return if a coded frame claims to be what its object says it is.

    Raises:
        MalformedObjectError: It claims another size, or is too short to be true.
    """
    if image.frame_size > LARGE_FRAME and image.frame_size > LARGE_RATIO * len(frame):
        raise _too_short(frame, image)
    if image.transfer_syntax == uid.RLELossless:
        if image.frame_size > RLE_RATIO * len(frame):
            raise _too_short(frame, image)
        return
    is_j2k = uid.UID(image.transfer_syntax) in uid.JPEG2000TransferSyntaxes
    try:
        claim = _of_j2k(frame) if is_j2k else _of_jpeg(frame)
    except struct.error as error:
        raise MalformedObjectError("a coded frame has no whole header") from error
    if claim != (image.rows, image.columns, image.samples):
        raise MalformedObjectError(
            f"a coded frame is of {claim.rows} x {claim.columns} x {claim.samples}, its "
            f"object says {image.rows} x {image.columns} x {image.samples}"
        )


def _too_short(frame: bytes, image: CodedImage) -> MalformedObjectError:
    return MalformedObjectError(
        f"a coded frame of {len(frame)} bytes cannot hold {image.rows} x {image.columns}"
    )


def _of_jpeg(frame: bytes) -> _Claim:
    """Return what the first frame header of a JPEG or JPEG-LS stream says."""
    position = frame.find(b"\xff\xd8") + 2
    while position >= 2:
        position = frame.find(b"\xff", position)
        (marker,) = struct.unpack_from("B", frame, position + 1)
        if marker == 0xFF:  # fill bytes
            position += 1
        elif marker in _FRAME_MARKERS:
            _, rows, columns, samples = struct.unpack_from(">BHHB", frame, position + 4)
            return _Claim(rows, columns, samples)
        elif marker == 0xDA:  # a scan before any frame
            break
        else:
            (length,) = struct.unpack_from(">H", frame, position + 2)
            position += 2 + length
    raise MalformedObjectError("a coded frame has no frame header")


def _of_j2k(frame: bytes) -> _Claim:
    """Return what the SIZ marker of a JPEG 2000 codestream says, in JP2 or bare."""
    start = _codestream(frame) if frame.startswith(_JP2_START) else 0
    if frame[start : start + 4] != _J2K_START:
        raise MalformedObjectError("a coded frame is no JPEG 2000 codestream")
    right, bottom, left, top, width, height, tile_left, tile_top, samples = (
        struct.unpack_from(">8IH", frame, start + 8)
    )
    rows, columns = bottom - top, right - left
    if not (width and height and rows > 0 and columns > 0):
        raise MalformedObjectError("a coded frame has an empty image or empty tiles")
    tiles = -(-(right - tile_left) // width) * -(-(bottom - tile_top) // height)
    if tiles > LEAST_TILES + rows * columns // LEAST_TILE_PIXELS:
        raise MalformedObjectError(f"a coded frame has {tiles} tiles")
    return _Claim(rows, columns, samples)


def _codestream(frame: bytes) -> int:
    """Return where the codestream of a JP2 file begins (T.800 I.4)."""
    position = 0
    while True:
        length, kind = struct.unpack_from(">I4s", frame, position)
        header = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", frame, position + 8)
            header = 16
        if kind == b"jp2c":
            return position + header
        if length < header:
            raise MalformedObjectError("a coded frame has no codestream in its boxes")
        position += length
