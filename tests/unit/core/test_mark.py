"""A grid grows the same way on every machine, and never overflows."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miadmark_core.errors import UnsupportedImageError
from miadmark_core.mark import (
    AMPLITUDE_UNIT,
    FULL_STEP,
    MAX_AMPLITUDE,
    MarkGrid,
    amplitude_for,
)
from tests.strategies import grids


def exactly(grid: MarkGrid, rows: int, columns: int) -> np.ndarray:
    """The same in Python's own integers, pixel by pixel."""

    def place(index: int, size: int, cells: int) -> tuple[int, int, int]:
        centre = (2 * index + 1) * cells * 128 // (2 * size) - 64
        centre = min(max(centre, 0), (cells - 1) * 128)
        return centre >> 7, min((centre >> 7) + 1, cells - 1), centre & 127

    planes = grid.steps.shape[2]
    result = np.empty((rows, columns, planes), object)
    steps = grid.steps.astype(object)
    for row in range(rows):
        a, b, v = place(row, rows, len(steps))
        for column in range(columns):
            c, d, w = place(column, columns, steps.shape[1])
            top = steps[a, c] * (128 - w) + steps[a, d] * w
            low = steps[b, c] * (128 - w) + steps[b, d] * w
            value = (top * (128 - v) + low * v + 128) >> 8
            result[row, column] = (value * grid.amplitude + (1 << 17)) >> 18
    return result


@given(st.sampled_from([1, 3]).flatmap(grids), st.integers(1, 12), st.integers(1, 12))
def test_thirty_two_bits_are_enough(grid: MarkGrid, rows: int, columns: int) -> None:
    grown = grid.values(rows, columns)
    assert grown.dtype == np.int32
    np.testing.assert_array_equal(grown, exactly(grid, rows, columns))


def test_the_strongest_grid_does_not_overflow() -> None:
    for sign in (1, -1):
        steps = np.full((256, 256, 1), sign * FULL_STEP, np.int8)
        grown = MarkGrid(steps, MAX_AMPLITUDE).values(512, 512)
        assert np.unique(grown).tolist() == [sign * 8128]


def test_the_arithmetic_is_frozen() -> None:
    """Marks made today must come off in twenty years: this digest never changes."""
    steps = (np.arange(48 * 40) * 7919 % 255 - 127).astype(np.int8).reshape(48, 40, 1)
    grown = MarkGrid(steps, 100_003).values(301, 211)
    digest = hashlib.sha256(grown.astype("<i4").tobytes()).hexdigest()
    assert digest == "97113927d8bbf0630d8a3efa33e634c7b5418de7682a83918481c8ddccde69e2"


def test_a_peak_is_not_exceeded() -> None:
    for peak in (1, 8, 100, 2056, 8126):
        steps = np.full((2, 2, 1), FULL_STEP, np.int8)
        assert MarkGrid(steps, amplitude_for(peak)).values(1, 1).max() <= peak


@pytest.mark.parametrize("peak", [0, -3, 8129], ids=["nothing", "negative", "too much"])
def test_a_peak_out_of_reach_is_refused(peak: int) -> None:
    with pytest.raises(UnsupportedImageError):
        amplitude_for(peak)


@pytest.mark.parametrize(
    ("steps", "amplitude"),
    [
        pytest.param(np.full((2, 2, 1), -128, np.int8), 1, id="-128"),
        pytest.param(np.zeros((2, 2, 1), np.int16), 1, id="int16"),
        pytest.param(np.zeros((2, 2), np.int8), 1, id="no planes"),
        pytest.param(np.zeros((2, 2, 2), np.int8), 1, id="two planes"),
        pytest.param(np.zeros((257, 2, 1), np.int8), 1, id="257 cells"),
        pytest.param(np.zeros((2, 2, 1), np.int8), 0, id="no amplitude"),
        pytest.param(
            np.zeros((2, 2, 1), np.int8), 64 * AMPLITUDE_UNIT, id="too strong"
        ),
    ],
)
def test_a_grid_that_could_overflow_is_refused(
    steps: np.ndarray, amplitude: int
) -> None:
    with pytest.raises(ValueError, match=r"grid|step|amplitude"):
        MarkGrid(steps, amplitude)
