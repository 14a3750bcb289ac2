"""Find marks for images: choose who is to be misled, batch, search.

This is the door to the search: what goes in and comes out is arrays, not tensors.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import torch

from miadmark_core.search.logo import LogoEffort, place_logos
from miadmark_core.search.optimise import Effort, optimise
from miadmark_core.search.packs import read_manifest, suited, surrogate
from miadmark_core.search.views import view

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from miadmark_core.search.optimise import Found
    from miadmark_core.search.packs import Weights
    from miadmark_core.search.surrogate import Surrogate
    from miadmark_core.search.views import View

    Search = Callable[
        [Sequence[View], Sequence[Surrogate], torch.Generator, torch.device], Found
    ]

BATCH: Final = 16

PROFILES: Final[Mapping[str, Effort | LogoEffort]] = {
    "standard": Effort(),
    "fast": Effort(steps=12),
    "logo": LogoEffort(),
}
"""By name; ``fast`` looks a quarter as long, and misleads less; ``logo`` is visible."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Wanted:
    """One frame that is to be marked."""

    shown: NDArray[np.float32]
    """``(rows, columns, samples)`` with 1 or 3 samples, 0 black to 1 white."""
    peak: float
    """What a full step adds, as a share of the display window; negative where the frame
    is shown inverted."""
    modality: str
    body_part: str
    seed: int
    """Known to nobody else; at least 0, below 2^63."""
    padding: NDArray[np.bool_] | None = None
    """Which pixels are padding and stay as they are, ``(rows, columns)``; None for
    none."""


class FoundMark(NamedTuple):
    """The grid for one frame, and whom it misleads."""

    steps: NDArray[np.int8]
    """``(height, width, planes)``; as many planes as the frame has samples, of a logo
    one."""
    misled: dict[str, bool]
    """By the surrogate's name."""
    is_logo: bool = False
    """The steps say how opaque a logo is at each place, 127 white to -127 black; they
    are to be blended over the frame, not added to it."""


class Finder:
    """Surrogates in memory, and how hard to look."""

    def __init__(
        self,
        weights: Path,
        *,
        device: torch.device,
        effort: Effort | LogoEffort | None = None,
        search: Search | None = None,
    ) -> None:
        """Read the manifest in ``weights``; networks are loaded when first needed.

        Args:
            weights: Has a manifest.
            device: Where to search.
            effort: How hard, and of what kind the marks are; by default ``standard``.
            search: Takes the place of the search that ships, for comparing.

        Raises:
            WeightsError: There is no manifest.
        """
        self._folder, self._device, self._other = weights, device, search
        self._listed = read_manifest(weights)
        self._effort = effort or Effort()
        self._loaded: dict[str, Surrogate] = {}

    def version(self, modality: str, body_part: str) -> str:
        """Return what tells this search of a kind from others: weights and effort.

        Returns:
            16 hexadecimal digits.
        """
        told = repr((suited(self._listed, modality, body_part), self._effort))
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def find(self, wanted: Sequence[Wanted]) -> list[FoundMark]:
        """Return a mark for each frame, in order.

        Frames of one kind are searched together, ``BATCH`` at a time. The same frames
        in the same order and with the same seeds get the same marks.

        Raises:
            WeightsError: The weights that are needed cannot be loaded.
        """
        found: dict[int, FoundMark] = {}
        kinds: dict[tuple[int, tuple[str, ...]], list[int]] = {}
        for index, frame in enumerate(wanted):
            listed = suited(self._listed, frame.modality, frame.body_part)
            kind = (frame.shown.shape[2], tuple(w.name for w in listed))
            kinds.setdefault(kind, []).append(index)
        for (_, names), indices in kinds.items():
            surrogates = [self._surrogate(name) for name in names]
            for start in range(0, len(indices), BATCH):
                chosen = indices[start : start + BATCH]
                result = self._search(
                    [_view(wanted[i]) for i in chosen],
                    surrogates,
                    torch.Generator().manual_seed(wanted[chosen[0]].seed),
                )
                for i, steps, misled in zip(
                    chosen, result.steps.numpy(), result.misled.tolist(), strict=True
                ):
                    found[i] = FoundMark(
                        steps,
                        dict(zip(names, misled, strict=True)),
                        is_logo=isinstance(self._effort, LogoEffort),
                    )
        return [found[index] for index in range(len(wanted))]

    def _search(
        self,
        views: Sequence[View],
        surrogates: Sequence[Surrogate],
        generator: torch.Generator,
    ) -> Found:
        if self._other is not None:
            return self._other(views, surrogates, generator, self._device)
        if isinstance(self._effort, LogoEffort):
            return place_logos(views, surrogates, self._effort, generator, self._device)
        return optimise(views, surrogates, self._effort, generator, self._device)

    def _surrogate(self, name: str) -> Surrogate:
        if name not in self._loaded:
            entry: Weights = next(w for w in self._listed if w.name == name)
            self._loaded[name] = surrogate(self._folder, entry, self._device)
        return self._loaded[name]


def _view(frame: Wanted) -> View:
    return view(frame.shown, frame.peak, frame.padding)


def best_device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
