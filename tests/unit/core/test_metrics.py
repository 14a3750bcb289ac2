"""What is shown of a large image on a small screen."""

import numpy as np

from miadmark_core.metrics import reduced


def test_a_large_image_is_shown_as_means_of_blocks() -> None:
    shown = np.arange(7 * 9, dtype=np.float32).reshape(7, 9, 1)
    small = reduced(shown, 3)
    assert small.shape == (2, 3, 1)
    assert small[0, 0, 0] == shown[:3, :3].mean()
    assert small[1, 2, 0] == shown[3:6, 6:].mean()


def test_an_image_that_fits_is_shown_as_it_is() -> None:
    shown = np.zeros((4, 5, 3), np.float32)
    assert reduced(shown, 5) is shown
