"""What a model would be shown of an image, and how much of a mark each place bears.

A view is square whatever the image's shape, since that is what most classifiers' own
preparation makes of it; the grid of a mark is square for the same reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIDE: Final = 224
"""Rows and columns of a view."""

GRID_SIDE: Final = 112
"""Cells of a mark's grid along each side: half of ``SIDE`` transfers as well as one
cell a pixel and looks better; a quarter loses most of the effect."""


class View(NamedTuple):
    """One image as a model sees it, and what the budget allows there."""

    pixels: Tensor
    """``(3, SIDE, SIDE)``, float32, 0 black to 1 white."""
    limit: Tensor
    """``(GRID_SIDE, GRID_SIDE)``, 0..1: the share of a full step that a cell may take."""
    peak: float
    """What a full step adds, as a share of the display window; negative where the image
    is shown inverted."""
    fixed: Tensor
    """``(SIDE, SIDE)``, 0..1: the share of a place that is padding, and stays."""
    aspect: float
    """Columns a row of the image."""
    planes: int
    """Of the mark's grid: 1, or 3 of a coloured image."""
    region: Tensor | None = None
    """Where the finding is, if somebody drew it: ``(SIDE, SIDE)``, 0 to 1."""
    is_coarse: bool = False
    """Whether a full step moves so few stored values that a part of one moves none."""


def view(
    shown: NDArray[np.float32],
    peak: float,
    padding: NDArray[np.bool_] | None = None,
    region: NDArray[np.bool_] | None = None,
    *,
    is_coarse: bool = False,
) -> View:
    """Return the view of one frame.

    Args:
        shown: ``(rows, columns, samples)`` with 1 or 3 samples, 0 black to 1 white.
        peak: See :class:`View`.
        padding: Which pixels are padding, ``(rows, columns)``; None for none.
        region: Which pixels show a finding, if somebody drew it, ``(rows, columns)``.
        is_coarse: See :class:`View`.
    """
    image = torch.from_numpy(shown).permute(2, 0, 1).contiguous()
    small = functional.interpolate(
        image[None], size=(SIDE, SIDE), mode="bilinear", antialias=True
    )[0]
    fixed = torch.zeros(SIDE, SIDE) if padding is None else _share(padding)
    rows, columns = shown.shape[:2]
    return View(
        small.expand(3, SIDE, SIDE).contiguous(),
        limit(small),
        peak,
        fixed,
        columns / rows,
        shown.shape[2],
        None if region is None else _share(region),
        is_coarse,
    )


def _share(places: NDArray[np.bool_]) -> Tensor:
    """Return which share of each place of a view is among ``places``."""
    share = torch.from_numpy(places)[None].float()
    return functional.adaptive_avg_pool2d(share, SIDE)[0]


def limit(image: Tensor) -> Tensor:
    """Return how much of a full step each cell may take.

    Texture hides a mark and smooth tissue shows it, so the limit grows with the local
    deviation; where nothing is going on at all there is no image to protect, the mark
    would be seen at once and read off by anyone, and the limit is 0.

    Args:
        image: ``(samples, SIDE, SIDE)``, 0..1.

    Returns:
        ``(GRID_SIDE, GRID_SIDE)``, 0..1.
    """
    grey = image.mean(dim=0)[None, None]
    mean = _blurred(grey, 9)
    deviation = (_blurred(grey * grey, 9) - mean * mean).clamp(min=0).sqrt()
    texture = LOWEST_LIMIT + (1 - LOWEST_LIMIT) * (deviation / FULL_DEVIATION).clamp(
        max=1
    )
    is_background = (deviation < FLAT_DEVIATION) & ((mean < 0.06) | (mean > 0.97))
    allowed = texture.masked_fill(is_background, 0.0)
    return functional.adaptive_avg_pool2d(allowed, GRID_SIDE)[0, 0]


LOWEST_LIMIT: Final = 0.4
"""The limit in perfectly smooth tissue."""

FULL_DEVIATION: Final = 0.06
"""The local standard deviation, of 0..1, from which the full step is allowed."""

FLAT_DEVIATION: Final = 0.01
"""Below this, near black or white, a place counts as background."""


def _blurred(x: Tensor, width: int) -> Tensor:
    half = width // 2
    padded = functional.pad(x, (half, half, half, half), mode="reflect")
    return functional.avg_pool2d(padded, width, stride=1)
