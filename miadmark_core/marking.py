"""The verbs: mark an image, faintly or with a logo, and restore it. Checks are included.

``mark_image`` and ``cover_image`` do not return before they have taken the mark off again
and compared; ``restore_image`` returns the very image that was marked, or raises. There
is no third outcome, no tolerance and no switch.

How the grids are found is not known here: they are an argument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from miadmark_core.cover_key import KIND as COVER
from miadmark_core.cover_key import CoverKey
from miadmark_core.covering import Covered, cover, uncover
from miadmark_core.embedding import Marked, embed, take
from miadmark_core.errors import (
    AlteredImageError,
    MarkingError,
    RemovalError,
    WrongKeyError,
)
from miadmark_core.removal_key import RemovalKey

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from miadmark_core.covering import Ends
    from miadmark_core.image import HostImage, StoredValues
    from miadmark_core.mark import MarkGrid, MarkValues

BAND: Final = 1 << 17
"""Pixels that are marked or restored at a time, so that they fit the cache."""


class MarkedImage(NamedTuple):
    """A marked image and what undoes it."""

    image: HostImage
    key: RemovalKey | CoverKey


def mark_image(
    host: HostImage, grids: Sequence[MarkGrid], frames_per_grid: int
) -> MarkedImage:
    """Return the image with its mark, and the key that takes it off.

    Args:
        host: The image to be marked. Not modified.
        grids: One for each ``frames_per_grid`` frames, in order, with one plane or one
            for each sample.
        frames_per_grid: How many neighbouring frames share a grid; at least 1.

    Raises:
        MarkingError: The mark changes nothing, or would not come off exactly.
    """
    if misfit := _misfit(host, grids):
        raise MarkingError(misfit)
    stopped: dict[int, StoredValues] = {}

    def frame(number: int) -> StoredValues:
        grid = grids[number // frames_per_grid]
        marked = _embedded(host.pixels[number], grid, host)
        stopped[number] = marked.stopped
        return marked.frame

    image = host.like(frame)
    marked_digest = image.digest()  # every frame has been made once when it is there
    key = RemovalKey(
        grids=tuple(grids),
        frames_per_grid=frames_per_grid,
        stopped=tuple(stopped[number] for number in range(len(host.pixels))),
        host_digest=host.digest(),
        marked_digest=marked_digest,
    )
    return _proven(MarkedImage(image, key))


def cover_image(
    host: HostImage, grids: Sequence[MarkGrid], frames_per_grid: int, ends: Ends
) -> MarkedImage:
    """Return the image with logos on it, and the key that takes them off.

    Args:
        host: The image to be covered. Not modified.
        grids: From :func:`~miadmark_core.covering.opacity_grid`, one for each
            ``frames_per_grid`` frames, in order.
        frames_per_grid: How many neighbouring frames share a grid; at least 1.
        ends: What is shown as black and as white.

    Raises:
        MarkingError: The logos change nothing, or would not come off exactly.
    """
    covered: dict[int, Covered] = {}

    def frame(number: int) -> StoredValues:
        host_frame = host.pixels[number]
        opacity = grids[number // frames_per_grid].values(*host_frame.shape[:2])
        made = cover(host_frame, opacity, ends, host.values, host.padding)
        covered[number] = made._replace(frame=made.frame[:0])
        return made.frame

    image = host.like(frame)
    marked_digest = image.digest()  # every frame has been made once when it is there
    kept = [covered[number] for number in range(len(host.pixels))]
    key = CoverKey(
        places=tuple(frame.places for frame in kept),
        hidden=tuple(frame.hidden for frame in kept),
        host_digest=host.digest(),
        marked_digest=marked_digest,
    )
    return _proven(MarkedImage(image, key))


def read_key(encoded: bytes) -> RemovalKey | CoverKey:
    """Return the removal key, of whichever kind it is.

    Raises:
        UnknownFormatError: A later version wrote it.
        DamagedSealError: It is not a removal key, or is cut short.
    """
    kind = CoverKey if encoded[1:2] == bytes([COVER]) else RemovalKey
    return kind.from_bytes(encoded)


def restore_image(marked: HostImage, key: RemovalKey | CoverKey) -> HostImage:
    """Return the original image; the inverse of ``mark_image`` and ``cover_image``.

    Raises:
        AlteredImageError: The pixels are not the ones that were marked.
        WrongKeyError: The key belongs to another image.
    """
    if key.frames != len(marked.pixels):
        raise WrongKeyError(
            f"a removal key for {key.frames} frames, an image of {len(marked.pixels)}"
        )
    if marked.digest() != key.marked_digest:
        raise AlteredImageError(
            "the pixels are not the ones that were marked",
            hint="They were changed on the way: recompressed with loss, cropped, "
            "scaled or drawn upon. Ask for the object as it was sent.",
        )
    if isinstance(key, RemovalKey) and (misfit := _misfit(marked, key.grids)):
        raise WrongKeyError(misfit)

    def frame(number: int) -> StoredValues:
        if isinstance(key, CoverKey):
            covered = marked.pixels[number], key.places[number], key.hidden[number]
            return uncover(Covered(*covered))
        stopped = key.stopped[number]
        return _removed(marked.pixels[number], key.grid_of(number), stopped, marked)

    host = marked.like(frame)
    if host.digest() != key.host_digest:
        raise WrongKeyError("the removal key does not give back the original")
    return host


def _bands(frame: StoredValues, grid: MarkGrid) -> Iterator[tuple[slice, MarkValues]]:
    rows, columns = frame.shape[:2]
    return grid.bands(rows, columns, max(1, BAND // columns))


def _embedded(frame: StoredValues, grid: MarkGrid, image: HostImage) -> Marked:
    marked, stopped = np.empty_like(frame), []
    for band, mark in _bands(frame, grid):
        part = embed(frame[band], mark, image.values, image.padding)
        marked[band] = part.frame
        stopped.append(part.stopped)
    return Marked(marked, np.concatenate(stopped))


def _removed(
    frame: StoredValues, grid: MarkGrid, stopped: StoredValues, image: HostImage
) -> StoredValues:
    host, used = np.empty_like(frame), 0
    for band, mark in _bands(frame, grid):
        host[band], count = take(
            frame[band], mark, stopped[used:], image.values, image.padding
        )
        used += count
    if used != stopped.size:
        raise AlteredImageError(
            "the image does not have the saturated pixels that its removal key lists"
        )
    return host


def _misfit(image: HostImage, grids: Sequence[MarkGrid]) -> str:
    """Return what is wrong where a grid has neither one plane nor one a sample."""
    samples = image.pixels.shape[3]
    odd = {grid.steps.shape[2] for grid in grids} - {1, samples}
    return f"a mark of {max(odd)} planes, an image of {samples} samples" if odd else ""


def _proven(marked: MarkedImage) -> MarkedImage:
    """Return ``marked`` if it changes something, and its key gives the host back.

    Raises:
        MarkingError: It does not.
    """
    if marked.key.host_digest == marked.key.marked_digest:
        raise MarkingError(
            "the mark changes no pixel",
            hint="The image is constant or all padding; route it as an object that "
            "carries no picture.",
        )
    try:
        # Comes to an image of the host's digest, or raises.
        restore_image(marked.image, read_key(marked.key.to_bytes()))
    except RemovalError as error:
        raise MarkingError("the mark would not come off exactly") from error
    return marked
