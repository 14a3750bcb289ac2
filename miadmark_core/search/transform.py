"""Random changes that a mark has to survive on its way to a model.

Each step of the search sees the marked image through another one, so that what is found
holds on average over what users' software does, rather than for one network at one size
(expectation over transformation; Athalye et al., 2018, arXiv:1707.07397).
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

GREY_SHARE: Final = 0.25
"""How often coloured views are shown in grey."""


def transformed(
    views: Tensor, generator: torch.Generator, *, is_coloured: bool = False
) -> Tensor:
    """Return each view moved, turned, scaled, rescaled, relit and noisy at random.

    Args:
        views: ``(batch, 3, rows, columns)``, 0..1. Differentiable.
        generator: The only source of chance; on the CPU, so that every device draws
            the same.
        is_coloured: Whether to take the colour away now and then.

    Returns:
        The same shape, 0..1.
    """
    n, device = len(views), views.device

    def between(low: float, high: float) -> Tensor:
        drawn = torch.rand(n, generator=generator)
        return (low + (high - low) * drawn).to(device)

    if is_coloured and torch.rand((), generator=generator) < GREY_SHARE:
        views = views.mean(dim=1, keepdim=True).expand_as(views)
    x = _turned(
        views,
        angle=between(-math.radians(8), math.radians(8)),
        zoom=between(0.9, 1.1),
        right=between(-0.06, 0.06),
        down=between(-0.06, 0.06),
    )
    if torch.rand((), generator=generator) < 0.5:
        x = _softened(x, side=int(torch.randint(112, 200, (), generator=generator)))
    # The slope of a power is infinite at 0, so black is lifted a little first.
    x = x.clamp(1e-4, 1).pow(torch.exp(between(-0.2, 0.2)).view(-1, 1, 1, 1))
    noise = torch.randn(x.shape, generator=generator).to(device)
    return (x + noise * between(0, 0.02).view(-1, 1, 1, 1)).clamp(0, 1)


def _turned(
    x: Tensor, *, angle: Tensor, zoom: Tensor, right: Tensor, down: Tensor
) -> Tensor:
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    affine = torch.stack(
        [torch.stack([cos, -sin, right], 1), torch.stack([sin, cos, down], 1)], 1
    )
    grid = functional.affine_grid(affine, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False)


def _softened(x: Tensor, side: int) -> Tensor:
    """Return ``x`` scaled down to ``side`` and up again."""
    small = functional.interpolate(
        x, size=(side, side), mode="bilinear", antialias=True
    )
    return functional.interpolate(small, size=x.shape[-2:], mode="bilinear")
