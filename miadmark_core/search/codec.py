"""JPEG as far as a gradient can follow it: blocks, cosines, rounded coefficients.

The rounding is that of a real codec; the gradient passes through as if there were none
(a straight-through estimate). Chroma is neither separated nor thinned out: a mark that
lives in chroma alone is caught by the views that lose their colours.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

BLOCK: Final = 8

_LUMINANCE: Final = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""ITU-T T.81, table K.1: the steps of luminance at quality 50."""


def jpeg_like(x: Tensor, quality: int) -> Tensor:
    """Return pictures as they come back from a JPEG file, every sample as luminance.

    Args:
        x: ``(batch, channels, rows, columns)``, 0..1. Differentiable.
        quality: 1 to 100, as libjpeg scales the table.

    Returns:
        The same shape, 0..1.

    Source:
        ITU-T T.81, A.3.3 and A.3.4; the gradient of Shin and Song, 2017, "JPEG-resistant
        adversarial images", with a straight-through estimate.
    """
    rows, columns = x.shape[-2:]
    below, right = -rows % BLOCK, -columns % BLOCK
    planes = functional.pad(x, (0, right, 0, below), mode="replicate")
    planes = planes.flatten(0, 1)[:, None] * 255 - 128
    basis = _cosines().to(x)
    steps = _steps(quality).to(x)
    found = functional.conv2d(planes, basis, stride=BLOCK) / steps
    kept = found + (found.round() - found).detach()
    planes = functional.conv_transpose2d(kept * steps, basis, stride=BLOCK)
    back = ((planes + 128) / 255).clamp(0, 1)
    return back.reshape(*x.shape[:2], *back.shape[2:])[:, :, :rows, :columns]


@cache
def _cosines() -> Tensor:
    """Return the 64 orthonormal patterns of a block, ``(64, 1, 8, 8)``."""
    place = torch.arange(BLOCK)
    wave = torch.cos((2 * place + 1) * place[:, None] * math.pi / (2 * BLOCK))
    wave *= math.sqrt(2 / BLOCK)
    wave[0] *= math.sqrt(0.5)
    return torch.einsum("ur,vc->uvrc", wave, wave).reshape(-1, 1, BLOCK, BLOCK)


def _steps(quality: int) -> Tensor:
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    table = torch.tensor(_LUMINANCE, dtype=torch.float32)
    return ((table * scale + 50) / 100).floor().clamp(1, 255).view(-1, 1, 1)
