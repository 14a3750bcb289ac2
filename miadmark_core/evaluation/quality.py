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

from miadmark_core.evaluation.purify import is_grey
from miadmark_core.metrics import similarity, ssim

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    """``(images, rows, columns, 3)``."""

LOCAL_SIDE: Final = 16
"""Rows and columns over which a local mean is taken."""

_SAMPLE: Final = 32
"""MS-SSIM and VIF are slow, and taken over so many images, evenly spread."""

_SCALES: Final = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""The weights of MS-SSIM's scales, from the finest."""

_FEW: Final = 3
_LEAST_SIDE: Final = 64
"""For so many scales a picture must have 44 rows and columns, for VIF 41."""


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
    lowest_region_psnr_db: float
    region_ssim: float
    region_ms_ssim: float
    """Of the box around the region, at the finest three of the five scales."""
    region_vif: float
    """Of the box."""
    region_largest_local_change: float


def quality(clean: Pixels, marked: Pixels, regions: NDArray[np.bool_]) -> Quality:
    """Return how much the marks show.

    Args:
        clean: The originals.
        marked: The same, marked. Same shape; at least 176 rows and columns.
        regions: Where the finding is, ``(images, rows, columns)``; not empty.

    Sources:
        MS-SSIM: Wang et al., 2003, "Multiscale structural similarity for image quality
        assessment". VIF: Sheikh and Bovik, 2006, "Image information and visual quality".
    """
    psnr, inside, similar, similar_inside = [], [], [], []
    local, local_inside = [], []
    for image, other, region in zip(clean, marked, regions, strict=True):
        error = (image.astype(np.float64) - other) ** 2
        psnr.append(_decibels(float(error.mean())))
        inside.append(_decibels(float(error[region].mean())))
        a, b = image.astype(np.float32) / 255, other.astype(np.float32) / 255
        similar.append(float(ssim(a, b)))
        similar_inside.append(float(similarity(a, b)[region].mean()))
        changes = local_changes(image, other)
        local.append(float(changes.max()))
        local_inside.append(float(changes[region].max()))
    slow = [
        (clean[i], marked[i], _box(regions[i]))
        for i in np.unique(np.linspace(0, len(clean) - 1, _SAMPLE).astype(int))
    ]
    whole = [_structure(x, y, _SCALES) for x, y, _ in slow]
    boxed = [_structure(x[box], y[box], _SCALES[:_FEW]) for x, y, box in slow]
    (multiscale, fidelity), (multiscale_inside, fidelity_inside) = (
        np.median(found, axis=0).tolist() for found in (whole, boxed)
    )
    return Quality(
        psnr_db=float(np.median(psnr)),
        lowest_psnr_db=min(psnr),
        ssim=float(np.median(similar)),
        ms_ssim=multiscale,
        vif=fidelity,
        largest_local_change=max(local),
        region_psnr_db=float(np.median(inside)),
        lowest_region_psnr_db=min(inside),
        region_ssim=float(np.median(similar_inside)),
        region_ms_ssim=multiscale_inside,
        region_vif=fidelity_inside,
        region_largest_local_change=max(local_inside),
    )


def _structure(
    clean: NDArray[np.uint8], marked: NDArray[np.uint8], scales: tuple[float, ...]
) -> tuple[float, float]:
    """Return MS-SSIM and VIF of one picture, each the mean over its samples."""
    samples = 1 if is_grey(clean) and is_grey(marked) else clean.shape[-1]
    x, y = (
        torch.from_numpy(np.moveaxis(v[..., :samples], -1, 0).astype(np.float32))
        for v in (clean, marked)
    )
    x, y = x[:, None], y[:, None]
    betas = tuple(weight / sum(scales) for weight in scales)
    return (
        float(
            multiscale_structural_similarity_index_measure(
                y, x, data_range=255.0, betas=betas
            )
        ),
        float(visual_information_fidelity(y, x)),
    )


def _box(region: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the rows and columns around a region, enough for what looks at them."""
    rows, columns = (
        _span(np.flatnonzero(region.any(axis=axis)), region.shape[1 - axis])
        for axis in (1, 0)
    )
    return rows, columns


def _span(inside: NDArray[np.intp], side: int) -> slice:
    first, last = int(inside[0]), int(inside[-1]) + 1
    middle, size = (first + last) // 2, max(last - first, _LEAST_SIDE)
    start = min(max(middle - size // 2, 0), max(side - size, 0))
    return slice(start, start + size)


def local_changes(
    clean: NDArray[np.uint8], marked: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Return by how many grey levels local means changed.

    Args:
        clean: One picture, ``(rows, columns, 3)``.
        marked: The same, marked.

    Returns:
        ``(rows, columns)``; the highest of the three samples.
    """
    change = marked.astype(np.float64) - clean
    means = uniform_filter(change, (LOCAL_SIDE, LOCAL_SIDE, 1), mode="nearest")
    highest: NDArray[np.float64] = np.abs(means).max(axis=-1)
    return highest


def _decibels(mean_square: float) -> float:
    """Return the PSNR for 255 grey levels; 99 where nothing changed, as JSON wants."""
    return 99.0 if mean_square == 0 else float(10 * np.log10(255**2 / mean_square))
