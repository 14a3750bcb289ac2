"""A mark: a small grid of signed steps, and how it grows to the size of an image.

Growing is bilinear, separable, and done in 32-bit integers with fixed-point weights, so
every machine gets the same mark from the same grid, now and in twenty years. The widths
are chosen so that nothing overflows: a step has 7 bits and a sign, the two weights 7
bits each (21 together, 13 after rounding), the amplitude 18.

Nothing here knows how a grid is found, or what image it is for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from miadmark_core.errors import UnsupportedImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    MarkValues = NDArray[np.int32]
    """What is added to each stored value, ``(rows, columns, planes)``: with one plane the
    same to every sample."""

FULL_STEP: Final = 127
"""The largest step either way; -128 is left out, so that a mark can be negated."""

AMPLITUDE_UNIT: Final = 1 << 12
"""An amplitude of this adds one stored value a step."""

MAX_AMPLITUDE: Final = (1 << 18) - 1
"""The largest amplitude whose products stay within 32 bits: 8,127 stored values."""

MAX_SIDE: Final = 256
"""The most cells a grid may have along one side."""

PLANES: Final = (1, 3)
"""How many planes a grid may have."""

_WEIGHT_BITS: Final = 7
_KEPT_BITS: Final = (
    6  # fractional bits of a step between the two passes and the product
)


@dataclass(frozen=True, slots=True)
class MarkGrid:
    """A mark before it has a size."""

    steps: NDArray[np.int8]
    """``(height, width, planes)``, each from -127 to 127; at most 256 a side. One plane
    for all samples, or three, one for each of a coloured image."""
    amplitude: int
    """Stored values a step, in units of 1/4096; 1 to ``MAX_AMPLITUDE``."""

    def __post_init__(self) -> None:
        """Refuse what could not be expanded without overflow."""
        if self.steps.dtype != np.int8 or self.steps.ndim != 3:
            raise ValueError("steps are a three-dimensional array of int8")
        *sides, planes = self.steps.shape
        if not 1 <= min(sides) <= max(sides) <= MAX_SIDE or planes not in PLANES:
            raise ValueError(f"a grid of shape {self.steps.shape}")
        if self.steps.min() < -FULL_STEP:
            raise ValueError("a step of -128")
        if not 1 <= self.amplitude <= MAX_AMPLITUDE:
            raise ValueError(f"an amplitude of {self.amplitude}")

    def values(self, rows: int, columns: int) -> MarkValues:
        """Return what to add to each pixel of an image, ``(rows, columns, planes)``.

        Bilinear, cell centres spread evenly over the image (as a resize without
        aligned corners does), rounded to the nearest integer at the very end.
        """
        ((_, values),) = self.bands(rows, columns, rows)
        return values

    def bands(
        self, rows: int, columns: int, height: int
    ) -> Iterator[tuple[slice, MarkValues]]:
        """Yield the same as :meth:`values` in bands of ``height`` rows, from the top.

        A large image is gone through in bands that fit the cache: several times as fast.
        """
        cells, width, planes = self.steps.shape
        left, right, weight = _neighbours(columns, width)
        grid = self.steps.astype(np.int32)
        # Each value is the nearer neighbour's and a part of the way to the other.
        wide = np.take(grid, left, axis=1)
        way = np.take(grid, right, axis=1)
        way -= wide
        way *= weight[:, np.newaxis]
        wide <<= np.int32(_WEIGHT_BITS)
        wide += way
        above, _, weight = _neighbours(rows, cells)
        way[-1:] = 0  # below the last row of cells there is none
        np.subtract(wide[1:], wide[:-1], out=way[:-1])
        wide <<= np.int32(_WEIGHT_BITS)
        weight = weight[:, np.newaxis, np.newaxis]
        room = np.empty((min(height, rows), columns, planes), np.int32)
        for top in range(0, rows, height):
            band = slice(top, min(top + height, rows))
            tall = np.take(wide, above[band], axis=0)
            # Without "clip" it would be taken elsewhere first, and copied.
            down = room[: len(tall)]
            np.take(way, above[band], axis=0, out=down, mode="clip")
            down *= weight[band]
            tall += down
            tall = _rounded_shift(tall, 2 * _WEIGHT_BITS - _KEPT_BITS)
            tall *= np.int32(self.amplitude)
            shift = _KEPT_BITS + AMPLITUDE_UNIT.bit_length() - 1
            yield band, _rounded_shift(tall, shift)


def amplitude_for(peak: int) -> int:
    """Return the amplitude with which a full step adds at most ``peak``.

    Raises:
        UnsupportedImageError: ``peak`` is below 1 or above 8,127 stored values.
    """
    amplitude = peak * AMPLITUDE_UNIT // FULL_STEP
    if peak < 1 or amplitude > MAX_AMPLITUDE:
        raise UnsupportedImageError(
            f"a mark of {peak} stored values at most",
            hint="The display window is too narrow or too wide for the stored values.",
        )
    return amplitude


def _neighbours(
    size: int, cells: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """Return, for each pixel, the two cells it lies between and the second's weight."""
    one = 1 << _WEIGHT_BITS
    centre = (2 * np.arange(size, dtype=np.int64) + 1) * cells * one // (2 * size)
    place = np.clip(centre - one // 2, 0, (cells - 1) * one)
    first = place >> _WEIGHT_BITS
    second = np.minimum(first + 1, cells - 1)
    return first, second, (place & (one - 1)).astype(np.int32)


def _rounded_shift(values: MarkValues, bits: int) -> MarkValues:
    """Divide by a power of two in place, to the nearest, halves upwards."""
    values += np.int32(1 << (bits - 1))
    values >>= np.int32(bits)
    return values
