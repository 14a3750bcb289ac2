"""Where somebody drew a finding: the segmentations of a study, as masks of its images.

A mark goes half as far there as elsewhere. Only what is drawn on an image itself, pixel
for pixel, is taken over; a segmentation on other pixels, or of an image with several
frames, says nothing here. It is read as
it is: whether it is right is not known.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydicom import uid

from dicom_node.elements import Limits
from dicom_node.errors import NodeError
from dicom_node.instance import OpenInstance

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Regions = Mapping[str, NDArray[np.bool_]]
    """By SOP Instance UID of a single-frame image, ``(rows, columns)``."""


def drawn_regions(paths: Iterable[Path]) -> Regions:
    """Return what the segmentations among some files draw on which images.

    Args:
        paths: Of any files; those that hold no segmentation that can be read are left
            out, since marking them is another's business.
    """
    found: dict[str, NDArray[np.bool_]] = {}
    for path in paths:
        if _is_segmentation(path):
            for image, region in _drawn(path.read_bytes()).items():
                before = found.get(image)
                if before is None or before.shape != region.shape:
                    found[image] = region
                else:
                    found[image] = before | region
    return found


def _is_segmentation(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            start = stream.read(_HEAD)
        if uid.SegmentationStorage.encode() not in start:
            return False
        instance = OpenInstance.read(path, Limits())
        return instance.identity().sop_class_uid == uid.SegmentationStorage
    except (NodeError, OSError):
        return False


def _drawn(encoded: bytes) -> dict[str, NDArray[np.bool_]]:
    """Return each image's region in one segmentation, all of its segments together.

    Source:
        PS3.3 C.8.20.2 and C.7.6.16.2.6 (Derivation Image): what a frame was drawn on.
    """
    import highdicom as hd

    try:
        drawing: Any = hd.seg.segread(io.BytesIO(encoded))
        images = [image for _, _, image in drawing.get_source_image_uids()]
        masks = drawing.get_pixels_by_source_instance(
            source_sop_instance_uids=images,
            assert_missing_frames_are_empty=True,
        )
    except Exception:  # noqa: BLE001 whatever a library raises at an odd object
        return {}
    drawn = {
        str(image): np.asarray(np.any(mask != 0, axis=-1))
        for image, mask in zip(images, masks, strict=True)
    }
    # On an image that is only referred to nothing is drawn, and nothing is known of it.
    return {image: region for image, region in drawn.items() if region.any()}


_HEAD: Final = 4096
"""Bytes of a file that its meta information lies in."""
