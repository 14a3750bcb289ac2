"""The logos of a visible mark: drawn here from a few letters and shapes, our own work.

Each is a map of how much it covers, to be turned, scaled and faded by whoever places it.
Nothing here knows an image.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Cover = NDArray[np.float32]
    """``(SIDE, SIDE)``, 0 clear to 1 covered; clear along the border."""

SIDE: Final = 64
"""Rows and columns of a logo."""

_LETTERS: Final = {
    "A": (".###.", "#...#", "#...#", "#####", "#...#", "#...#", "#...#"),
    "I": (".###.", "..#..", "..#..", "..#..", "..#..", "..#..", ".###."),
    "N": ("#...#", "##..#", "#.#.#", "#.#.#", "#..##", "#...#", "#...#"),
    "O": (".###.", "#...#", "#...#", "#...#", "#...#", "#...#", ".###."),
}

_CLEARED: Final = 0.1
"""What is left of the cover where letters are cut out of it."""


@cache
def logos() -> dict[str, Cover]:
    """Return every logo by name."""
    drawn = {
        "plate": _plate(),
        "prohibition": _prohibition(),
        "shield": _shield(),
        "copyright": _copyright(),
    }
    return {name: _softened(logo) for name, logo in drawn.items()}


def _plate() -> Cover:
    """Return a plate with "NO AI" cut out of it, in two lines."""
    across, down = _centred()
    inside = (np.abs(across) < 0.9) & (np.abs(down) < 0.9)
    corner = (np.abs(across) > 0.75) & (np.abs(down) > 0.75)
    rounded = np.hypot(np.abs(across) - 0.75, np.abs(down) - 0.75) < 0.15
    return _cut(
        inside & (~corner | rounded),
        _lettered("NO", middle=18) | _lettered("AI", middle=46),
    )


def _prohibition() -> Cover:
    """Return a ring with a bar across the letters "AI"."""
    across, down = _centred()
    radius = np.hypot(across, down)
    bar = (np.abs(across - down) < 0.13) & (radius < 0.8)
    ring = (radius > 0.7) & (radius < 0.94)
    letters = _lettered("AI", middle=32)
    gap = np.abs(across - down) < 0.22
    return (ring | bar | (letters & ~gap)).astype(np.float32)


def _shield() -> Cover:
    """Return a shield with a cross cut out of it."""
    across, down = _centred()
    half = np.where(down < 0.1, 0.84, 0.84 * np.sqrt(np.clip(1.02 - down, 0, 0.92)))
    inside = (np.abs(across) < half) & (down > -0.92) & (down < 0.94)
    upright = (np.abs(across) < 0.14) & (down > -0.66) & (down < 0.6)
    beam = (np.abs(down + 0.2) < 0.14) & (np.abs(across) < 0.56)
    return _cut(inside, upright | beam)


def _copyright() -> Cover:
    """Return the letter C in a ring."""
    across, down = _centred()
    radius = np.hypot(across, down)
    ring = (radius > 0.7) & (radius < 0.94)
    letter = (radius > 0.26) & (radius < 0.5) & ~((across > 0.1) & (np.abs(down) < 0.2))
    return (ring | letter).astype(np.float32)


def _centred() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how far right and down of the middle each place is, -1..1."""
    line = (np.arange(SIDE) + 0.5) / (SIDE / 2) - 1
    across, down = np.meshgrid(line, line)
    return across, down


def _lettered(text: str, *, middle: int) -> NDArray[np.bool_]:
    """Return where ``text`` stands, 21 rows tall about the row ``middle``."""
    rows = [".".join(_LETTERS[letter][row] for letter in text) for row in range(7)]
    dots = np.array([[dot == "#" for dot in row] for row in rows])
    large = dots.repeat(3, axis=0).repeat(3, axis=1)
    page = np.zeros((SIDE, SIDE), np.bool_)
    top, left = middle - large.shape[0] // 2, (SIDE - large.shape[1]) // 2
    page[top : top + large.shape[0], left : left + large.shape[1]] = large
    return page


def _cut(plate: NDArray[np.bool_], letters: NDArray[np.bool_]) -> Cover:
    """Return ``plate`` with ``letters`` cut out of it."""
    return np.where(plate, np.where(letters, _CLEARED, 1), 0).astype(np.float32)


def _softened(logo: Cover) -> Cover:
    """Return ``logo`` with edges of three pixels, so that a turned one is not jagged."""
    wide = np.pad(logo, 1)
    rows = wide[:-2] + 2 * wide[1:-1] + wide[2:]
    soft: Cover = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 16
    return soft
