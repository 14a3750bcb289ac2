"""Marking and restoring, and the one promise that has no exception."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings

from miadmark_core.errors import (
    AlteredImageError,
    DamagedSealError,
    MarkingError,
    RemovalError,
    UnknownFormatError,
    WrongKeyError,
)
from miadmark_core.image import HostImage, ValueRange
from miadmark_core.mark import MarkGrid
from miadmark_core.marking import MarkedImage, mark_image, restore_image
from miadmark_core.removal_key import RemovalKey
from tests.strategies import marked_cases


@settings(max_examples=300)
@given(marked_cases())
def test_restoring_undoes_marking(case: tuple[HostImage, list[MarkGrid], int]) -> None:
    host, grids, frames_per_grid = case
    try:
        marked = mark_image(host, grids, frames_per_grid)
    except MarkingError:
        assume(False)
    key = RemovalKey.from_bytes(marked.key.to_bytes())
    restored = restore_image(marked.image, key)
    assert restored.pixels.dtype == host.pixels.dtype
    np.testing.assert_array_equal(restored.pixels, host.pixels)


@pytest.fixture
def marked() -> MarkedImage:
    random = np.random.default_rng(1)
    pixels = random.integers(0, 4096, (3, 20, 30, 1)).astype(np.uint16)
    host = HostImage(pixels=pixels, values=ValueRange(0, 4095))
    grids = [
        MarkGrid(random.integers(-127, 128, (8, 8, 1)).astype(np.int8), 9000)
        for _ in range(2)
    ]
    return mark_image(host, grids, 2)


def test_one_changed_pixel_is_refused(marked: MarkedImage) -> None:
    pixels = marked.image.whole()
    pixels[2, 19, 29, 0] ^= 1
    with pytest.raises(AlteredImageError):
        restore_image(replace(marked.image, pixels=pixels), marked.key)


def test_the_key_of_another_image_is_refused(marked: MarkedImage) -> None:
    other = replace(marked.image, pixels=marked.image.whole()[:, ::-1].copy())
    with pytest.raises(RemovalError):
        restore_image(other, marked.key)


def test_a_key_for_more_frames_is_refused(marked: MarkedImage) -> None:
    with pytest.raises(WrongKeyError):
        restore_image(
            replace(marked.image, pixels=marked.image.whole()[:2]), marked.key
        )


def test_a_key_with_another_grid_never_gives_nearly_the_original(
    marked: MarkedImage,
) -> None:
    assert isinstance(marked.key, RemovalKey)
    steps = marked.key.grids[0].steps.copy()
    steps[3, 3, 0] ^= 1
    grids = (MarkGrid(steps, 9000), *marked.key.grids[1:])
    with pytest.raises(RemovalError):
        restore_image(marked.image, replace(marked.key, grids=grids))


def test_a_constant_mark_of_zero_is_no_mark() -> None:
    host = HostImage(pixels=np.zeros((1, 4, 4, 1), np.uint8), values=ValueRange(0, 255))
    with pytest.raises(MarkingError):
        mark_image(host, [MarkGrid(np.zeros((2, 2, 1), np.int8), 9000)], 1)


def test_a_coloured_mark_is_for_a_coloured_image(marked: MarkedImage) -> None:
    grid = MarkGrid(np.ones((2, 2, 3), np.int8), 9000)
    with pytest.raises(MarkingError, match="3 planes"):
        mark_image(marked.image, [grid], 3)
    assert isinstance(marked.key, RemovalKey)
    with pytest.raises(WrongKeyError, match="3 planes"):
        restore_image(marked.image, replace(marked.key, grids=(grid, grid)))


WRITTEN = {
    1: (
        "AQECAAAAAgAAAAEAAAADAAQAAf+SwvZ4GbDIewHLRZ3LXb6S6UPyAmBka4b5vwNb+/u0hLAyYiO9"
        "Qc0GfeHSUissPNLoMnExR11cZMfU9rc2sOUoIwAAEAAAAA8AAAB42gErANT/gdozjeY/mfJLpf5X"
        "AO/eqzQjEgHw372sAgMEBQb15LE6KRgH9uWyCAkKC9g9Ev4="
    ),
    3: (
        "AQICAAAAAgAAAAEAAAADAAQAAf+SwvZ4GbDIewHLRZ3LXb6S6UPyAmBka4b5vwNb+/u0fPjxKCfN"
        "26GhxuNLO9kFImoWjPp6xWN6zmOLevhF0tUoIwAAMgAAADIAAAB42gGIAHf/gdozjeY/mfJLpf5X"
        "sQpjvRZvySJ71S6I4TqU7Uag+VKsBV64AN7Nq5p4ZzQB386sm3loRjUC8eCcemlHNhQD8uG/e2o3"
        "FQTzwI1JOBYF9MGwjn1bShcG5NOxoH5tOgfl1LKhf25MOwj35qKAb008Ggn458WBPRsK+caTYE8+"
        "HAv6x7aUg2FQHTMhQiQ="
    ),
}
"""Removal keys, by planes, as they are in sealed records out there."""


@pytest.mark.parametrize("planes", WRITTEN)
def test_a_key_that_was_written_once_is_read_for_ever(planes: int) -> None:
    pixels = (np.arange(180) * 7919 % 256).astype(np.uint8).reshape(2, 5, 6, 3)
    host = HostImage(pixels=pixels, values=ValueRange(0, 255))
    steps = (np.arange(12 * planes) * 89 % 255 - 127).astype(np.int8)
    grid = MarkGrid(steps.reshape(3, 4, planes), 9000)
    key = RemovalKey.from_bytes(base64.b64decode(WRITTEN[planes]))
    assert key.planes == planes
    np.testing.assert_array_equal(key.grids[0].steps, grid.steps)
    restored = restore_image(mark_image(host, [grid], 2).image, key)
    np.testing.assert_array_equal(restored.pixels, host.pixels)


def test_every_cut_of_a_key_is_refused(marked: MarkedImage) -> None:
    encoded = marked.key.to_bytes()
    for length in range(len(encoded)):
        with pytest.raises((DamagedSealError, UnknownFormatError)):
            RemovalKey.from_bytes(encoded[:length])


def test_a_key_that_counts_nothing_is_refused_by_name(marked: MarkedImage) -> None:
    encoded = marked.key.to_bytes()
    for offset in (2, 6, 10):  # frames, frames a grid, grids
        forged = encoded[:offset] + bytes(4) + encoded[offset + 4 :]
        with pytest.raises(DamagedSealError):
            RemovalKey.from_bytes(forged)


def test_a_key_of_a_later_version_says_upgrade(marked: MarkedImage) -> None:
    encoded = marked.key.to_bytes()
    for later in (b"\x02" + encoded[1:], encoded[:1] + b"\x03" + encoded[2:]):
        with pytest.raises(UnknownFormatError) as caught:
            RemovalKey.from_bytes(later)
        assert "upgrade" in caught.value.hint
