"""A logo hides what is under it, and gives all of it back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings

from miadmark_core.cover_key import CoverKey
from miadmark_core.covering import OPAQUE, Ends, cover, opacity_grid, uncover
from miadmark_core.errors import (
    AlteredImageError,
    DamagedSealError,
    MarkingError,
    RemovalError,
    UnknownFormatError,
    WrongKeyError,
)
from miadmark_core.image import HostImage, ValueRange
from miadmark_core.mark import FULL_STEP, MarkGrid
from miadmark_core.marking import MarkedImage, cover_image, read_key, restore_image
from tests.strategies import covered_cases

Case = tuple[HostImage, list[MarkGrid], int, Ends]


def opacities(case: Case) -> np.ndarray:
    host, grids, _, _ = case
    return grids[0].values(*host.pixels.shape[1:3])


@given(covered_cases())
def test_uncover_undoes_cover(case: Case) -> None:
    host, _, _, ends = case
    frame = host.pixels[0]
    covered = cover(frame, opacities(case), ends, host.values, host.padding)
    restored = uncover(covered)
    assert restored.dtype == frame.dtype
    np.testing.assert_array_equal(restored, frame)


@settings(max_examples=300)
@given(covered_cases())
def test_restoring_undoes_covering(case: Case) -> None:
    host, grids, frames_per_grid, ends = case
    try:
        marked = cover_image(host, grids, frames_per_grid, ends)
    except MarkingError:
        assume(False)
    restored = restore_image(marked.image, read_key(marked.key.to_bytes()))
    assert restored.pixels.dtype == host.pixels.dtype
    np.testing.assert_array_equal(restored.pixels, host.pixels)


@given(covered_cases())
def test_padding_is_neither_made_nor_unmade(case: Case) -> None:
    host, _, _, ends = case
    if host.padding is None:
        return
    frame = cover(
        host.pixels[0], opacities(case), ends, host.values, host.padding
    ).frame
    lower, upper = host.padding
    before = (host.pixels[0] >= lower) & (host.pixels[0] <= upper)
    np.testing.assert_array_equal((frame >= lower) & (frame <= upper), before)


@given(covered_cases())
def test_a_covered_image_lies_between_host_and_end(case: Case) -> None:
    host, _, _, (black, white) = case
    opacity = opacities(case)
    frame = cover(host.pixels[0], opacities(case), Ends(black, white), host.values)
    before, after = host.pixels[0].astype(int), frame.frame.astype(int)
    ends = [min(max(end, host.values.lower), host.values.upper) for end in case[3]]
    end = np.where(opacity < 0, *ends)
    assert (np.minimum(before, end) <= after).all()
    assert (after <= np.maximum(before, end)).all()


def test_thirty_two_bits_are_enough_and_an_opaque_logo_is_opaque() -> None:
    for lower, upper in ((0, 65535), (-32768, 32767)):
        values = ValueRange(lower, upper)
        host = np.array([[[lower], [upper]]], values.dtype)
        for sign, end in ((1, upper), (-1, lower)):
            steps = np.full((1, 1, 1), sign * FULL_STEP, np.int8)
            opacity = opacity_grid(steps).values(1, 2)
            assert np.unique(opacity).tolist() == [sign * OPAQUE]
            frame = cover(host, opacity, Ends(lower, upper), values).frame
            assert np.unique(frame).tolist() == [end]


def test_what_is_blended_in_has_no_colours() -> None:
    with pytest.raises(ValueError, match="one plane"):
        opacity_grid(np.full((2, 2, 3), 100, np.int8))


@pytest.fixture
def marked() -> MarkedImage:
    random = np.random.default_rng(1)
    pixels = random.integers(0, 4096, (3, 20, 30, 1)).astype(np.uint16)
    host = HostImage(pixels=pixels, values=ValueRange(0, 4095))
    steps = random.integers(-127, 128, (2, 8, 8, 1)).astype(np.int8)
    steps[:, :4] = 0
    return cover_image(host, [opacity_grid(s) for s in steps], 2, Ends(100, 3000))


def test_the_format_is_frozen() -> None:
    """What is sealed today must open in twenty years: these bytes never change."""
    places = np.arange(15).reshape(3, 5) % 4 == 0
    hidden = np.array([[7], [65535], [0], [300]], np.uint16)
    key = CoverKey(
        places=(places, places),
        hidden=(hidden, hidden[::-1]),
        host_digest=bytes(32),
        marked_digest=bytes(range(32)),
    )
    encoded = key.to_bytes()
    assert encoded[:2] == b"\x01\x10"
    frozen = bytes.fromhex(
        "011002000000030000000500000001020000000000000000000000000000000000000000"
        "000000000000000000000000000102030405060708090a0b0c0d0e0f1011121314151617"
        "18191a1b1c1d1e1f040000000400000078daebe8e8e86067f8f19f9141875187f1cabfff"
        "ff39180056820852"
    )
    assert encoded[:88] == frozen[:88]  # zlib may deflate otherwise one day
    again = CoverKey.from_bytes(frozen)
    assert (again.host_digest, again.marked_digest) == (bytes(32), bytes(range(32)))
    assert len(again.places) == len(again.hidden) == 2
    for index in range(2):
        np.testing.assert_array_equal(again.places[index], key.places[index])
        np.testing.assert_array_equal(again.hidden[index], key.hidden[index])


def test_one_changed_pixel_is_refused(marked: MarkedImage) -> None:
    pixels = marked.image.whole()
    pixels[2, 19, 29, 0] ^= 1
    with pytest.raises(AlteredImageError):
        restore_image(replace(marked.image, pixels=pixels), marked.key)


def test_a_key_for_fewer_frames_is_refused(marked: MarkedImage) -> None:
    with pytest.raises(WrongKeyError):
        restore_image(
            replace(marked.image, pixels=marked.image.whole()[:2]), marked.key
        )


def test_a_key_that_hides_other_values_never_gives_nearly_the_original(
    marked: MarkedImage,
) -> None:
    assert isinstance(marked.key, CoverKey)
    hidden = marked.key.hidden[0].copy()
    hidden[3] ^= 1
    other = replace(marked.key, hidden=(hidden, *marked.key.hidden[1:]))
    with pytest.raises(RemovalError):
        restore_image(marked.image, other)


def test_a_key_of_another_size_is_refused(marked: MarkedImage) -> None:
    assert isinstance(marked.key, CoverKey)
    places = tuple(where.T for where in marked.key.places)
    with pytest.raises(AlteredImageError):
        restore_image(marked.image, replace(marked.key, places=places))


def test_a_key_for_pixels_of_another_kind_is_refused_by_name(
    marked: MarkedImage,
) -> None:
    assert isinstance(marked.key, CoverKey)
    for other in (
        tuple(np.repeat(values, 3, axis=1) for values in marked.key.hidden),
        tuple(values.astype(np.int16) for values in marked.key.hidden),
    ):
        with pytest.raises(WrongKeyError):
            restore_image(marked.image, replace(marked.key, hidden=other))


def test_every_cut_of_a_key_is_refused(marked: MarkedImage) -> None:
    encoded = marked.key.to_bytes()
    for length in range(len(encoded)):
        with pytest.raises((DamagedSealError, UnknownFormatError)):
            read_key(encoded[:length])


def test_a_key_that_unpacks_to_more_than_it_says_is_refused(
    marked: MarkedImage,
) -> None:
    encoded = bytearray(marked.key.to_bytes())
    for huge in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x40"):
        for offset in (2, 6, 10):  # frames, rows, columns
            forged = bytes(encoded[:offset] + huge + encoded[offset + 4 :])
            with pytest.raises(DamagedSealError):
                read_key(forged)


def test_a_key_of_an_unknown_kind_says_upgrade(marked: MarkedImage) -> None:
    encoded = marked.key.to_bytes()
    for later in (b"\x02" + encoded[1:], encoded[:1] + b"\x11" + encoded[2:]):
        with pytest.raises(UnknownFormatError) as caught:
            read_key(later)
        assert "upgrade" in caught.value.hint


def test_a_logo_on_padding_only_is_no_mark() -> None:
    host = HostImage(
        pixels=np.zeros((1, 4, 4, 1), np.uint8),
        values=ValueRange(0, 255),
        padding=ValueRange(0, 0),
    )
    grid = opacity_grid(np.full((2, 2, 1), 100, np.int8))
    with pytest.raises(MarkingError):
        cover_image(host, [grid], 1, Ends(0, 255))
