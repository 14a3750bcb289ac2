"""The verbs: mark an image, faintly or with a logo, and restore it. Checks are included.

``mark_image`` and ``cover_image`` do not return before they have taken the mark off again
and compared; ``restore_image`` returns the very image that was marked, or raises. There
is no third outcome, no tolerance and no switch.

How the grids are found is not known here: they are an argument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from miadmark_core.cover_key import KIND as COVER
from miadmark_core.cover_key import CoverKey
from miadmark_core.covering import Covered, cover, uncover
from miadmark_core.embedding import Marked, embed, remove
from miadmark_core.errors import AlteredImageError, MarkingError, WrongKeyError
from miadmark_core.image import HostImage
from miadmark_core.removal_key import RemovalKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from miadmark_core.covering import Ends
    from miadmark_core.image import StoredValues
    from miadmark_core.mark import MarkGrid, MarkValues


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
    frames = [
        embed(frame, mark, host.values, host.padding)
        for frame, mark in _grown(host, grids, frames_per_grid)
    ]
    image = _like(host, (marked.frame for marked in frames))
    key = RemovalKey(
        grids=tuple(grids),
        frames_per_grid=frames_per_grid,
        stopped=tuple(marked.stopped for marked in frames),
        host_digest=host.digest(),
        marked_digest=image.digest(),
    )
    return _proven(host, MarkedImage(image, key))


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
    frames = [
        cover(frame, opacity, ends, host.values, host.padding)
        for frame, opacity in _grown(host, grids, frames_per_grid)
    ]
    image = _like(host, (covered.frame for covered in frames))
    key = CoverKey(
        places=tuple(covered.places for covered in frames),
        hidden=tuple(covered.hidden for covered in frames),
        host_digest=host.digest(),
        marked_digest=image.digest(),
    )
    return _proven(host, MarkedImage(image, key))


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
    if isinstance(key, CoverKey):
        frames = _uncovered(marked, key)
    else:
        if misfit := _misfit(marked, key.grids):
            raise WrongKeyError(misfit)
        frames = _removed(marked, key)
    host = _like(marked, frames)
    if host.digest() != key.host_digest:
        raise WrongKeyError("the removal key does not give back the original")
    return host


def _removed(marked: HostImage, key: RemovalKey) -> Iterator[StoredValues]:
    frames = _grown(marked, key.grids, key.frames_per_grid)
    for (frame, mark), stopped in zip(frames, key.stopped, strict=True):
        yield remove(Marked(frame, stopped), mark, marked.values, marked.padding)


def _uncovered(marked: HostImage, key: CoverKey) -> Iterator[StoredValues]:
    for frame, places, hidden in zip(
        marked.pixels, key.places, key.hidden, strict=True
    ):
        yield uncover(Covered(frame, places, hidden))


def _grown(
    image: HostImage, grids: Sequence[MarkGrid], frames_per_grid: int
) -> Iterator[tuple[StoredValues, MarkValues]]:
    """Yield each frame with what its grid grows to."""
    rows, columns = image.pixels.shape[1:3]
    for number, frame in enumerate(image.pixels):
        if number % frames_per_grid == 0:
            mark = grids[number // frames_per_grid].values(rows, columns)
        yield frame, mark


def _misfit(image: HostImage, grids: Sequence[MarkGrid]) -> str:
    """Return what is wrong where a grid has neither one plane nor one a sample."""
    samples = image.pixels.shape[3]
    odd = {grid.steps.shape[2] for grid in grids} - {1, samples}
    return f"a mark of {max(odd)} planes, an image of {samples} samples" if odd else ""


def _like(image: HostImage, frames: Iterable[StoredValues]) -> HostImage:
    pixels = np.empty_like(image.pixels)
    for number, frame in enumerate(frames):
        pixels[number] = frame
    return HostImage(pixels=pixels, values=image.values, padding=image.padding)


def _proven(host: HostImage, marked: MarkedImage) -> MarkedImage:
    """Return ``marked`` if it differs from ``host``, and its key gives ``host`` back.

    Raises:
        MarkingError: It does not.
    """
    if marked.key.host_digest == marked.key.marked_digest:
        raise MarkingError(
            "the mark changes no pixel",
            hint="The image is constant or all padding; route it as an object that "
            "carries no picture.",
        )
    restored = restore_image(marked.image, read_key(marked.key.to_bytes()))
    if not np.array_equal(restored.pixels, host.pixels):
        raise MarkingError("the mark would not come off exactly")
    return marked
