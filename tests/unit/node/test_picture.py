"""A picture keeps its budget, and no frame of it goes out as it came."""

import numpy as np
import pytest

from dicom_node.filters.picture import FRAMES_PER_GRID, LEAST_PSNR_DB, Picture
from dicom_node.looks import Look, Presentation
from miadmark_core.errors import MarkingError
from miadmark_core.image import DisplayWindow, HostImage, ValueRange
from miadmark_core.search.finder import FoundMark
from miadmark_core.search.views import Window


def picture(pixels: np.ndarray) -> Picture:
    return Picture(
        image=HostImage(pixels=pixels, values=ValueRange(0, 255)),
        presentations=[Presentation.of(DisplayWindow(0, 255), 8)] * len(pixels),
    )


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(40, 200, shape).astype(np.uint8)


def test_grey_in_three_samples_is_marked_as_grey() -> None:
    grey = np.repeat(noise(1, 64, 64, 1), 3, axis=3)
    (wanted,) = picture(grey).wanted(modality="US", body_part="", seed=1)
    assert wanted.shown.shape == (64, 64, 1)
    grey[0, 5, 5, 2] ^= 1
    (wanted,) = picture(grey).wanted(modality="US", body_part="", seed=1)
    assert wanted.shown.shape == (64, 64, 3)


def test_a_mark_that_shows_too_much_is_made_weaker() -> None:
    strong = FoundMark(np.full((8, 8, 1), 127, np.int8), {})
    marked = picture(noise(1, 64, 64, 1)).marked([strong])
    assert LEAST_PSNR_DB <= marked.psnr_db < LEAST_PSNR_DB + 1.5
    difference = marked.marked.image.whole().astype(int) - noise(1, 64, 64, 1)
    assert 0 < np.abs(difference).max() < 8


def test_a_frame_that_would_leave_as_it_came_is_refused() -> None:
    pixels = noise(FRAMES_PER_GRID + 1, 64, 64, 1)
    steps = [np.full((8, 8, 1), step, np.int8) for step in (20, 0)]
    with pytest.raises(MarkingError, match=f"frame {FRAMES_PER_GRID + 1}"):
        picture(pixels).marked([FoundMark(s, {}) for s in steps])


def test_a_picture_of_two_windows_says_what_each_shows() -> None:
    soft, lung = DisplayWindow(100, 200), DisplayWindow(0, 150, is_inverted=False)
    shows = Presentation((Look(soft, 3), Look(lung, 4)))
    pixels = noise(FRAMES_PER_GRID, 64, 64, 1)
    image = HostImage(pixels=pixels, values=ValueRange(0, 255))
    both = Picture(image=image, presentations=[shows] * len(pixels))
    (wanted,) = both.wanted(modality="CT", body_part="", seed=1)
    assert wanted.peak == 4 / 200
    assert wanted.windows == (Window(0.5, 1.0, 0.75), Window(0.0, 0.75, 1.0))
    assert wanted.spread is not None
    assert np.allclose(wanted.spread[0], np.clip(pixels / 200, 0, 1).min(0)[..., 0])
    assert np.allclose(wanted.spread[1], np.clip(pixels / 200, 0, 1).max(0)[..., 0])


def test_quality_is_told_of_the_window_that_shows_most_of_a_mark() -> None:
    steps = FoundMark(np.full((8, 8, 1), 30, np.int8), {})
    pixels = noise(1, 64, 64, 1)
    image = HostImage(pixels=pixels, values=ValueRange(0, 255))
    wide, narrow = DisplayWindow(0, 255), DisplayWindow(40, 140)

    def psnr(*windows: DisplayWindow) -> float:
        shows = Presentation(tuple(Look(w, 8) for w in windows))
        return Picture(image=image, presentations=[shows]).marked([steps]).psnr_db

    assert psnr(wide, narrow) == psnr(narrow) < psnr(wide)
