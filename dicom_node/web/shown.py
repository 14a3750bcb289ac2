"""What a viewer shows of an object, as PNG: one frame, through a window. Pure.

Pixels are decoded as they are for marking, by the same code and within the same limits.
Window centres and widths are told after the rescale where there is one (CT: Hounsfield
units), as viewers tell them.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from PIL import Image

from dicom_node import palette, pixel_data, pixel_layout, windowing
from dicom_node.decompression import decompressed
from dicom_node.elements import PIXEL_DATA
from dicom_node.errors import UnsupportedPixelDataError
from miadmark_core.image import DisplayWindow

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from dicom_node.decoding import Decode
    from dicom_node.instance import OpenInstance
    from miadmark_core.image import HostImage

    Shown = NDArray[np.float32]

LARGEST: Final = 1024
"""Rows and columns of a picture that is sent to a browser, at most."""
MOST_DECODED: Final = 1 << 28
"""Bytes of all frames of an object that is looked at."""
AMPLIFIED: Final = 8
"""A difference is shown this many times as strong, around middle grey."""


class Window(NamedTuple):
    """Which values are shown, as people say it."""

    center: float
    width: float


class Viewed(NamedTuple):
    """An object, opened to be looked at."""

    image: HostImage
    opens_with: tuple[DisplayWindow, ...]
    """Of each frame; in stored values."""
    slope: float
    intercept: float
    colours: Callable[[int], Shown] | None
    """Of pictures that are shown in colours other than their values; 0..1."""

    @property
    def frames(self) -> int:
        """Return how many there are."""
        return len(self.opens_with)

    def window(self, frame: int) -> Window:
        """Return the window that a frame opens with."""
        lower, upper, _ = self.opens_with[frame]
        return Window(
            (lower + upper) / 2 * self.slope + self.intercept,
            (upper - lower) * self.slope,
        )

    def shown(self, frame: int, window: Window) -> Shown:
        """Return what is shown of a frame: ``(rows, columns, samples)``, 0..1."""
        if self.colours is not None:
            return self.colours(frame)
        center = (window.center - self.intercept) / self.slope
        half = max(window.width / self.slope, 1.0) / 2
        is_inverted = self.opens_with[frame].is_inverted
        wanted = DisplayWindow(center - half, center + half, is_inverted)
        return wanted.shown(self.image.pixels[frame])


def viewed(instance: OpenInstance, decode: Decode) -> Viewed:
    """Return an object, to be looked at.

    Args:
        instance: Not modified.
        decode: Calls the codecs.

    Raises:
        FilterError: It has no picture, or none that this version reads.
    """
    pixel_layout.require_picture(instance.elements)
    _require_small(instance.attributes(*pixel_layout.TAGS))
    instance = decompressed(instance, decode)
    attributes = instance.attributes(
        *pixel_layout.TAGS, *palette.TAGS, *windowing.TAGS, *windowing.GROUPS
    )
    layout = pixel_layout.layout_of(attributes)
    native, layout = pixel_data.native(
        instance.elements, layout, instance.file.transfer_syntax
    )
    decoded = pixel_data.decode(native, layout)
    image = decoded.image
    if layout.photometric_interpretation == pixel_layout.PALETTE:
        element = instance.elements.get(PIXEL_DATA)
        tail, vr = bytes(native[layout.size :]), element.vr if element else ""
        image, _ = palette.coloured(decoded, attributes, tail=tail, vr=vr)
        layout = palette.sent_layout(layout)
    slope, intercept = _rescale(attributes)
    return Viewed(
        image,
        tuple(one.window for one in windowing.presentations(image, attributes, layout)),
        slope,
        intercept,
        pixel_data.coloured(native, layout) if layout.is_luminance else None,
    )


def _require_small(attributes: Dataset) -> None:
    """Return if all frames, decoded, are few enough bytes to be held in memory.

    Raises:
        UnsupportedPixelDataError: They are more.
    """
    try:
        size = int(attributes.Rows) * int(attributes.Columns)
        size *= int(attributes.SamplesPerPixel) * int(attributes.BitsAllocated) // 8
        size *= int(attributes.get("NumberOfFrames") or 1)
    except (AttributeError, TypeError, ValueError):
        return  # whoever decodes says what is wrong
    if size > MOST_DECODED:
        raise UnsupportedPixelDataError(
            f"the picture takes {size >> 20} MB, too much to be looked at here",
            hint="Pictures of up to 256 MB are shown; a viewer shows larger ones.",
        )


def difference(original: Shown, marked: Shown) -> Shown:
    """Return the difference of two pictures, amplified."""
    changed: Shown = np.clip(0.5 + AMPLIFIED * (marked - original), 0, 1)
    return changed


def png(shown: Shown) -> bytes:
    """Return a picture as PNG."""
    pixels = np.rint(shown * 255).astype(np.uint8)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    picture.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _rescale(attributes: Dataset) -> tuple[float, float]:
    """Return what makes stored values those that people name; 1 and 0 if nothing does."""
    try:
        slope = float(attributes.get("RescaleSlope") or 1)
        intercept = float(attributes.get("RescaleIntercept") or 0)
    except (TypeError, ValueError):
        return 1.0, 0.0
    is_usable = bool(np.isfinite([slope, intercept]).all()) and slope > 0
    return (slope, intercept) if is_usable else (1.0, 0.0)
