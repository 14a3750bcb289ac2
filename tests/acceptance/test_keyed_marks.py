"""A mark comes from its key: another key, another mark; and no average gives it away."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from dicom_node.filters.picture import FRAMES_PER_GRID
from dicom_node.finders import SHIPPED_WEIGHTS
from miadmark_core.search.finder import PROFILES, Finder, Wanted
from miadmark_core.training.labelled_images import SIDE, read_split

Pixels = NDArray[np.uint8]
Marks = NDArray[np.float64]


@pytest.fixture(scope="module")
def finder() -> Finder:
    return Finder(
        SHIPPED_WEIGHTS, device=torch.device("cpu"), effort=PROFILES["standard"]
    )


@pytest.fixture(scope="module")
def pictures(shared: Path) -> Pixels:
    """Four brain MR images, one of each class."""
    split = read_split(shared / "data" / "brain_mri", "test")
    first = [np.flatnonzero(split.labels == c)[0] for c in range(len(split.classes))]
    return split.pixels[first, ..., :1]


def marks(finder: Finder, pictures: Pixels, key: int) -> Marks:
    """Return the grids that an object of these pictures gets, one after the other."""
    found = finder.find(
        [
            Wanted(
                shown=picture.astype(np.float32) / 255,
                peak=8 / 255,
                modality="MR",
                body_part="BRAIN",
                seed=key,
                number=number,
            )
            for number, picture in enumerate(pictures)
        ]
    )
    return np.stack([mark.steps.astype(np.float64).ravel() for mark in found])


def test_two_keys_give_one_image_two_marks(finder: Finder, pictures: Pixels) -> None:
    one, other = (marks(finder, pictures, key) for key in (1, 2))
    alike = (one * other).sum(axis=1) / (
        np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    )
    assert alike.mean() <= 0.3
    np.testing.assert_array_equal(one, marks(finder, pictures, 1))


def test_the_average_of_a_series_takes_little_of_a_mark(
    finder: Finder, pictures: Pixels
) -> None:
    """Slices that hardly differ: one image, each time from a little nearer.

    Of the four images this is the one whose marks are most alike.
    """
    picture = Image.fromarray(pictures[-1, ..., 0])
    series = [
        picture.resize((SIDE, SIDE), box=(near, near, SIDE - near, SIDE - near))
        for near in range(16)
    ]
    found = marks(finder, np.stack([np.asarray(s)[..., np.newaxis] for s in series]), 3)
    # Of 64 slices, each of sixteen marks is on four.
    of_slices = np.repeat(found, FRAMES_PER_GRID, axis=0)
    left = of_slices - of_slices.mean(axis=0)
    assert (left**2).sum() / (of_slices**2).sum() >= 0.85
