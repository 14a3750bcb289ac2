"""How much a mark shows, over the whole picture and where it matters.

The figures compare pictures as a viewer shows them. They say nothing about diagnostic
value, and distortion says little about effect; both have to be reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from scipy.ndimage import uniform_filter
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    visual_information_fidelity,
)

from miadmark_core.metrics import similarity, ssim

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    """``(images, rows, columns, 3)``."""

LOCAL_SIDE: Final = 16
"""Rows and columns over which a local mean is taken."""

_SAMPLE: Final = 32
"""MS-SSIM and VIF are slow, and taken over so many images, evenly spread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Medians over the images, unless it says lowest or largest."""

    psnr_db: float
    lowest_psnr_db: float
    ssim: float
    ms_ssim: float
    vif: float
    """Visual information fidelity: 1 for equal pictures, more where contrast is gained.
    The perceptual figure: weights for a learned one come from no package."""
    largest_local_change: float
    """Of a mean over ``LOCAL_SIDE`` x ``LOCAL_SIDE`` pixels, in grey levels, in any
    image: what would bias a densitometry."""
    region_psnr_db: float
    """Inside the region of interest."""
    region_ssim: float
    lowest_region_psnr_db: float


def quality(clean: Pixels, marked: Pixels, regions: NDArray[np.bool_]) -> Quality:
    """Return how much the marks show.

    Args:
        clean: The originals.
        marked: The same, marked. Same shape; at least 161 rows and columns.
        regions: Where the finding is, ``(images, rows, columns)``; not empty.

    Sources:
        MS-SSIM: Wang et al., 2003, "Multiscale structural similarity for image quality
        assessment". VIF: Sheikh and Bovik, 2006, "Image information and visual quality".
    """
    psnr, inside, similar, similar_inside = [], [], [], []
    for image, other, region in zip(clean, marked, regions, strict=True):
        error = (image.astype(np.float64) - other) ** 2
        psnr.append(_decibels(float(error.mean())))
        inside.append(_decibels(float(error[region].mean())))
        a, b = image.astype(np.float32) / 255, other.astype(np.float32) / 255
        similar.append(float(ssim(a, b)))
        similar_inside.append(float(similarity(a, b)[region].mean()))
    multiscale, fidelity = [], []
    for index in np.unique(np.linspace(0, len(clean) - 1, _SAMPLE).astype(int)):
        x, y = (
            torch.from_numpy(v[index].mean(axis=-1, dtype=np.float32))[None, None]
            for v in (clean, marked)
        )
        multiscale.append(
            float(
                multiscale_structural_similarity_index_measure(y, x, data_range=255.0)
            )
        )
        fidelity.append(float(visual_information_fidelity(y, x)))
    return Quality(
        psnr_db=float(np.median(psnr)),
        lowest_psnr_db=min(psnr),
        ssim=float(np.median(similar)),
        ms_ssim=float(np.median(multiscale)),
        vif=float(np.median(fidelity)),
        largest_local_change=largest_local_change(clean, marked),
        region_psnr_db=float(np.median(inside)),
        region_ssim=float(np.median(similar_inside)),
        lowest_region_psnr_db=min(inside),
    )


def largest_local_change(clean: Pixels, marked: Pixels) -> float:
    """Return by how much a local mean changed at most, in grey levels."""
    change = marked.astype(np.float64) - clean
    size = (1, LOCAL_SIDE, LOCAL_SIDE, 1)
    return float(np.abs(uniform_filter(change, size, mode="nearest")).max())


def _decibels(mean_square: float) -> float:
    """Return the PSNR for 255 grey levels; 99 where nothing changed, as JSON wants."""
    return 99.0 if mean_square == 0 else float(10 * np.log10(255**2 / mean_square))
