"""Which pictures of a split are looked at, and as what an object would carry them.

A draw has a few pictures of every class, and beyond that keeps each near its share: the
fewer are drawn, the more a rare class counts. The same seed draws the same pictures.
Nothing here knows what the pictures are for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from miadmark_core.training.cards import CARDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from miadmark_core.training.labelled_images import LabelledImages

LEAST_OF_A_CLASS: Final = 4
"""With fewer, a figure that counts every class the same rests on one or two pictures."""


def drawn(images: LabelledImages, count: int | None, seed: int) -> LabelledImages:
    """Return about ``count`` of the pictures, in their order; None stands for all.

    More than ``count`` only if there are so many classes that each cannot have its
    least.
    """
    if count is None or count >= len(images):
        return images
    classes, counts = np.unique(images.labels, return_counts=True)
    least = min(LEAST_OF_A_CLASS, max(count // len(classes), 1))
    taken = np.minimum(counts, least)
    exact = counts * count / len(images)
    while taken.sum() < count:
        # The class furthest below its share; with every picture taken it is not.
        wanting = np.where(taken < counts, exact - taken, -np.inf)
        taken[wanting.argmax()] += 1
    order = np.random.default_rng(seed).permutation(len(images))
    of_class = [order[images.labels[order] == label] for label in classes]
    which = np.sort(
        np.concatenate([of[:n] for of, n in zip(of_class, taken, strict=True)])
    )
    return replace(images, pixels=images.pixels[which], labels=images.labels[which])


def as_carried(images: LabelledImages) -> LabelledImages:
    """Return the pictures as objects of their modality would show them."""
    if CARDS[images.name].is_colour:
        return images
    return replace(images, pixels=grey(images.pixels))


def grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return pictures with three equal samples, ``(images, rows, columns, 3)``.

    Source:
        ITU-R BT.601 luma, as grey JPEG files are decoded.
    """
    luma = np.empty(pixels.shape[:-1], np.uint8)
    for picture, row in zip(pixels, luma, strict=True):
        row[:] = np.rint(picture @ np.array([0.299, 0.587, 0.114]))
    return np.repeat(luma[..., np.newaxis], 3, axis=-1)


def planes(pixels: NDArray[np.uint8], *, is_colour: bool) -> NDArray[np.uint8]:
    """Return pictures as networks take them, ``(images, 1 or 3, rows, columns)``."""
    samples = pixels if is_colour else pixels[..., :1]
    return np.ascontiguousarray(samples.transpose(0, 3, 1, 2))
