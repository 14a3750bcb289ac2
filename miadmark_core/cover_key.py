"""What undoes a visible mark: which pixels it covers, what is under them, two digests.

Layout, all integers little-endian::

    version (1) = 1 | kind (1) = 16 | frames (4) | rows (4) | columns (4) | samples (1)
    | bytes a value (1), 128 added where signed
    | host digest (32) | marked digest (32)
    | covered pixels (4) for each frame
    | deflated: for each frame its places, one bit a pixel, rows one after the other,
      filled up with zeros to a byte; then for each frame what is hidden, each sample
      of a pixel as its difference from the pixel before it, wrapping round

The first two bytes stand where those of :mod:`miadmark_core.removal_key` stand, so that
either kind is told from its start.

The key holds the part of the image that nobody is to see: it is as secret as the image.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from miadmark_core.errors import DamagedSealError, UnknownFormatError

if TYPE_CHECKING:
    from miadmark_core.image import Places, StoredValues

VERSION: Final = 1
KIND: Final = 16

_HEAD: Final = struct.Struct("<BBIIIBB32s32s")
_MAX_BODY: Final = 1 << 31
_TYPES: Final = {1: ("u1", "i1"), 2: ("<u2", "<i2")}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CoverKey:
    """Everything that :func:`miadmark_core.marking.restore_image` needs."""

    places: tuple[Places, ...]
    """For each frame which pixels are covered, ``(rows, columns)``."""
    hidden: tuple[StoredValues, ...]
    """For each frame their host values, in row order, ``(n, samples)``."""
    host_digest: bytes
    """:meth:`~miadmark_core.image.HostImage.digest` of the original; 32 bytes."""
    marked_digest: bytes
    """The same of the marked image."""

    def __post_init__(self) -> None:
        """Refuse a key that could not put back what it keeps."""
        for where, values in zip(self.places, self.hidden, strict=True):
            if np.count_nonzero(where) != len(values):
                raise ValueError(f"{len(values)} hidden pixels for other places")

    @property
    def frames(self) -> int:
        """Return how many frames it is for."""
        return len(self.places)

    @property
    def method(self) -> str:
        """Return how it undoes a mark: the number of the layout and the arithmetic's."""
        return f"logo {VERSION}.{KIND}"

    def to_bytes(self) -> bytes:
        """Return the key as bytes; the inverse of :meth:`from_bytes`."""
        rows, columns = self.places[0].shape
        dtype = self.hidden[0].dtype
        head = _HEAD.pack(
            VERSION,
            KIND,
            self.frames,
            rows,
            columns,
            self.hidden[0].shape[1],
            dtype.itemsize | (0x80 if dtype.kind == "i" else 0),
            self.host_digest,
            self.marked_digest,
        )
        counts = [len(values) for values in self.hidden]
        body = b"".join(
            [np.packbits(where).tobytes() for where in self.places]
            + [_differences(values).tobytes() for values in self.hidden]
        )
        return head + struct.pack(f"<{len(counts)}I", *counts) + zlib.compress(body, 9)

    @classmethod
    def from_bytes(cls, encoded: bytes) -> CoverKey:
        """Return the key that :meth:`to_bytes` wrote.

        Raises:
            UnknownFormatError: It is of another version or kind.
            DamagedSealError: It is not a removal key, or is cut short.
        """
        if len(encoded) >= 2 and encoded[:2] != bytes([VERSION, KIND]):
            raise UnknownFormatError(
                f"a removal key of version {encoded[0]}, kind {encoded[1]}",
                hint="A newer version of this software marked the image: upgrade.",
            )
        try:
            return cls._parsed(encoded)
        except (struct.error, ValueError, KeyError, IndexError, zlib.error) as error:
            raise DamagedSealError("the removal key is damaged") from error

    @classmethod
    def _parsed(cls, encoded: bytes) -> CoverKey:
        _, _, frames, rows, columns, samples, value_type, host_digest, marked_digest = (
            _HEAD.unpack_from(encoded)
        )
        end_of_list = _HEAD.size + 4 * frames
        if 0 in (frames, rows, columns, samples) or end_of_list > len(encoded):
            raise ValueError("empty or cut short")
        counts = struct.unpack_from(f"<{frames}I", encoded, _HEAD.size)
        dtype = np.dtype(_TYPES[value_type & 0x7F][value_type >> 7])
        pixels = rows * columns
        bits = -(-pixels // 8)
        size = frames * bits + sum(counts) * samples * dtype.itemsize
        if max(size, frames * pixels) > _MAX_BODY or max(counts) > pixels:
            raise ValueError("too large")
        inflater = zlib.decompressobj()
        body = inflater.decompress(encoded[end_of_list:], size + 1)
        if len(body) != size or not inflater.eof or inflater.unused_data:
            raise ValueError("not as long as it says")
        packed = np.frombuffer(body, np.uint8, frames * bits).reshape(frames, bits)
        differences = np.frombuffer(body, dtype, offset=frames * bits)
        ends = np.cumsum([count * samples for count in counts])[:-1]
        return cls(
            places=tuple(
                np.unpackbits(row, count=pixels).reshape(rows, columns).astype(np.bool_)
                for row in packed
            ),
            hidden=tuple(
                _summed(part.reshape(-1, samples))
                for part in np.split(differences, ends)
            ),
            host_digest=host_digest,
            marked_digest=marked_digest,
        )


def _differences(values: StoredValues) -> StoredValues:
    """Return each row less the one before it, wrapping round, little-endian."""
    differences = values.copy()
    differences[1:] -= values[:-1]
    return differences.astype(differences.dtype.newbyteorder("<"))


def _summed(differences: StoredValues) -> StoredValues:
    """Return the running sums, wrapping round; the inverse of ``_differences``."""
    dtype = differences.dtype.newbyteorder("=")
    return np.cumsum(differences, axis=0, dtype=dtype)
