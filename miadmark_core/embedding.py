"""Add a mark to an image, and take it out again without a trace.

Adding loses information in two places only: where the sum runs into an end of the range
of stored values, and where it would land on a value that stands for padding and has to
stop just short of it. Both leave a pixel on a *stop* with the mark pointing beyond it.
Which pixels those are can be read off the marked image and the mark, so it is enough to
keep their host values, in order: ``remove`` is then the inverse of ``embed`` for every
image, on every machine. Padding is neither made nor unmade.

Integers only. Nothing here reads a file, draws a random number or knows DICOM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from miadmark_core.errors import AlteredImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from miadmark_core.image import StoredValues, ValueRange
    from miadmark_core.mark import MarkValues


class Marked(NamedTuple):
    """A marked frame, and what the mark pushed against a stop."""

    frame: StoredValues
    stopped: StoredValues
    """Host values of the pixels on a stop, in row order. ``(n,)``."""


def embed(
    host: StoredValues,
    mark: MarkValues,
    values: ValueRange,
    padding: ValueRange | None = None,
) -> Marked:
    """Return the frame with the mark added, kept within ``values`` and off ``padding``.

    Args:
        host: ``(rows, columns, samples)``, within ``values``. Not modified.
        mark: What to add, ``(rows, columns, planes)``; planes are 1 or ``samples``.
        values: The range of stored values.
        padding: Values that stand for no image; a host pixel among them stays.
    """
    added = np.clip(host + mark, *values)
    if padding is not None:
        is_padding = _within(host, padding)
        lands_on_padding = _within(added, padding) & ~is_padding
        below = lands_on_padding & (host < padding.lower)
        added[below] = padding.lower - 1
        added[lands_on_padding & ~below] = padding.upper + 1
        added[is_padding] = host[is_padding]
    frame = added.astype(host.dtype)
    return Marked(frame, host[_on_a_stop(frame, mark, values, padding)])


def remove(
    marked: Marked,
    mark: MarkValues,
    values: ValueRange,
    padding: ValueRange | None = None,
) -> StoredValues:
    """Return the host frame: the inverse of :func:`embed`, bit for bit.

    Raises:
        AlteredImageError: Another number of pixels is on a stop than was kept, so this
            is not the frame that was marked.
    """
    host, used = take(marked.frame, mark, marked.stopped, values, padding)
    if used != marked.stopped.size:
        raise AlteredImageError(_OTHER_STOPS)
    return host


def take(
    frame: StoredValues,
    mark: MarkValues,
    stopped: StoredValues,
    values: ValueRange,
    padding: ValueRange | None = None,
) -> tuple[StoredValues, int]:
    """Return a part of the host frame, and how many of ``stopped`` belong to it.

    Args:
        frame: A band of rows of a marked frame.
        mark: What was added there.
        stopped: Host values of the pixels on a stop from there on.
        values: As in :func:`embed`.
        padding: As in :func:`embed`.

    Raises:
        AlteredImageError: More pixels are on a stop than values are left.
    """
    is_padding = None if padding is None else _within(frame, padding)
    stops = _on_a_stop(frame, mark, values, padding, is_padding)
    used = int(np.count_nonzero(stops))
    if used > stopped.size:
        raise AlteredImageError(_OTHER_STOPS)
    # Modulo the type's size it is the same, and half as wide to subtract.
    host: StoredValues = frame - mark.astype(frame.dtype)
    if used:
        host[stops] = stopped[:used]
    if is_padding is not None and is_padding.any():
        np.copyto(host, frame, where=is_padding)
    return host, used


_OTHER_STOPS: Final = (
    "the image does not have the saturated pixels that its removal key lists"
)


def _within(values: StoredValues, bounds: ValueRange) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (values >= bounds.lower) & (values <= bounds.upper)
    return inside


def _on_a_stop(
    frame: StoredValues,
    mark: MarkValues,
    values: ValueRange,
    padding: ValueRange | None,
    is_padding: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    ups, downs = [values.upper], [values.lower]
    if padding is not None:
        ups.append(padding.lower - 1)
        downs.append(padding.upper + 1)
    stops: NDArray[np.bool_] = np.zeros(frame.shape, np.bool_)
    is_anywhere = False
    for is_beyond, ends in ((np.greater, ups), (np.less, downs)):
        for end in ends:
            is_there = frame == end
            if is_there.any():  # few pictures reach what their words can hold at most
                stops |= is_there & is_beyond(mark, 0)
                is_anywhere = True
    if padding is not None and is_anywhere:
        stops &= ~(_within(frame, padding) if is_padding is None else is_padding)
    return stops
