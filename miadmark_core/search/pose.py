"""Where a logo lies on an image, how large, at what angle and how opaque: its pose.

A pose is six numbers in 0..1, so that whoever searches needs to know no units; all but
the choice of the logo can be differentiated.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from miadmark_core.search.artwork import logos

GENES: Final = 6
"""Right, down, size, angle, opacity, logo."""

SMALLEST: Final = 0.14
LARGEST: Final = 0.34
"""The side of a logo, of the side of a square with the area of the image."""

MOST_TURNED: Final = math.radians(45)

FAINTEST: Final = 0.4
MOST_OPAQUE: Final = 0.9
"""Opacity: never so faint that the logo is no notice, never so strong that what is
under it could not be guessed at."""


def rendered(poses: Tensor, aspect: Tensor, side: int) -> Tensor:
    """Return the logos drawn at their poses, before anything is out of bounds.

    Args:
        poses: ``(batch, logos, GENES)``, 0..1. Differentiable.
        aspect: Columns a row of each image, ``(batch,)``: a logo keeps its shape there,
            not in the square that is drawn.
        side: Rows and columns of the result.

    Returns:
        ``(batch, 1, side, side)``, -1 opaque black to 1 opaque white; where two
        overlap, their sum.
    """
    n, copies = poses.shape[:2]
    right, down, size, angle, opacity, logo = poses.flatten(0, 1).unbind(dim=1)
    drawings = torch.stack([torch.from_numpy(drawing) for drawing in logos().values()])
    chosen = (logo.detach() * len(drawings)).long().clamp(max=len(drawings) - 1)
    # From places in the square to places in the logo, both from -1 to 1.
    half = SMALLEST + (LARGEST - SMALLEST) * size
    turn = (2 * angle - 1) * MOST_TURNED
    cos, sin = torch.cos(turn) / half, torch.sin(turn) / half
    wider = aspect.sqrt().repeat_interleave(copies)
    turned = torch.stack(
        [
            torch.stack([cos * wider, sin / wider], dim=1),
            torch.stack([-sin * wider, cos / wider], dim=1),
        ],
        dim=1,
    )
    centre = torch.stack([2 * right - 1, 2 * down - 1], dim=1)[..., None]
    grid = functional.affine_grid(
        torch.cat([turned, -turned @ centre], dim=2),
        [n * copies, 1, side, side],
        align_corners=False,
    )
    cover = functional.grid_sample(
        drawings.to(poses.device)[chosen][:, None], grid, align_corners=False
    )
    signed = 2 * opacity - 1
    strength = FAINTEST + (MOST_OPAQUE - FAINTEST) * signed.abs()
    strength = torch.where(signed < 0, -strength, strength)
    drawn = (strength.view(-1, 1, 1, 1) * cover).view(n, copies, 1, side, side)
    return drawn.sum(dim=1).clamp(-MOST_OPAQUE, MOST_OPAQUE)


def blended(pixels: Tensor, opacity: Tensor) -> Tensor:
    """Return ``pixels`` with white or black blended over them. Differentiable.

    Args:
        pixels: ``(batch, 3, side, side)``, 0..1.
        opacity: ``(batch, 1, side, side)``, -1 opaque black to 1 opaque white.
    """
    white, black = torch.relu(opacity), torch.relu(-opacity)
    return pixels + white * (1 - pixels) - black * pixels
