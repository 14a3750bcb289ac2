"""What a stored image is, before anyone looks at it.

Pixels are *stored values*: the integers of Pixel Data with the unused bits taken away,
before any rescale or window. How they are shown is a :class:`DisplayWindow` beside
them, in stored values too, so that nothing below has to know units.

Nothing here knows how pixels are packed into bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from miadmark_core.errors import UnsupportedImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    StoredValues = NDArray[np.integer[Any]]
    """Stored pixel values in the image's own integer type."""

    Places = NDArray[np.bool_]
    """Which pixels of a frame, ``(rows, columns)``."""


class ValueRange(NamedTuple):
    """The lowest and highest value, both included."""

    lower: int
    upper: int

    @classmethod
    def stored(cls, bits: int, *, signed: bool) -> ValueRange:
        """Return what ``bits`` Bits Stored can hold (PS3.3 C.7.6.3.1.4)."""
        if not 1 <= bits <= 16:
            raise UnsupportedImageError(
                f"{bits} bits stored cannot be marked", hint="1 to 16 bits can."
            )
        lower = -(1 << (bits - 1)) if signed else 0
        return cls(lower, lower + (1 << bits) - 1)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the smallest integer type that holds every value."""
        size = 1 if self.lower >= -0x80 and self.upper <= 0xFF else 2
        if self.lower < 0:
            return np.dtype(f"i{1 if size == 1 and self.upper <= 0x7F else 2}")
        return np.dtype(f"u{size}")


def _range_of(dtype: np.dtype[Any]) -> ValueRange:
    """Return what fits into a type: nothing else can be in an array of it."""
    limits = np.iinfo(dtype)
    return ValueRange(int(limits.min), int(limits.max))


class DisplayWindow(NamedTuple):
    """Which stored values are shown as black and as white."""

    lower: float
    upper: float
    is_inverted: bool = False
    """Low values are shown bright, as in MONOCHROME1."""

    @property
    def width(self) -> float:
        """Return the width in stored values; above 0."""
        return self.upper - self.lower

    def shown(self, values: StoredValues) -> NDArray[np.float32]:
        """Return what a viewer shows of ``values``: 0 black, 1 white. Same shape."""
        linear = (values.astype(np.float32) - np.float32(self.lower)) / np.float32(
            self.width
        )
        linear = np.clip(linear, 0, 1)
        seen: NDArray[np.float32] = 1 - linear if self.is_inverted else linear
        return seen


class Frames(Protocol):
    """The frames of an image, one at a time. An array of four dimensions is one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return ``(frames, rows, columns, samples)``."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the type of the stored values."""
        ...

    def __len__(self) -> int:
        """Return how many frames there are."""
        ...

    def __getitem__(self, number: int, /) -> StoredValues:
        """Return one frame, ``(rows, columns, samples)``."""
        ...

    def __iter__(self) -> Iterator[StoredValues]:
        """Go through the frames in order."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class LazyFrames:
    """Frames that are made anew each time they are asked for.

    For images that memory has no room for: whoever goes through them holds one frame.
    """

    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    make: Callable[[int], StoredValues]
    """Returns the frame of that number, always the same."""

    def __len__(self) -> int:
        """Return how many frames there are."""
        return self.shape[0]

    def __getitem__(self, number: int) -> StoredValues:
        """Return one frame; a number below 0 counts from the end."""
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        return self.make(number % len(self))

    def __iter__(self) -> Iterator[StoredValues]:
        """Go through the frames in order."""
        return map(self.make, range(len(self)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HostImage:
    """An image that carries a mark or is to carry one. Never modified in place."""

    pixels: Frames
    """``(frames, rows, columns, samples)``, of the type ``values.dtype``. Whoever makes
    them lazily keeps them within ``values``; an array is looked at."""
    values: ValueRange
    """What Bits Stored and Pixel Representation allow."""
    padding: ValueRange | None = None
    """Values that stand for "no image here" (Pixel Padding Value, PS3.3 C.7.5.1.1.2)."""

    _digests: list[bytes] = field(default_factory=list, init=False, repr=False)
    """The digest, once it was asked for."""

    def __post_init__(self) -> None:
        """Refuse what the other modules take for granted."""
        if len(self.pixels.shape) != 4 or 0 in self.pixels.shape:
            raise UnsupportedImageError(f"an image of shape {self.pixels.shape}")
        if self.pixels.dtype != self.values.dtype:
            raise UnsupportedImageError(
                f"pixels of type {self.pixels.dtype} for values {tuple(self.values)}"
            )
        if not isinstance(self.pixels, np.ndarray) or self.values == _range_of(
            self.values.dtype
        ):
            return
        lowest, highest = int(self.pixels.min()), int(self.pixels.max())
        if lowest < self.values.lower or highest > self.values.upper:
            raise UnsupportedImageError(
                f"stored values {lowest} to {highest} do not fit the bits stored, "
                f"{self.values.lower} to {self.values.upper}"
            )

    def digest(self) -> bytes:
        """Return the SHA-256 of shape, range and pixels; 32 bytes.

        It does not depend on how the pixels were packed or compressed: 8-bit ranges are
        hashed as bytes, wider ones as 16-bit little-endian words, frame by frame, row
        by row, the samples of a pixel together.
        """
        if not self._digests:
            head = ",".join(map(str, (*self.pixels.shape, *self.values)))
            digest = hashlib.sha256(b"miadmark/v1/pixels " + head.encode() + b"\n")
            little = self.pixels.dtype.newbyteorder("<")
            for frame in self.pixels:
                digest.update(np.ascontiguousarray(frame, little).data)
            self._digests.append(digest.digest())
        return self._digests[0]

    def whole(self) -> StoredValues:
        """Return all frames as one array; for images that memory has room for."""
        return np.stack([*self.pixels])

    def like(self, make: Callable[[int], StoredValues]) -> HostImage:
        """Return an image of other frames of the same kind; see :meth:`made_of`."""
        pixels = self.made_of(make, self.pixels.shape[3], self.pixels.dtype)
        return HostImage(pixels=pixels, values=self.values, padding=self.padding)

    def made_of(
        self, make: Callable[[int], StoredValues], samples: int, dtype: np.dtype[Any]
    ) -> Frames:
        """Return other frames of the same size, held in memory if these are.

        Args:
            make: Returns the frame of that number, always the same.
            samples: Of each pixel.
            dtype: Of what ``make`` returns.
        """
        frames, rows, columns, _ = self.pixels.shape
        shape = (frames, rows, columns, samples)
        if not isinstance(self.pixels, np.ndarray):
            return LazyFrames(shape, dtype, make)
        pixels = np.empty(shape, dtype)
        for number in range(frames):
            pixels[number] = make(number)
        return pixels
