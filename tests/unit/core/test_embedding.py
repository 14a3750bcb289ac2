"""The promise of the whole project: what comes out is what went in."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from miadmark_core.embedding import embed, remove
from miadmark_core.image import HostImage, ValueRange
from tests.strategies import host_images


@st.composite
def cases(draw: st.DrawFn) -> tuple[HostImage, np.ndarray]:
    host = draw(host_images())
    rows, columns = host.pixels.shape[1:3]
    planes = draw(st.sampled_from([1, host.pixels.shape[3]]))
    shape = (rows, columns, planes)
    mark = draw(arrays(np.int32, shape, elements=st.integers(-8127, 8127)))
    return host, mark


@given(cases())
def test_remove_undoes_embed(case: tuple[HostImage, np.ndarray]) -> None:
    host, mark = case
    frame = host.pixels[0]
    marked = embed(frame, mark, host.values, host.padding)
    restored = remove(marked, mark, host.values, host.padding)
    assert restored.dtype == frame.dtype
    np.testing.assert_array_equal(restored, frame)


@given(cases())
def test_a_marked_image_stays_in_range(case: tuple[HostImage, np.ndarray]) -> None:
    host, mark = case
    frame = embed(host.pixels[0], mark, host.values, host.padding).frame
    assert host.values.lower <= frame.min() <= frame.max() <= host.values.upper


@given(cases())
def test_padding_is_neither_made_nor_unmade(case: tuple[HostImage, np.ndarray]) -> None:
    host, mark = case
    if host.padding is None:
        return
    frame = embed(host.pixels[0], mark, host.values, host.padding).frame
    lower, upper = host.padding
    before = (host.pixels[0] >= lower) & (host.pixels[0] <= upper)
    np.testing.assert_array_equal((frame >= lower) & (frame <= upper), before)


@given(host_images())
def test_no_mark_changes_nothing(host: HostImage) -> None:
    mark = np.zeros((*host.pixels.shape[1:3], 1), np.int32)
    marked = embed(host.pixels[0], mark, host.values, host.padding)
    np.testing.assert_array_equal(marked.frame, host.pixels[0])
    assert marked.stopped.size == 0


def test_black_and_white_images_come_back() -> None:
    values = ValueRange(0, 255)
    mark = np.full((4, 4, 1), -8, np.int32)
    mark[::2] = 8
    for level in (0, 255):
        host = np.full((4, 4, 1), level, np.uint8)
        marked = embed(host, mark, values)
        assert marked.stopped.size == 8
        np.testing.assert_array_equal(remove(marked, mark, values), host)
