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
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

SIDE: Final = 224
"""Rows and columns of a view."""

GRID_SIDE: Final = 112
"""Cells of a mark's grid along each side: half of ``SIDE`` transfers as well as one
cell a pixel and looks better; a quarter loses most of the effect."""


EVERYWHERE: Final = torch.ones(GRID_SIDE, GRID_SIDE)


class Window(NamedTuple):
    """One of the ways in which people and models are shown an image."""

    lower: float = 0.0
    """What it shows black, in the scale of the view."""
    upper: float = 1.0
    """What it shows white."""
    share: float = 1.0
    """Of a full step: what a mark may show in it."""

    def shown(self, pixels: Tensor) -> Tensor:
        """Return pixels of the view as this window shows them, 0 black to 1 white."""
        return ((pixels - self.lower) / (self.upper - self.lower)).clamp(0, 1)


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
    windows: tuple[Window, ...] = (Window(),)
    """All that show something of it; what they leave out of a view, nobody sees."""
    most: Tensor = EVERYWHERE
    """Like ``limit``: the share of a full step that no cell ever passes."""


def view(
    shown: NDArray[np.float32],
    peak: float,
    padding: NDArray[np.bool_] | None = None,
    region: NDArray[np.bool_] | None = None,
    *,
    is_coarse: bool = False,
    windows: tuple[Window, ...] = (Window(),),
    spread: NDArray[np.float32] | None = None,
) -> View:
    """Return the view of one frame.

    Args:
        shown: ``(rows, columns, samples)`` with 1 or 3 samples, 0 to 1: darkest to
            brightest that any of ``windows`` shows.
        peak: See :class:`View`.
        padding: Which pixels are padding, ``(rows, columns)``; None for none.
        region: Which pixels show a finding, if somebody drew it, ``(rows, columns)``.
        is_coarse: See :class:`View`.
        windows: See :class:`View`.
        spread: The darkest and brightest that each pixel is in any image that gets the
            mark, ``(2, rows, columns)``; where there is one window, nothing rests on it.
    """
    image = torch.from_numpy(shown).permute(2, 0, 1).contiguous()
    small = functional.interpolate(
        image[None], size=(SIDE, SIDE), mode="bilinear", antialias=True
    )[0]
    fixed = torch.zeros(SIDE, SIDE) if padding is None else _share(padding)
    rows, columns = shown.shape[:2]
    allowed, most = _limits(small, _spread(small, spread), windows, peak)
    return View(
        small.expand(3, SIDE, SIDE).contiguous(),
        allowed,
        peak,
        fixed,
        columns / rows,
        shown.shape[2],
        None if region is None else _share(region),
        is_coarse,
        windows,
        most,
    )


def _share(places: NDArray[np.bool_]) -> Tensor:
    """Return which share of each place of a view is among ``places``."""
    share = torch.from_numpy(places)[None].float()
    return functional.adaptive_avg_pool2d(share, SIDE)[0]


def _spread(small: Tensor, spread: NDArray[np.float32] | None) -> Tensor:
    grey = small.mean(dim=0)
    return torch.stack([grey, grey]) if spread is None else torch.from_numpy(spread)


def _limits(
    small: Tensor, spread: Tensor, windows: Sequence[Window], peak: float
) -> tuple[Tensor, Tensor]:
    """Return how much of a full step each cell may take, and how much it ever may.

    The window in which a mark would show most decides, place by place. In one that is
    black or white there with the mark and without, it does not show.

    Args:
        small: ``(samples, SIDE, SIDE)``, in the scale of the view.
        spread: ``(2, rows, columns)``, the same scale: the darkest and brightest that
            a pixel is.
        windows: At least one.
        peak: What a full step adds.

    Returns:
        Two of ``(GRID_SIDE, GRID_SIDE)``, 0..1.
    """
    darkest = -functional.adaptive_max_pool2d(-spread[None, :1], SIDE)
    brightest = functional.adaptive_max_pool2d(spread[None, 1:], SIDE)
    hidden = 2.0  # more than any window allows
    allowed, most, empty = [], [], []
    for window in windows:
        texture, is_background = _texture(window.shown(small))
        hides = brightest + abs(peak) <= window.lower
        hides |= darkest - abs(peak) >= window.upper
        allowed.append((window.share * texture).masked_fill(hides, hidden))
        most.append(torch.full_like(darkest, window.share).masked_fill(hides, hidden))
        empty.append(is_background)
    least = torch.stack(allowed).amin(0)
    is_empty = torch.stack(empty).all(dim=0) | (least > 1)
    # A cell reaches halfway into its neighbours, and shows most in one of its corners.
    ever = -functional.max_pool2d(-torch.stack(most).amin(0), 6, 2, padding=2)[0, 0]
    cells = functional.adaptive_avg_pool2d(least.masked_fill(is_empty, 0.0), GRID_SIDE)
    ever = ever.clamp(max=1.0)
    return torch.minimum(cells[0, 0], ever), ever


def _texture(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return how much of a full step each place may take, and which are background.

    Texture hides a mark and smooth tissue shows it, so the limit grows with the local
    deviation; where nothing is going on at all there is no image to protect, the mark
    would be seen at once and read off by anyone: that is background.

    Args:
        image: ``(samples, SIDE, SIDE)``, 0..1.

    Returns:
        Two of ``(1, 1, SIDE, SIDE)``, 0..1 and bool.
    """
    grey = image.mean(dim=0)[None, None]
    mean = _blurred(grey, 9)
    deviation = (_blurred(grey * grey, 9) - mean * mean).clamp(min=0).sqrt()
    texture = LOWEST_LIMIT + (1 - LOWEST_LIMIT) * (deviation / FULL_DEVIATION).clamp(
        max=1
    )
    is_background = (deviation < FLAT_DEVIATION) & ((mean < 0.06) | (mean > 0.97))
    return texture, is_background


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
