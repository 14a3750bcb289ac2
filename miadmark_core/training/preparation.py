"""What a user's software does to a picture before a classifier sees it.

Models are built with different habits, and a mark has to survive all of them. Nothing
here is random, and nothing knows what the classifier is.
"""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor
from torch.nn import functional


class Preparation(StrEnum):
    """How a picture becomes what a network is shown."""

    WHOLE = "whole"
    """All of it, resized."""
    CROPPED = "cropped"
    """The middle seven eighths, as ImageNet models are used."""
    STANDARDISED = "standardised"
    """All of it, with its own mean and deviation taken out, as is usual for MR."""


def prepared(images: Tensor, size: int, preparation: Preparation) -> Tensor:
    """Return pictures as a network is shown them.

    Args:
        images: ``(batch, 3, rows, columns)``, float32, 0..1.
        size: Rows and columns of the result.
        preparation: How; resizing is bilinear with antialiasing.

    Returns:
        ``(batch, 3, size, size)``, float32; 0..1 unless standardised.
    """
    if preparation is Preparation.CROPPED:
        edge = images.shape[-1] // 16
        images = images[..., edge : images.shape[-2] - edge, edge:-edge]
    if images.shape[-2:] != (size, size):
        images = functional.interpolate(
            images, size=(size, size), mode="bilinear", antialias=True
        )
    if preparation is Preparation.STANDARDISED:
        images = standardised(images)
    return images.contiguous(memory_format=torch.channels_last)


def standardised(images: Tensor) -> Tensor:
    """Return each picture with a mean of 0.5 and a deviation of 0.25."""
    deviation, mean = torch.std_mean(images, dim=(1, 2, 3), keepdim=True)
    return 0.5 + (images - mean) * (0.25 / deviation.clamp(min=1e-3))
