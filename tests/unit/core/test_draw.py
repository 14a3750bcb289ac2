"""A draw is of every class, and the same again."""

import numpy as np
import pytest

from miadmark_core.evaluation.draw import (
    LEAST_OF_A_CLASS,
    as_carried,
    drawn,
    grey,
    planes,
)
from miadmark_core.training.labelled_images import LabelledImages


def pictures(name: str = "skin_dermoscopy") -> LabelledImages:
    """A hundred pictures of a common class, twenty of another, five of a rare one."""
    labels = np.repeat([0, 1, 2], [100, 20, 5])
    labels = np.random.default_rng(0).permutation(labels)
    pixels = np.random.default_rng(1).integers(0, 255, (125, 4, 4, 3)).astype(np.uint8)
    return LabelledImages(
        name=name, classes=("a", "b", "c"), pixels=pixels, labels=labels
    )


@pytest.mark.parametrize("count", [12, 30, 50, 124])
def test_a_draw_has_as_many_as_asked_and_a_few_of_each_class(count: int) -> None:
    images = drawn(pictures(), count, seed=3)
    of_classes = np.bincount(images.labels)
    assert of_classes.sum() == len(images.pixels) == count
    assert of_classes.min() >= LEAST_OF_A_CLASS
    expected = np.array([100, 20, 5]) * count / 125
    assert (of_classes <= np.maximum(expected + 1, LEAST_OF_A_CLASS)).all()


def test_a_draw_keeps_pictures_with_their_labels_and_in_order() -> None:
    all_of_them = pictures()
    place = {p.tobytes(): n for n, p in enumerate(all_of_them.pixels)}
    images = drawn(all_of_them, 40, seed=3)
    places = [place[p.tobytes()] for p in images.pixels]
    assert places == sorted(set(places))
    np.testing.assert_array_equal(images.labels, all_of_them.labels[places])


def test_only_the_seed_decides() -> None:
    first, again, other = (drawn(pictures(), 40, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.pixels, again.pixels)
    assert (first.pixels != other.pixels).any()


def test_all_are_drawn_where_no_fewer_are_asked_for() -> None:
    images = pictures()
    assert drawn(images, None, seed=0) is drawn(images, 125, seed=0) is images


def test_fewer_than_the_classes_need_are_spread_over_them() -> None:
    assert np.bincount(drawn(pictures(), 6, seed=3).labels).tolist() == [2, 2, 2]


def test_a_grey_modality_carries_luma_and_one_plane() -> None:
    images = as_carried(pictures("chest_xray"))
    red, green, blue = pictures().pixels[7, 2, 3].astype(float)
    luma = round(0.299 * red + 0.587 * green + 0.114 * blue)
    assert images.pixels[7, 2, 3].tolist() == [luma] * 3
    assert planes(images.pixels, is_colour=False).shape == (125, 1, 4, 4)
    np.testing.assert_array_equal(grey(images.pixels), images.pixels)


def test_a_coloured_modality_carries_all_three() -> None:
    images = pictures()
    assert as_carried(images) is images
    flat = planes(images.pixels, is_colour=True)
    np.testing.assert_array_equal(flat[5, 1], images.pixels[5, :, :, 1])
