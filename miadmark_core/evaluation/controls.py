"""A random mark as strong as a real one: whatever it costs a classifier, noise would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    """``(images, rows, columns, 3)``."""

_HALVINGS: Final = 10


def control(clean: Pixels, marked: Pixels, seed: int) -> Pixels:
    """Return each clean image with a random mark of its real mark's PSNR and spectrum.

    The real mark keeps the size of each of its frequencies while their phases are moved
    at random, the same way in all three samples, so that a grey mark stays grey and a
    coloured one keeps its colours. The gain is then set,
    image by image, so that rounding and saturation leave the same PSNR.

    Args:
        clean: The originals. Not modified.
        marked: The same, marked. Same shape.
        seed: Of the phases.
    """
    random = np.random.default_rng(seed)
    results = np.empty_like(clean)
    for index, (image, other) in enumerate(zip(clean, marked, strict=True)):
        moves = np.fft.rfft2(random.normal(size=image.shape[:2]))
        moves /= np.maximum(np.abs(moves), 1e-12)
        mark = np.moveaxis(other.astype(np.float64) - image, -1, 0)
        shuffled = np.fft.irfft2(np.fft.rfft2(mark) * moves, s=image.shape[:2])
        results[index] = _as_strong(image, np.moveaxis(shuffled, 0, -1), other)
    return results


def root_mean_square(a: Pixels, b: Pixels) -> float:
    """Return how far ``a`` and ``b`` lie apart, in grey levels."""
    return float(np.sqrt(np.mean((a.astype(np.float64) - b) ** 2)))


def _as_strong(image: Pixels, mark: NDArray[np.float64], example: Pixels) -> Pixels:
    wanted = root_mean_square(image, example)
    low, high = 0.0, 4.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if root_mean_square(image, _added(image, mark * middle)) < wanted:
            low = middle
        else:
            high = middle
    return _added(image, mark * high)


def _added(image: Pixels, mark: NDArray[np.float64]) -> Pixels:
    added: Pixels = np.clip(np.rint(image + mark), 0, 255).astype(np.uint8)
    return added
