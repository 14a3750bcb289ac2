"""The two verbs: mark an image, and restore it. All checks are included.

``mark_image`` does not return before it has taken the mark off again and compared;
``restore_image`` returns the very image that was marked, or raises. There is no third
outcome, no tolerance and no switch.

How the grids are found is not known here: they are an argument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from miadmark_core.embedding import Marked, embed, remove
from miadmark_core.errors import AlteredImageError, MarkingError, WrongKeyError
from miadmark_core.image import HostImage
from miadmark_core.removal_key import RemovalKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from miadmark_core.mark import MarkGrid


class MarkedImage(NamedTuple):
    """A marked image and what undoes it."""

    image: HostImage
    key: RemovalKey


def mark_image(
    host: HostImage, grids: Sequence[MarkGrid], frames_per_grid: int
) -> MarkedImage:
    """Return the image with its mark, and the key that takes it off.

    Args:
        host: The image to be marked. Not modified.
        grids: One for each ``frames_per_grid`` frames, in order.
        frames_per_grid: How many neighbouring frames share a grid; at least 1.

    Raises:
        MarkingError: The mark changes nothing, or would not come off exactly.
    """
    frames: list[Marked] = []
    rows, columns = host.pixels.shape[1:3]
    mark = None
    for number, frame in enumerate(host.pixels):
        if number % frames_per_grid == 0:
            mark = grids[number // frames_per_grid].values(rows, columns)
        assert mark is not None
        frames.append(embed(frame, mark, host.values, host.padding))
    image = HostImage(
        pixels=np.stack([marked.frame for marked in frames]),
        values=host.values,
        padding=host.padding,
    )
    key = RemovalKey(
        grids=tuple(grids),
        frames_per_grid=frames_per_grid,
        stopped=tuple(marked.stopped for marked in frames),
        host_digest=host.digest(),
        marked_digest=image.digest(),
    )
    if key.host_digest == key.marked_digest:
        raise MarkingError(
            "the mark changes no pixel",
            hint="The image is constant or all padding; route it as an object that "
            "carries no picture.",
        )
    restored = restore_image(image, RemovalKey.from_bytes(key.to_bytes()))
    if not np.array_equal(restored.pixels, host.pixels):
        raise MarkingError("the mark would not come off exactly")
    return MarkedImage(image, key)


def restore_image(marked: HostImage, key: RemovalKey) -> HostImage:
    """Return the original image; the inverse of :func:`mark_image`.

    Raises:
        AlteredImageError: The pixels are not the ones that were marked.
        WrongKeyError: The key belongs to another image.
    """
    if len(key.stopped) != len(marked.pixels):
        raise WrongKeyError(
            f"a removal key for {len(key.stopped)} frames, an image of "
            f"{len(marked.pixels)}"
        )
    if marked.digest() != key.marked_digest:
        raise AlteredImageError(
            "the pixels are not the ones that were marked",
            hint="They were changed on the way: recompressed with loss, cropped, "
            "scaled or drawn upon. Ask for the object as it was sent.",
        )
    rows, columns = marked.pixels.shape[1:3]
    pixels = np.empty_like(marked.pixels)
    mark = None
    for number, frame in enumerate(marked.pixels):
        if number % key.frames_per_grid == 0:
            mark = key.grid_of(number).values(rows, columns)
        assert mark is not None
        kept = Marked(frame, key.stopped[number])
        pixels[number] = remove(kept, mark, marked.values, marked.padding)
    host = HostImage(pixels=pixels, values=marked.values, padding=marked.padding)
    if host.digest() != key.host_digest:
        raise WrongKeyError("the removal key does not give back the original")
    return host
