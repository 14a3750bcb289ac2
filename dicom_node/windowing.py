"""Which stored values a viewer shows as black and white, and how strong a mark may be.

A mark is measured against what is seen, so its strength is a share of the display
window. Where an object names several windows, the first is what a viewer opens with;
enhanced multi-frame objects name one for each frame. Lookup tables count as the window
that reaches from their first shade to their last. A window that misses the image
altogether, or that is missing, is replaced by the range of the image itself (without
padding), and no mark is ever stronger than that range allows, since a wide window on a
flat image would drown it.

A tone curve between black and white is taken for a straight line here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from dicom_node.looks import BUDGET, Look, Presentation, ct_looks, look
from miadmark_core.image import DisplayWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dicom_node.pixel_layout import PixelLayout
    from miadmark_core.image import HostImage, StoredValues, ValueRange

TAGS: Final = (
    0x00080060,  # Modality
    0x00281050,  # Window Center
    0x00281051,  # Window Width
    0x00281052,  # Rescale Intercept
    0x00281053,  # Rescale Slope
    0x00281054,  # Rescale Type
    0x00281056,  # VOI LUT Function
    0x00283000,  # Modality LUT Sequence
    0x00283010,  # VOI LUT Sequence
)

_WINDOW_WIDTH, _VOI_LUT = 0x00281051, 0x00283010

GROUPS: Final = (
    0x52009229,  # Shared Functional Groups Sequence
    0x52009230,  # Per-Frame Functional Groups Sequence
)
"""Where enhanced objects keep the same, for all frames or for each."""

_MACROS: Final = ("FrameVOILUTSequence", "PixelValueTransformationSequence")
"""PS3.3 C.7.6.16.2.10 and C.7.6.16.2.9."""


def presentations(
    image: HostImage, attributes: Dataset, layout: PixelLayout
) -> list[Presentation]:
    """Return the window each frame opens with, in stored values, and the mark's peak.

    Args:
        image: Of all frames.
        attributes: With those of :data:`TAGS` and :data:`GROUPS`.
        layout: Of the pixels.

    Source:
        PS3.3 C.11.2.1.2 for the window, C.11.1.1.2 for the rescale.
    """
    is_inverted = layout.photometric_interpretation == "MONOCHROME1"
    if layout.samples == 3:
        lower, upper = layout.values
        window = DisplayWindow(lower, upper, is_inverted)
        one = Presentation.of(window, int(BUDGET * (upper - lower)))
        return [one] * layout.frames
    ranges = list(_ranges(image))
    whole = (min(low for low, _ in ranges), max(high for _, high in ranges))
    own = _of_each_frame(attributes, layout)
    if len(own) == 1:
        named = _named_look(own[0], whole, layout, is_inverted=is_inverted)
        sample = _sample(image, range(layout.frames))
        more = ct_looks(own[0], _rescale(own[0]), whole, named, sample)
        return [Presentation((named, *more))] * layout.frames
    # Frames with windows of their own are of different kinds, so each has its range.
    found = []
    for number, (each, span) in enumerate(zip(own, ranges, strict=True)):
        named = _named_look(each, span, layout, is_inverted=is_inverted)
        sample = _sample(image, [number])
        more = ct_looks(each, _rescale(each), span, named, sample)
        found.append(Presentation((named, *more)))
    return found


def _named_look(
    attributes: Dataset,
    span: tuple[float, float],
    layout: PixelLayout,
    *,
    is_inverted: bool,
) -> Look:
    """Return the look that the attributes name."""
    lowest, highest = span
    named, is_falling = _named_window(attributes, layout.values)
    if named is None or named[1] <= lowest or named[0] >= highest:
        named = span
    window = DisplayWindow(*named, is_inverted != is_falling)
    return look(window, span)


_FRAMES_LOOKED_AT: Final = 8


def _sample(image: HostImage, numbers: Sequence[int]) -> Callable[[], StoredValues]:
    """Return what gives the values of some of the frames, padding left out."""

    def values() -> StoredValues:
        step = -(-len(numbers) // _FRAMES_LOOKED_AT)
        frames = [image.pixels[number].ravel() for number in numbers[::step]]
        found: StoredValues = np.concatenate(frames)
        if image.padding is not None:
            lower, upper = image.padding
            found = found[(found < lower) | (found > upper)]
        return found

    return values


def _ranges(image: HostImage) -> Iterator[tuple[float, float]]:
    """Yield the lowest and highest value of each frame that is not padding; apart."""
    for frame in image.pixels:
        pixels: StoredValues = frame
        if image.padding is not None:
            lower, upper = image.padding
            inside = pixels[(pixels < lower) | (pixels > upper)]
            pixels = inside if inside.size else pixels
        lowest, highest = int(pixels.min()), int(pixels.max())
        yield float(lowest), float(max(highest, lowest + 1))


def _of_each_frame(attributes: Dataset, layout: PixelLayout) -> Sequence[Dataset]:
    """Return what says how each frame is shown: one data set if all are shown alike."""
    shared = _macros(attributes.get("SharedFunctionalGroupsSequence"))
    own = attributes.get("PerFrameFunctionalGroupsSequence") or []
    base = _merged(attributes, *(m for group in shared for m in group))
    if len(own) != layout.frames:
        return [base]
    groups = [_macros([item])[0] for item in own]
    merged = [_merged(base, *group) for group in groups]
    # Without a window of their own they are shown as one picture is.
    is_windowed = any(_WINDOW_WIDTH in m or _VOI_LUT in m for m in merged)
    return merged if is_windowed else merged[:1]


def _macros(groups: Sequence[Dataset] | None) -> list[list[Dataset]]:
    return [
        [item for name in _MACROS for item in (group.get(name) or [])[:1]]
        for group in groups or []
    ]


def _merged(*parts: Dataset) -> Dataset:
    """Return the attributes that say how a frame is shown; the last of each counts."""
    merged = Dataset()
    # Whether the words of a table are big-endian; those made here are not.
    is_little_endian = parts[0].original_encoding[1] is not False
    merged.set_original_encoding(
        is_implicit_vr=False, is_little_endian=is_little_endian
    )
    for part in parts:
        for tag in TAGS:
            if tag in part:
                merged[tag] = part[tag]
    return merged


def _named_window(
    attributes: Dataset, values: ValueRange
) -> tuple[tuple[float, float] | None, bool]:
    """Return the ends of the first window, in stored values; None if there is none.

    Returns:
        The ends, and whether higher stored values are shown darker.
    """
    if any(attributes.get(name) for name in ("ModalityLUTSequence", "VOILUTSequence")):
        return _window_of_tables(attributes, values)
    ends, rescale = _window(attributes), _rescale(attributes)
    if ends is None or rescale is None:
        return None, False
    slope, intercept = rescale
    lower, upper = sorted((end - intercept) / slope for end in ends)
    return (lower, upper), slope < 0


def _rescale(attributes: Dataset) -> tuple[float, float] | None:
    """Return slope and intercept; None if they are no numbers."""
    try:
        slope = float(attributes.get("RescaleSlope") or 1)
        intercept = float(attributes.get("RescaleIntercept") or 0)
    except (TypeError, ValueError):
        return None
    return (slope, intercept) if np.isfinite([slope, intercept]).all() else None


def _window(attributes: Dataset) -> tuple[float, float] | None:
    """Return the ends of the first window after the rescale; None if there is none."""
    try:
        center, width = (
            float(_first(attributes[tag].value)) for tag in (0x00281050, 0x00281051)
        )
    except (KeyError, TypeError, ValueError):
        return None
    is_linear = str(attributes.get("VOILUTFunction") or "LINEAR") == "LINEAR"
    if not np.isfinite([center, width]).all() or width <= is_linear:
        return None
    # LINEAR counts the values themselves; LINEAR_EXACT and SIGMOID do not.
    middle, half = (center - 0.5, (width - 1) / 2) if is_linear else (center, width / 2)
    return middle - half, middle + half


def _window_of_tables(
    attributes: Dataset, values: ValueRange
) -> tuple[tuple[float, float] | None, bool]:
    """Return the same where lookup tables are part of it (PS3.3 C.11.1, C.11.2).

    Every stored value goes through them; the window is where shades change.
    """
    stored = np.arange(values.lower, values.upper + 1)
    try:
        shades = apply_modality_lut(stored, attributes)
        if attributes.get("VOILUTSequence"):
            shades = apply_voi_lut(shades, attributes)
        elif (ends := _window(attributes)) is not None:
            shades = np.clip(shades, *ends)
    except Exception:  # noqa: BLE001 a table that cannot be read shows nothing
        return None, False
    shades = np.asarray(shades, np.float64)
    dark, bright = shades.min(), shades.max()
    if not np.isfinite([dark, bright]).all() or dark == bright:
        return None, False
    is_falling = bool(shades[0] > shades[-1])
    if is_falling:
        shades = dark + bright - shades
    margin = (bright - dark) / 510  # less than half a shade of a screen
    above = np.flatnonzero(shades > dark + margin)
    below = np.flatnonzero(shades < bright - margin)
    first, last = max(int(above[0]) - 1, 0), min(int(below[-1]) + 1, len(stored) - 1)
    if last <= first:
        return None, False
    return (float(stored[first]), float(stored[last])), is_falling


def _first(value: object) -> float:
    return float(value[0] if isinstance(value, MultiValue) else value)  # type: ignore[arg-type]
