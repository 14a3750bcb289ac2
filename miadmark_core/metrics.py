"""How much a mark shows, as a viewer sees it: to report and to limit.

Both figures compare what the display window shows of the two images, not the stored
values, since that is what a reader looks at. They say nothing about diagnostic value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from skimage.metrics import structural_similarity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Shown = NDArray[np.float32]
    """``(rows, columns, samples)``, 0 black to 1 white."""


def psnr_db(original: Shown, marked: Shown) -> float:
    """Return the peak signal-to-noise ratio in dB; infinite where nothing changed."""
    error = float(np.mean((original - marked) ** 2, dtype=np.float64))
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def ssim(original: Shown, marked: Shown) -> float:
    """Return the mean structural similarity, -1..1; 1 for equal images.

    Images of fewer than seven rows or columns are too small for its window; for them 1
    stands for equal and 0 for not equal.

    Source:
        Wang et al., 2004, "Image quality assessment: from error visibility to
        structural similarity", with the uniform 7 x 7 window of scikit-image.
    """
    if min(original.shape[:2]) < 7:
        return float(np.array_equal(original, marked))
    mean: float = structural_similarity(  # type: ignore[no-untyped-call]
        original, marked, data_range=1.0, channel_axis=-1
    )
    return float(mean)


def similarity(original: Shown, marked: Shown) -> NDArray[np.float32]:
    """Return the structural similarity at each pixel; see :func:`ssim`.

    Args:
        original: At least seven rows and columns.
        marked: Same shape.

    Returns:
        ``(rows, columns, samples)``, -1..1.
    """
    _, each = structural_similarity(  # type: ignore[no-untyped-call]
        original, marked, data_range=1.0, channel_axis=-1, full=True
    )
    return np.asarray(each, np.float32)


def reduced(shown: Shown, side: int) -> Shown:
    """Return a large image as a screen shows it: means over blocks of equal size.

    Args:
        shown: Any size.
        side: Rows and columns of the result, at most.

    Returns:
        Fewer rows and columns, those at the far edges that fill no block left out;
        ``shown`` itself where it fits.
    """
    block = -(-max(shown.shape[:2]) // side)
    if block == 1:
        return shown
    rows, columns = (n // block for n in shown.shape[:2])
    blocks = shown[: rows * block, : columns * block]
    shape = (rows, block, columns, block, shown.shape[2])
    means: Shown = blocks.reshape(shape).mean(axis=(1, 3), dtype=np.float32)
    return means
