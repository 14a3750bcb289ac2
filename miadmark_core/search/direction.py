"""Where a step of the search goes: directions with the spectrum and cells of a mark.

Nothing here knows who pulls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

    from miadmark_core.search.effort import Effort


def shaped(direction: Tensor, effort: Effort) -> Tensor:
    """Return ``direction`` with the spectrum and the cells that a mark is to have."""
    side = direction.shape[-1]
    if effort.slope:
        down = torch.fft.fftfreq(side, 1 / side, device=direction.device)[:, None]
        across = torch.fft.rfftfreq(side, 1 / side, device=direction.device)
        frequency = (down.square() + across.square()).sqrt().clamp(min=1)
        waves = torch.fft.rfft2(direction) * frequency**-effort.slope
        direction = torch.fft.irfft2(waves, s=(side, side))
    return in_cells(direction, effort)


def in_cells(grid: Tensor, effort: Effort) -> Tensor:
    """Return ``grid`` with as many different cells as it is to have."""
    side = grid.shape[-1]
    if effort.cells >= side:
        return grid
    one = functional.avg_pool2d(grid, side // effort.cells)
    return functional.interpolate(one, (side, side), mode="nearest")


def normalised(direction: Tensor) -> Tensor:
    """Return ``direction`` with a root mean square of 1 for each image."""
    size = direction.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return direction / size.clamp(min=1e-12)
