"""A folder of labelled pictures, read once and kept as bytes.

Layout: ``images/`` and ``labels.csv`` with the columns ``file``, ``label`` and
``split``. The splits are ``surrogate`` (trains what the search looks through),
``victim`` (trains what the mark is scored against) and ``test`` (measured on, never
trained, tuned or selected on); keeping them apart is what makes a black-box figure one.

This module does not know what a network is; folders that come as they are, without
splits or labels, are read by :mod:`~miadmark_core.training.site_images`.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from miadmark_core.errors import DataSetError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SIDE: Final = 224
"""Every picture is kept at this many rows and columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImages:
    """Pictures of one split, and the class of each."""

    name: str
    """The folder's name: ``brain_mri``, say."""
    classes: tuple[str, ...]
    """Every class of the data set, sorted; a label is an index into it."""
    pixels: NDArray[np.uint8]
    """``(images, SIDE, SIDE, 3)``."""
    labels: NDArray[np.int64]
    """``(images,)``."""

    def __len__(self) -> int:
        """Return how many pictures there are."""
        return len(self.labels)


def read_split(folder: Path, split: str) -> LabelledImages:
    """Return the pictures of one split, in the order of ``labels.csv``.

    Raises:
        DataSetError: The folder holds no such data set, or the split is empty.
    """
    table = folder / "labels.csv"
    try:
        with table.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
    except OSError as error:
        raise DataSetError(
            f"{table} cannot be read: {error.strerror}",
            hint="A data set is a folder with images/ and labels.csv (file,label,split).",
        ) from error
    classes = tuple(sorted({row["label"] for row in rows}))
    chosen = [row for row in rows if row["split"] == split]
    if not chosen:
        raise DataSetError(f"{table} lists no image in the split {split!r}")
    pixels = np.empty((len(chosen), SIDE, SIDE, 3), np.uint8)
    for index, row in enumerate(chosen):
        with Image.open(folder / "images" / row["file"]) as picture:
            pixels[index] = fitted(picture)
    labels = np.array([classes.index(row["label"]) for row in chosen], np.int64)
    return LabelledImages(
        name=folder.name, classes=classes, pixels=pixels, labels=labels
    )


def fitted(picture: Image.Image) -> NDArray[np.uint8]:
    """Return a picture as it is kept, ``(SIDE, SIDE, 3)``."""
    rgb = picture.convert("RGB")
    if rgb.size != (SIDE, SIDE):
        rgb = rgb.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(rgb)
