"""Which stored values a viewer shows as black and white, and how strong a mark may be.

A mark is measured against what is seen, so its strength is a share of the display
window. Where an object names several windows, the first is what a viewer opens with.
A window that misses the image altogether, or that is missing, is replaced by the range
of the image itself (without padding), and no mark is ever stronger than that range
allows, since a wide window on a flat image would drown it.

VOI LUTs and lookup tables are not read yet: the range of the image stands in for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from pydicom.multival import MultiValue

from miadmark_core.image import DisplayWindow

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from dicom_node.pixel_data import PixelLayout
    from miadmark_core.image import HostImage, StoredValues

TAGS: Final = (
    0x00281050,  # Window Center
    0x00281051,  # Window Width
    0x00281052,  # Rescale Intercept
    0x00281053,  # Rescale Slope
)

BUDGET: Final = 8 / 255
"""The largest share of the display window that a mark may add or take away."""

FEWEST_VALUES: Final = 16
"""An image of fewer grey levels is a mask or a label map, and not marked."""


class Presentation(NamedTuple):
    """How an image is shown, and what that leaves for a mark."""

    window: DisplayWindow
    peak: int
    """Stored values that a full step may add; 0 where there is no room for a mark."""


def presentation(
    image: HostImage, attributes: Dataset, layout: PixelLayout
) -> Presentation:
    """Return the window an image opens with, in stored values, and the mark's peak.

    Source:
        PS3.3 C.11.2.1.2 for the linear window, C.11.1.1.2 for the rescale.
    """
    is_inverted = layout.photometric_interpretation == "MONOCHROME1"
    if layout.samples == 3:
        lower, upper = layout.values
        return Presentation(
            DisplayWindow(lower, upper, is_inverted), int(BUDGET * (upper - lower))
        )
    lowest, highest = _range(image)
    named = _named_window(attributes)
    if named is None or named[1] <= lowest or named[0] >= highest:
        named = (lowest, highest)
    width = min(named[1] - named[0], highest - lowest)
    peak = int(BUDGET * width + 1e-9)
    if peak == 0 and width >= FEWEST_VALUES:
        peak = 1  # the smallest change there is
    return Presentation(DisplayWindow(*named, is_inverted), peak)


def _range(image: HostImage) -> tuple[float, float]:
    """Return the lowest and highest value that is not padding; apart by at least 1."""
    pixels: StoredValues = image.pixels
    if image.padding is not None:
        lower, upper = image.padding
        inside = pixels[(pixels < lower) | (pixels > upper)]
        pixels = inside if inside.size else pixels
    lowest, highest = int(pixels.min()), int(pixels.max())
    return float(lowest), float(max(highest, lowest + 1))


def _named_window(attributes: Dataset) -> tuple[float, float] | None:
    """Return the ends of the first window, in stored values; None if there is none."""
    try:
        center, width = (
            float(_first(attributes[tag].value)) for tag in (0x00281050, 0x00281051)
        )
        slope = float(attributes.get("RescaleSlope") or 1)
        intercept = float(attributes.get("RescaleIntercept") or 0)
    except (KeyError, TypeError, ValueError):
        return None
    if not np.isfinite([center, width, slope, intercept]).all() or width <= 1:
        return None
    middle, half = center - 0.5, (width - 1) / 2
    ends = sorted(
        ((middle - half - intercept) / slope, (middle + half - intercept) / slope)
    )
    return ends[0], ends[1]


def _first(value: object) -> float:
    return float(value[0] if isinstance(value, MultiValue) else value)  # type: ignore[arg-type]
