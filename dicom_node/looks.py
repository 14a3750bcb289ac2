"""How an image is looked at, and how strong a mark may be there.

A mark is measured against what is seen, so its strength is a share of the display
window, and never more than the range of the image allows: a wide window on a flat image
would drown it.

CT is read through several windows, and models apply their own: a mark measured against
soft tissue is lost in a lung window, and one measured against lungs is coarse in soft
tissue. So a CT image is looked at through both, beside what it names, wherever it has
something to show there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydicom.dataset import Dataset

    from miadmark_core.image import DisplayWindow, StoredValues

BUDGET: Final = 8 / 255
"""The largest share of the display window that a mark may add or take away."""

FEWEST_VALUES: Final = 16
"""An image of fewer grey levels is a mask or a label map, and not marked."""


CT_WINDOWS: Final = ((-1350.0, 150.0), (-150.0, 250.0))
"""Lungs (width 1500, level -600) and soft tissue (400, 50), in Hounsfield units.

Source:
    Radiopaedia.org, "Windowing (CT)": chest and abdomen.
"""

_LEAST_SHOWN: Final = 0.05
"""The share of an image that a window must neither show black nor white."""


class Look(NamedTuple):
    """One way in which an image is looked at."""

    window: DisplayWindow
    peak: int
    """Stored values that a mark may add where this window shows it."""


class Presentation(NamedTuple):
    """How an image is shown, and what that leaves for a mark."""

    looks: tuple[Look, ...]
    """The first is what a viewer opens with."""

    @classmethod
    def of(cls, window: DisplayWindow, peak: int) -> Presentation:
        """Return the presentation by one window."""
        return cls((Look(window, peak),))

    @property
    def window(self) -> DisplayWindow:
        """Return the window that a viewer opens with."""
        return self.looks[0].window

    @property
    def peak(self) -> int:
        """Return the stored values that a full step adds; 0 if there is no room."""
        return max(one.peak for one in self.looks)

    @property
    def whole(self) -> DisplayWindow:
        """Return the window that shows whatever one of the looks shows."""
        windows = [one.window for one in self.looks]
        lower, upper = min(w.lower for w in windows), max(w.upper for w in windows)
        return self.window._replace(lower=lower, upper=upper)


def look(window: DisplayWindow, span: tuple[float, float]) -> Look:
    """Return what a window leaves for a mark on an image of values from ``span``."""
    width = min(window.width, span[1] - span[0])
    peak = int(BUDGET * width + 1e-9)
    if peak == 0 and width >= FEWEST_VALUES:
        peak = 1  # the smallest change there is
    return Look(window, peak)


def ct_looks(
    attributes: Dataset,
    rescale: tuple[float, float] | None,
    span: tuple[float, float],
    named: Look,
    sample: Callable[[], StoredValues],
) -> tuple[Look, ...]:
    """Return how else a CT image is looked at: where it shows something new there.

    Args:
        attributes: Of the frame.
        rescale: Slope and intercept, if they are numbers.
        span: Lowest and highest stored value.
        named: How a viewer opens it.
        sample: Gives stored values of it; asked only where it is a CT image.
    """
    is_ct = str(attributes.get("Modality") or "") == "CT"
    if not is_ct or str(attributes.get("RescaleType") or "HU") != "HU":
        return ()
    if rescale is None or rescale[0] <= 0 or attributes.get("ModalityLUTSequence"):
        return ()
    slope, intercept = rescale
    values = sample()
    found: list[Look] = []
    for ends in CT_WINDOWS:
        lower, upper = ((end - intercept) / slope for end in ends)
        window = named.window._replace(lower=lower, upper=upper)
        shown = np.count_nonzero((values > lower) & (values < upper))
        is_new = all(_overlap(window, one.window) < 0.5 for one in (named, *found))
        if is_new and shown >= _LEAST_SHOWN * values.size:
            found.append(look(window, span))
    return tuple(found)


def _overlap(one: DisplayWindow, other: DisplayWindow) -> float:
    """Return what two windows share, of what they span together."""
    shared = min(one.upper, other.upper) - max(one.lower, other.lower)
    spanned = max(one.upper, other.upper) - min(one.lower, other.lower)
    return max(shared, 0.0) / spanned
