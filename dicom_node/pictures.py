"""What a viewer shows of a file, as a picture to train on; nothing is kept or sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dicom_node import pixel_data, pixel_layout, private_block, windowing
from dicom_node.decompression import decompressed
from dicom_node.elements import Limits
from dicom_node.instance import OpenInstance
from dicom_node.quantities import CLASSES

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image


def picture_in(path: Path) -> Image.Image | None:
    """Return the picture in a file: the middle frame of a DICOM object, or a PNG, a JPEG.

    None where there is none, or none that this version can read; where it is a label map
    rather than a picture; and where it is marked already.
    """
    from PIL import Image

    from miadmark_core.training.site_images import read_picture

    content = path.read_bytes()
    if content[128:132] != b"DICM":
        return read_picture(path)
    try:
        instance = decompressed(OpenInstance.of(content, Limits()))
        if (
            instance.identity().sop_class_uid in CLASSES
            or private_block.find(instance.elements) is not None
        ):
            return None
        attributes = instance.attributes(
            *pixel_layout.TAGS, *windowing.TAGS, *windowing.GROUPS
        )
        pixel_layout.require_picture(instance.elements)
        layout = pixel_layout.layout_of(attributes)
        native, layout = pixel_data.native(
            instance.elements, layout, instance.file.transfer_syntax
        )
        if layout.photometric_interpretation == pixel_layout.PALETTE:
            return None
        middle = layout.frames // 2
        if layout.is_luminance:
            shown = pixel_data.coloured(native, layout)(middle)
        else:
            image = pixel_data.image_in(native, layout)
            shows = windowing.presentations(image, attributes, layout)
            shown = shows[middle].window.shown(image.pixels[middle])
    except Exception:  # noqa: BLE001 one odd object must not stop a training
        return None
    grey = np.rint(255 * shown).astype(np.uint8)
    return Image.fromarray(np.broadcast_to(grey, (*grey.shape[:2], 3)).copy())
