"""Which objects hold labels or quantities in their pixels, and no picture to protect."""

from __future__ import annotations

from typing import Final

from pydicom import uid

LABELS: Final = frozenset(
    {
        uid.SegmentationStorage,
        uid.UID("1.2.840.10008.5.1.4.1.1.66.7"),  # Label Map Segmentation Storage
        uid.SurfaceSegmentationStorage,
        uid.ParametricMapStorage,
        uid.RTDoseStorage,
    }
)
"""Objects whose pixels are labels or quantities: a mark would change what they say, and
there is no picture in them that a classifier would diagnose."""
