"""What undoes a mark: the grids, the values that were cut off, and two digests.

Layout, version 1, all integers little-endian::

    version (1) | expansion (1) | frames (4) | frames a grid (4)
    | grids (4) | height (2) | width (2) | bytes a value (1)
    | host digest (32) | marked digest (32)
    | amplitude (4) for each grid | stopped pixels (4) for each frame
    | deflated: steps of each grid, then stopped values of each frame

``expansion`` names the arithmetic of :mod:`miadmark_core.mark`; 1 is bilinear with 7-bit
weights and one plane for all samples, 2 the same with a plane for each of three. Whoever
changes that arithmetic takes the next number and keeps the old code; 16 is taken by
:mod:`miadmark_core.cover_key`.

A removal key is secret as long as the mark is to stay: it says nothing about the person
in the image, but it is all that is needed to take the mark off.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from miadmark_core.errors import DamagedSealError, UnknownFormatError
from miadmark_core.mark import MarkGrid

if TYPE_CHECKING:
    from miadmark_core.image import StoredValues

VERSION: Final = 1
_PLANES_OF: Final = {1: 1, 2: 3}
"""How many planes the grids have, by the number that names the arithmetic."""
_EXPANSION_OF: Final = {1: 1, 3: 2}
"""The number that is written, by planes."""

_HEAD: Final = struct.Struct("<BBIIIHHB32s32s")
_MAX_BODY: Final = 1 << 31
_TYPES: Final = {1: ("u1", "i1"), 2: ("<u2", "<i2")}


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovalKey:
    """Everything that :func:`miadmark_core.marking.restore_image` needs."""

    grids: tuple[MarkGrid, ...]
    """All of one shape; grid ``i`` marks ``frames_per_grid`` frames from ``i`` times
    that on."""
    frames_per_grid: int
    stopped: tuple[StoredValues, ...]
    """For each frame the host values of the pixels on a stop, in row order."""
    host_digest: bytes
    """:meth:`~miadmark_core.image.HostImage.digest` of the original; 32 bytes."""
    marked_digest: bytes
    """The same of the marked image."""

    def __post_init__(self) -> None:
        """Refuse a key that could not be written down."""
        frames, shape = len(self.stopped), self.grids[0].steps.shape
        if any(grid.steps.shape != shape for grid in self.grids):
            raise ValueError("grids of different shapes")
        if len(self.grids) != -(-frames // self.frames_per_grid):
            raise ValueError(f"{len(self.grids)} grids for {frames} frames")

    @property
    def frames(self) -> int:
        """Return how many frames it is for."""
        return len(self.stopped)

    @property
    def planes(self) -> int:
        """Return how many planes its grids have: 1, or 3 for three samples."""
        planes: int = self.grids[0].steps.shape[2]
        return planes

    def grid_of(self, frame: int) -> MarkGrid:
        """Return the grid that marks frame number ``frame``, counted from 0."""
        return self.grids[frame // self.frames_per_grid]

    @property
    def method(self) -> str:
        """Return how it undoes a mark: the number of the layout and the arithmetic's."""
        return f"grid {VERSION}.{_EXPANSION_OF[self.planes]}"

    def to_bytes(self) -> bytes:
        """Return the key as bytes; the inverse of :meth:`from_bytes`."""
        height, width, _ = self.grids[0].steps.shape
        dtype = self.stopped[0].dtype
        head = _HEAD.pack(
            VERSION,
            _EXPANSION_OF[self.planes],
            len(self.stopped),
            self.frames_per_grid,
            len(self.grids),
            height,
            width,
            dtype.itemsize | (0x80 if dtype.kind == "i" else 0),
            self.host_digest,
            self.marked_digest,
        )
        amplitudes = [grid.amplitude for grid in self.grids]
        counts = [values.size for values in self.stopped]
        body = b"".join(
            [grid.steps.tobytes() for grid in self.grids]
            + [v.astype(v.dtype.newbyteorder("<")).tobytes() for v in self.stopped]
        )
        return (
            head
            + struct.pack(f"<{len(amplitudes)}I", *amplitudes)
            + struct.pack(f"<{len(counts)}I", *counts)
            + zlib.compress(body, 9)
        )

    @classmethod
    def from_bytes(cls, encoded: bytes) -> RemovalKey:
        """Return the key that :meth:`to_bytes` wrote.

        Raises:
            UnknownFormatError: A later version wrote it.
            DamagedSealError: It is not a removal key, or is cut short.
        """
        if encoded[:2] and encoded[:1] != bytes([VERSION]):
            raise UnknownFormatError(
                f"a removal key of version {encoded[0]}",
                hint="A newer version of this software marked the image: upgrade.",
            )
        try:
            return cls._parsed(encoded)
        except (struct.error, ValueError, KeyError, IndexError, zlib.error) as error:
            raise DamagedSealError("the removal key is damaged") from error

    @classmethod
    def _parsed(cls, encoded: bytes) -> RemovalKey:
        (
            _,
            expansion,
            frames,
            frames_per_grid,
            grids,
            height,
            width,
            value_type,
            host_digest,
            marked_digest,
        ) = _HEAD.unpack_from(encoded)
        if expansion not in _PLANES_OF:
            raise UnknownFormatError(
                f"a mark of expansion {expansion}",
                hint="A newer version of this software marked the image: upgrade.",
            )
        end_of_lists = _HEAD.size + 4 * (grids + frames)
        if 0 in (frames, frames_per_grid, grids) or end_of_lists > len(encoded):
            raise ValueError("empty or cut short")
        numbers = struct.unpack_from(f"<{grids + frames}I", encoded, _HEAD.size)
        amplitudes, counts = numbers[:grids], numbers[grids:]
        dtype = np.dtype(_TYPES[value_type & 0x7F][value_type >> 7])
        shape = (height, width, _PLANES_OF[expansion])
        cells = math.prod(shape)
        size = grids * cells + sum(counts) * dtype.itemsize
        if size > _MAX_BODY:
            raise ValueError("too large")
        inflater = zlib.decompressobj()
        body = inflater.decompress(encoded[end_of_lists:], size + 1)
        if len(body) != size or not inflater.eof or inflater.unused_data:
            raise ValueError("not as long as it says")
        steps = np.frombuffer(body, np.int8, grids * cells)
        values = np.frombuffer(body, dtype, offset=grids * cells)
        values = values.astype(dtype.newbyteorder("="))
        return cls(
            grids=tuple(
                MarkGrid(cell_steps.reshape(shape), amplitude)
                for cell_steps, amplitude in zip(
                    np.split(steps, grids), amplitudes, strict=True
                )
            ),
            frames_per_grid=frames_per_grid,
            stopped=tuple(np.split(values, np.cumsum(counts)[:-1])),
            host_digest=host_digest,
            marked_digest=marked_digest,
        )
