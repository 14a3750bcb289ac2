"""Find marks for images: choose who is to be misled, batch, search.

This is the door to the search: what goes in and comes out is arrays, not tensors.
"""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import torch

from miadmark_core.search.effort import Effort
from miadmark_core.search.logo import LogoEffort, place_logos
from miadmark_core.search.optimise import optimise
from miadmark_core.search.packs import (
    GENERATOR,
    SURROGATE,
    drawer,
    read_manifest,
    suited,
    surrogate,
)
from miadmark_core.search.views import Window, view

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from miadmark_core.search.generator import Generator
    from miadmark_core.search.optimise import Found, Start
    from miadmark_core.search.packs import Weights
    from miadmark_core.search.surrogate import Surrogate
    from miadmark_core.search.views import View

    Search = Callable[
        [Sequence[View], Sequence[Surrogate], torch.Generator, torch.device], Found
    ]

BATCH: Final = 16

PROFILES: Final[Mapping[str, Effort | LogoEffort]] = {
    "standard": Effort(),
    "fast": Effort(steps=6, drawn_steps=0, only="efficientnet-lite0"),
    "strong": Effort(steps=48, settling=12, escalation=24),
    "logo": LogoEffort(),
}
"""By name; ``fast`` lets a generator draw where there is one, looks through one
surrogate, and misleads less; ``strong`` looks four times as long; ``logo`` is to be
seen."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Wanted:
    """One frame that is to be marked."""

    shown: NDArray[np.float32]
    """``(rows, columns, samples)`` with 1 or 3 samples, 0 to 1: darkest to brightest
    that any of ``windows`` shows."""
    peak: float
    """What a full step adds, in the scale of ``shown``; negative where the frame is
    shown inverted."""
    modality: str
    body_part: str
    seed: int
    """Known to nobody else; at least 0, below 2^63."""
    number: int = 0
    """Which of several frames with one seed it is: each has chance of its own."""
    padding: NDArray[np.bool_] | None = None
    """Which pixels are padding and stay as they are, ``(rows, columns)``; None for
    none."""
    region: NDArray[np.bool_] | None = None
    """Which pixels show a finding, if somebody drew it, ``(rows, columns)``."""
    is_coarse: bool = False
    """Whether a full step moves so few stored values that a part of one moves none."""
    planes: int = 0
    """Of the mark's grid: 1 for the same to every sample; 0 for as many as ``shown``."""
    windows: tuple[Window, ...] = (Window(),)
    """All that people look at the frame through, in the scale of ``shown``; the first
    is what it opens with."""
    spread: NDArray[np.float32] | None = None
    """The darkest and brightest that each pixel is in the frames that get the mark,
    ``(2, rows, columns)``; needed where there are several windows."""


class FoundMark(NamedTuple):
    """The grid for one frame, and whom it misleads."""

    steps: NDArray[np.int8]
    """``(height, width, planes)``; as many planes as were wanted, of a logo one."""
    misled: dict[str, bool]
    """By the surrogate's name."""
    is_logo: bool = False
    """The steps say how opaque a logo is at each place, 127 white to -127 black; they
    are to be blended over the frame, not added to it."""


class Finder:
    """Surrogates in memory, and how hard to look."""

    def __init__(
        self,
        *weights: Path,
        device: torch.device,
        effort: Effort | LogoEffort | None = None,
        search: Search | None = None,
    ) -> None:
        """Read the manifest in ``weights``; networks are loaded when first needed.

        Args:
            weights: Folders with a manifest each. What the first has surrogates for
                it is asked for, the next for the rest.
            device: Where to search.
            effort: How hard, and of what kind the marks are; by default ``standard``.
            search: Takes the place of the search that ships, for comparing.

        Raises:
            WeightsError: There is no manifest.
        """
        self._device, self._other = device, search
        self._folders: dict[str, Path] = {}
        self._listed: list[Weights] = []
        for folder in weights:
            new = [e for e in read_manifest(folder) if e.name not in self._folders]
            self._folders |= dict.fromkeys((entry.name for entry in new), folder)
            self._listed += new
        self._effort = effort or Effort()
        self._loaded: dict[str, Surrogate] = {}
        self._drawers: dict[str, Generator] = {}

    def version(self, modality: str, body_part: str) -> str:
        """Return what tells this search of a kind from others: weights and effort.

        Returns:
            16 hexadecimal digits.
        """
        used = self._surrogates(modality, body_part)
        told = repr((used, self._drawing(modality, body_part), self._effort))
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    @property
    def digest(self) -> str:
        """Return, in a line, the weights, effort and library of this search."""
        listed = sorted(self._listed, key=lambda one: one.name)
        told = hashlib.sha256(repr((listed, self._effort)).encode()).hexdigest()[:16]
        return f"search {told}, torch {torch.__version__}"

    @property
    def sameness(self) -> str:
        """Return, in a line, all that marks depend on beside images and seeds.

        Two searches that say the same find the same, on whatever machines: weights,
        effort, library, device, and how many threads split a sum on what processor.
        """
        if self._device.type == "cuda":
            where = torch.cuda.get_device_name(self._device)
        else:
            kind = torch.backends.cpu.get_cpu_capability()
            where = f"{_processor()} {kind} {torch.get_num_threads()} threads"
        return f"{self.digest}, {where}"

    def find(self, wanted: Sequence[Wanted]) -> list[FoundMark]:
        """Return a mark for each frame, in order.

        Frames of one kind are searched together, ``BATCH`` at a time, and on a CPU in
        parts side by side, which share the cores. Each draws from its own seed alone:
        the same frame gets the same mark in whatever company, but for how arithmetic
        rounds there, and the very same in the same company.

        Raises:
            WeightsError: The weights that are needed cannot be loaded.
        """
        found: dict[int, FoundMark] = {}
        kinds: dict[tuple[int, int, tuple[str, ...], Weights | None], list[int]] = {}
        for index, frame in enumerate(wanted):
            listed = self._surrogates(frame.modality, frame.body_part)
            drawing = self._drawing(frame.modality, frame.body_part)
            if len(frame.windows) > 1:
                drawing = None  # it has seen pictures behind one window only
            names = tuple(w.name for w in listed)
            kind = (_planes(frame), len(frame.windows), names, drawing)
            kinds.setdefault(kind, []).append(index)
        for (planes, _, names, drawing), indices in kinds.items():
            start = self._start(drawing, planes)
            surrogates = [self._surrogate(name) for name in names]
            for first in range(0, len(indices), BATCH):
                chosen = indices[first : first + BATCH]
                batch = [wanted[i] for i in chosen]
                result = self._search(batch, surrogates, start)
                for i, steps, misled in zip(
                    chosen, result.steps.numpy(), result.misled.tolist(), strict=True
                ):
                    found[i] = FoundMark(
                        steps,
                        dict(zip(names, misled, strict=True)),
                        is_logo=isinstance(self._effort, LogoEffort),
                    )
        return [found[index] for index in range(len(wanted))]

    def ask(self, wanted: Sequence[Wanted]) -> Callable[[], list[FoundMark]]:
        """Return what finds a mark for each frame, when it is called; see :meth:`find`.

        Whoever searches on other machines is at it at once, and is asked likewise.
        """
        return partial(self.find, wanted)

    def _search(
        self,
        batch: Sequence[Wanted],
        surrogates: Sequence[Surrogate],
        start: Start | None,
    ) -> Found:
        views, chance = [_view(w) for w in batch], [_chance(w) for w in batch]
        if self._other is not None:
            return self._other(views, surrogates, chance[0], self._device)
        if isinstance(self._effort, LogoEffort):
            return place_logos(views, surrogates, self._effort, chance, self._device)
        return optimise(views, surrogates, self._effort, chance, self._device, start)

    def _surrogates(self, modality: str, body_part: str) -> list[Weights]:
        """Return whom to look through for a kind of image."""
        found = self._suited(modality, body_part, SURROGATE)
        only = self._effort.only if isinstance(self._effort, Effort) else ""
        return [entry for entry in found if entry.network == only] or found

    def _suited(self, modality: str, body_part: str, role: str) -> list[Weights]:
        """Return what the first folder that has any has for a kind of image."""
        found = suited(self._listed, modality, body_part, role)
        folders = [self._folders[entry.name] for entry in found]
        return [e for e, f in zip(found, folders, strict=True) if f == folders[0]]

    def _drawing(self, modality: str, body_part: str) -> Weights | None:
        """Return the generator for a kind of image, if there is one to be asked."""
        if not isinstance(self._effort, Effort) or self._effort.drawn_steps is None:
            return None
        through = self._suited(modality, body_part, SURROGATE)[0]
        for entry in self._suited(modality, body_part, GENERATOR):
            # One that was trained against others would draw what misleads nobody here.
            is_theirs = self._folders[entry.name] == self._folders[through.name]
            if is_theirs and entry.classes == through.classes:
                return entry
        return None

    def _start(self, drawing: Weights | None, planes: int) -> Start | None:
        """Return what draws starts of so many planes, or None for noise."""
        if drawing is None:
            return None
        if drawing.name not in self._drawers:
            folder = self._folders[drawing.name]
            self._drawers[drawing.name] = drawer(folder, drawing, self._device)
        found = self._drawers[drawing.name]
        return found.start if found.planes == planes else None

    def _surrogate(self, name: str) -> Surrogate:
        if name not in self._loaded:
            entry: Weights = next(w for w in self._listed if w.name == name)
            self._loaded[name] = surrogate(self._folders[name], entry, self._device)
        return self._loaded[name]


def _processor() -> str:
    """Return what the processor calls itself: sums are split by its caches."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.machine()
    named = (one.partition(":")[2].strip() for one in lines if "model name" in one)
    return next(named, platform.machine())


def _chance(frame: Wanted) -> torch.Generator:
    """Return what a frame draws from."""
    seed = frame.seed
    if frame.number:
        told = hashlib.sha256(f"{frame.seed} {frame.number}".encode()).digest()
        seed = int.from_bytes(told[:8]) >> 1
    return torch.Generator().manual_seed(seed)


def _planes(frame: Wanted) -> int:
    return frame.planes or frame.shown.shape[2]


def _view(frame: Wanted) -> View:
    seen = view(
        frame.shown,
        frame.peak,
        frame.padding,
        frame.region,
        is_coarse=frame.is_coarse,
        windows=frame.windows,
        spread=frame.spread,
    )
    return seen._replace(planes=_planes(frame))


def best_device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
