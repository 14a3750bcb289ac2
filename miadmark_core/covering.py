"""Cover places of an image with a logo, and uncover them without a trace.

A logo hides what is under it: blending rounds, and an opaque one leaves nothing. So what
was there is kept, pixel by pixel, and put back; ``uncover`` is the inverse of ``cover``
whatever the blend was, and has no arithmetic to agree on. Padding is neither made nor
unmade.

How opaque a logo is at each pixel comes as what :class:`~miadmark_core.mark.MarkGrid`
grows to, in units of ``OPAQUE``: above 0 towards white, below towards black.

Integers only. Nothing here knows what a logo looks like, or where it should be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from miadmark_core.errors import AlteredImageError, WrongKeyError
from miadmark_core.mark import MarkGrid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from miadmark_core.image import Places, StoredValues, ValueRange
    from miadmark_core.mark import MarkValues

OPAQUE: Final = 1 << 12
"""The opacity that leaves nothing of the host."""

OPACITY_AMPLITUDE: Final = 132_104
"""The amplitude with which a full step of a grid grows to ``OPAQUE``."""


class Ends(NamedTuple):
    """The stored values that are shown as black and as white; either may be higher."""

    black: int
    white: int


class Covered(NamedTuple):
    """A frame with something on it, and what is under it."""

    frame: StoredValues
    places: Places
    """The pixels that changed."""
    hidden: StoredValues
    """Their host values, in row order. ``(n, samples)``."""


def opacity_grid(steps: NDArray[np.int8]) -> MarkGrid:
    """Return the grid that grows to opacities.

    Args:
        steps: ``(height, width, 1)``; 127 either way are opaque.
    """
    if steps.shape[2:] != (1,):
        raise ValueError("what is blended in has no colours: steps have one plane")
    return MarkGrid(steps, OPACITY_AMPLITUDE)


def cover(
    host: StoredValues,
    opacity: MarkValues,
    ends: Ends,
    values: ValueRange,
    padding: ValueRange | None = None,
) -> Covered:
    """Return the frame with black and white blended over it, kept off ``padding``.

    Args:
        host: ``(rows, columns, samples)``, within ``values``. Not modified.
        opacity: ``(rows, columns, 1)``, from ``-OPAQUE`` to ``OPAQUE``.
        ends: What is blended in; cut to ``values``.
        values: The range of stored values.
        padding: Values that stand for no image; a host pixel among them stays.
    """
    black, white = (np.int32(min(max(end, values.lower), values.upper)) for end in ends)
    # 17 bits of difference and 12 of opacity leave room in 32.
    change = (np.where(opacity < 0, black, white) - host.astype(np.int32)) * abs(
        opacity
    )
    blended = host + ((change + OPAQUE // 2) >> (OPAQUE.bit_length() - 1))
    if padding is not None:
        is_padding = (host >= padding.lower) & (host <= padding.upper)
        lands_on_padding = (blended >= padding.lower) & (blended <= padding.upper)
        below = host < padding.lower
        blended[lands_on_padding & below] = padding.lower - 1
        blended[lands_on_padding & ~below] = padding.upper + 1
        blended[is_padding] = host[is_padding]
    frame = blended.astype(host.dtype)
    places: Places = (frame != host).any(axis=-1)
    return Covered(frame, places, host[places])


def uncover(covered: Covered) -> StoredValues:
    """Return the host frame: the inverse of :func:`cover`, bit for bit.

    Raises:
        AlteredImageError: The frame has not the size of the one that was covered.
        WrongKeyError: What is hidden are not pixels of this kind.
    """
    if covered.frame.shape[:2] != covered.places.shape:
        raise AlteredImageError("the image has not the size that its removal key says")
    frame, hidden = covered.frame, covered.hidden
    if (hidden.dtype, hidden.shape[1:]) != (frame.dtype, frame.shape[2:]):
        raise WrongKeyError("the removal key is for pixels of another kind")
    host = covered.frame.copy()
    host[covered.places] = covered.hidden
    return host
