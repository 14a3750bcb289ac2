"""Hypothesis strategies: every way of storing an image, and marks of any strength."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from miadmark_core.covering import Ends, opacity_grid
from miadmark_core.image import HostImage, ValueRange
from miadmark_core.mark import MAX_AMPLITUDE, MarkGrid


@st.composite
def host_images(draw: st.DrawFn) -> HostImage:
    """1 to 16 bits, signed or not, 1 or 3 samples, with padding or not, rails likely."""
    values = ValueRange.stored(draw(st.integers(1, 16)), signed=draw(st.booleans()))
    side = st.integers(1, 9)
    shape = (
        draw(st.integers(1, 3)),
        draw(side),
        draw(side),
        draw(st.sampled_from([1, 3])),
    )
    anywhere = st.integers(*values) | st.sampled_from([values.lower, values.upper])
    pixels = draw(arrays(values.dtype, shape, elements=anywhere))
    padding = None
    if draw(st.booleans()):
        ends = sorted([draw(anywhere), draw(anywhere)])
        padding = ValueRange(*ends)
    return HostImage(pixels=pixels, values=values, padding=padding)


@st.composite
def grids(draw: st.DrawFn, planes: int = 1) -> MarkGrid:
    shape = (draw(st.integers(1, 6)), draw(st.integers(1, 6)), planes)
    steps = draw(arrays(np.int8, shape, elements=st.integers(-127, 127)))
    return MarkGrid(steps, draw(st.integers(1, MAX_AMPLITUDE)))


@st.composite
def marked_cases(draw: st.DrawFn) -> tuple[HostImage, list[MarkGrid], int]:
    """An image, grids for its frames, and how many frames share one."""
    host = draw(host_images())
    frames_per_grid = draw(st.integers(1, 3))
    count = -(-len(host.pixels) // frames_per_grid)
    first = draw(grids(draw(st.sampled_from([1, host.pixels.shape[3]]))))
    rest = [
        MarkGrid(
            draw(arrays(np.int8, first.steps.shape, elements=st.integers(-127, 127))),
            draw(st.integers(1, MAX_AMPLITUDE)),
        )
        for _ in range(count - 1)
    ]
    return host, [first, *rest], frames_per_grid


@st.composite
def covered_cases(draw: st.DrawFn) -> tuple[HostImage, list[MarkGrid], int, Ends]:
    """An image, opacities for its frames, how many share some, and black and white."""
    host, grids, frames_per_grid = draw(marked_cases())
    opacities = [opacity_grid(grid.steps[..., :1]) for grid in grids]
    # Windows reach beyond what can be stored, and may be inverted.
    end = st.integers(-(1 << 17), 1 << 17) | st.sampled_from([*host.values, 1 << 70])
    return host, opacities, frames_per_grid, Ends(draw(end), draw(end))
