"""What an evaluation has already worked out, so that an interrupted one goes on.

One file of arrays for each piece of work, named by what it depends on, written whole or
not at all. Nothing here knows what the arrays mean.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[np.generic]]


class Store:
    """A folder of finished pieces of work."""

    def __init__(self, folder: Path) -> None:
        """Open ``folder``; it is made if it is not there."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def arrays(
        self,
        name: str,
        depends_on: object,
        make: Callable[[], Mapping[str, NDArray[np.generic]]],
    ) -> Arrays:
        """Return a piece of work: read if it was finished before, else made.

        Args:
            name: For people: the start of the file's name.
            depends_on: Whatever would change the result; its ``repr`` counts.
            make: Does the work.
        """
        file = self._folder / f"{name}-{digest(depends_on)}.npz"
        if not file.exists():
            aside = file.with_suffix(".part")
            with aside.open("wb") as whole:
                np.savez_compressed(whole, **make())  # type: ignore[arg-type]
                whole.flush()
                os.fsync(whole.fileno())
            aside.replace(file)
        with np.load(file) as loaded:
            return dict(loaded)


def digest(depends_on: object) -> str:
    """Return 16 hexadecimal digits that stand for the ``repr`` of something."""
    return hashlib.sha256(repr(depends_on).encode()).hexdigest()[:16]


def pixels_digest(pixels: NDArray[np.generic]) -> str:
    """Return 16 hexadecimal digits that stand for an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()[:16]
