"""A picture: pixels and how they are shown, and what a mark may do to it.

The budget is kept here: how strong a mark is in stored values, how much of it may show,
and that no frame goes out as it came. Nothing here knows objects, keys or records, or how
marks are found; the search is imported only when something is wanted of it, so that
this module needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from miadmark_core.covering import Ends, opacity_grid
from miadmark_core.errors import MarkingError
from miadmark_core.mark import MarkGrid, amplitude_for
from miadmark_core.marking import cover_image, mark_image
from miadmark_core.metrics import psnr_db, reduced, ssim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from dicom_node.looks import Presentation
    from miadmark_core.image import DisplayWindow, HostImage
    from miadmark_core.marking import MarkedImage
    from miadmark_core.metrics import Shown
    from miadmark_core.search.finder import FoundMark, Wanted
    from miadmark_core.search.views import Window

FRAMES_PER_GRID: Final = 4
"""Neighbouring frames that share a grid: work saved, and little gained by averaging: of
64 frames a sixteenth has the same mark."""

COARSE_PEAK: Final = 2
"""Stored values of a full step, up to which the least that a limit leaves of it, a fifth,
is rounded to nothing."""

SCREEN_SIDE: Final = 1024
"""Rows or columns at which similarity is looked at, at most: it takes longer than all
else that is done to a large image."""

LEAST_PSNR_DB: Final = 35.0
"""Of every frame, as the display window shows it; logos are there to be seen."""


class MarkedPicture(NamedTuple):
    """A marked image, and how much of the mark shows."""

    marked: MarkedImage
    psnr_db: float
    """Of the worst frame."""
    ssim: float
    """Of the worst frame that was looked at, one for each grid; of a large one as a
    screen of ``SCREEN_SIDE`` pixels shows it."""
    share: float
    """Of the mark that was found, 1 unless it would have shown too much."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """An image and how it is shown."""

    image: HostImage
    presentations: Sequence[Presentation]
    """Of each frame."""
    colours: Callable[[int], NDArray[np.float32]] | None = None
    """What makes the colours of a frame whose image is its luminance."""

    def wanted(
        self,
        *,
        modality: str,
        body_part: str,
        seed: int,
        region: NDArray[np.bool_] | None = None,
    ) -> Iterator[Wanted]:
        """Yield one frame for each grid: of those that share it, the fullest.

        Args:
            modality: The object's; empty if not given.
            body_part: Likewise.
            seed: Of the search.
            region: Where somebody drew a finding on a single frame, ``(rows, columns)``;
                one of another size is left out of account.

        A picture that is grey in three samples is marked as a grey one: colours would
        show, and come off with a mean over the samples.
        """
        from miadmark_core.search.finder import Wanted

        frames, *sides, samples = self.image.pixels.shape
        is_drawn_here = region is not None and (1, *region.shape) == (frames, *sides)
        planes = (
            1 if all((f == f[..., :1]).all() for f in self.image.pixels) else samples
        )
        for order, start in enumerate(range(0, frames, FRAMES_PER_GRID)):
            number = self._fullest(start)
            shows, peak = self.presentations[number], self._peak(order)
            whole = shows.whole
            if self.colours is None:
                shown = whole.shown(self.image.pixels[number][..., :planes])
            else:
                shown = self.colours(number)
            yield Wanted(
                shown=shown,
                peak=peak / whole.width * (-1 if whole.is_inverted else 1),
                modality=modality,
                body_part=body_part,
                seed=seed,
                number=order,
                padding=self._padding(number),
                region=region if is_drawn_here else None,
                is_coarse=peak <= COARSE_PEAK,
                planes=planes,
                windows=_windows(shows, peak),
                spread=self._spread(order, whole) if len(shows.looks) > 1 else None,
            )

    def marked(self, found: Sequence[FoundMark]) -> MarkedPicture:
        """Return the picture with the marks that were found, in the order of the grids.

        A faint mark is made weaker than it was found if it would show more than it may.

        Raises:
            MarkingError: No mark is within the budget, or a frame with something in it
                would leave as it is.
        """
        steps = [mark.steps for mark in found]
        make = self._covered if found[0].is_logo else self._faint
        marked, psnr, share = make(steps)
        self._require_a_mark_in_every_frame(marked)
        similarity = min(
            ssim(reduced(before, SCREEN_SIDE), reduced(after, SCREEN_SIDE))
            for number in range(0, len(self.image.pixels), FRAMES_PER_GRID)
            for before, after in self._seen(marked, number)
        )
        return MarkedPicture(marked, psnr, similarity, share)

    def _has_colours(self, number: int) -> bool:
        """Say whether a frame of one luminance shows something all the same."""
        if self.colours is None:
            return False
        return float(np.ptp(self.colours(number), axis=(0, 1)).max()) > 0

    def _sharing(self, order: int) -> range:
        """Return the frames that share a grid."""
        start = order * FRAMES_PER_GRID
        return range(start, min(start + FRAMES_PER_GRID, len(self.image.pixels)))

    def _fullest(self, start: int) -> int:
        """Return the frame that shows most, of those that share a grid."""
        frames = self._sharing(start // FRAMES_PER_GRID)
        if len(frames) == 1:
            return start
        return max(frames, key=lambda n: float(self._shown(self.image, n).std()))

    def _peak(self, order: int) -> int:
        """Return what a full step of a grid adds: no more than any of its frames allows.

        Frames with no room at all are not asked; they cannot show anything either.
        """
        peaks = [self.presentations[number].peak for number in self._sharing(order)]
        return min(filter(None, peaks), default=0)

    def _shown(self, image: HostImage, number: int) -> Shown:
        return self.presentations[number].window.shown(image.pixels[number])

    def _spread(self, order: int, window: DisplayWindow) -> NDArray[np.float32]:
        """Return the darkest and brightest of each pixel in the frames of a grid."""
        frames = [
            window.shown(self.image.pixels[number])[..., 0]
            for number in self._sharing(order)
        ]
        return np.stack([np.minimum.reduce(frames), np.maximum.reduce(frames)])

    def _padding(self, number: int) -> NDArray[np.bool_] | None:
        """Return which pixels of a frame no logo shows on: those with a padded sample."""
        if self.image.padding is None:
            return None
        lower, upper = self.image.padding
        frame = self.image.pixels[number]
        padded: NDArray[np.bool_] = np.any((frame >= lower) & (frame <= upper), axis=-1)
        return padded

    def _faint(
        self, steps: Sequence[NDArray[np.int8]]
    ) -> tuple[MarkedImage, float, float]:
        # A grid whose frames have no room is all but 0: nothing is seen of it.
        amplitudes = [
            amplitude_for(max(1, self._peak(order))) for order in range(len(steps))
        ]
        share = 1.0
        while share > 0.2:
            grids = [
                MarkGrid(np.rint(s * share).astype(np.int8), amplitude)
                for s, amplitude in zip(steps, amplitudes, strict=True)
            ]
            marked = mark_image(self.image, grids, FRAMES_PER_GRID)
            psnr = self._psnr_db(marked)
            if psnr >= LEAST_PSNR_DB:
                return marked, psnr, share
            share *= min(0.95, 10 ** ((psnr - LEAST_PSNR_DB) / 20))
        raise MarkingError(
            f"no mark stays above {LEAST_PSNR_DB} dB in every frame",
            hint="The frames are shown with windows too different for one mark.",
        )

    def _covered(
        self, steps: Sequence[NDArray[np.int8]]
    ) -> tuple[MarkedImage, float, float]:
        window = self.presentations[0].window
        ends = Ends(round(window.lower), round(window.upper))
        if window.is_inverted:
            ends = Ends(*reversed(ends))
        grids = [opacity_grid(s) for s in steps]
        marked = cover_image(self.image, grids, FRAMES_PER_GRID, ends)
        return marked, self._psnr_db(marked), 1.0

    def _psnr_db(self, marked: MarkedImage) -> float:
        """Return the PSNR of the worst frame, in the window where most is seen."""
        return min(
            psnr_db(before, after)
            for number in range(len(self.image.pixels))
            for before, after in self._seen(marked, number)
        )

    def _seen(self, marked: MarkedImage, number: int) -> Iterator[tuple[Shown, Shown]]:
        """Yield a frame before and after as each of its windows shows it."""
        frames = (self.image.pixels[number], marked.image.pixels[number])
        for look in self.presentations[number].looks:
            before, after = (look.window.shown(frame) for frame in frames)
            yield before, after

    def _require_a_mark_in_every_frame(self, marked: MarkedImage) -> None:
        """Return if no frame with something in it is as it was.

        Raises:
            MarkingError: One is: it would leave unmarked.
        """
        for number, frame in enumerate(self.image.pixels):
            if np.array_equal(frame, marked.image.pixels[number]) and (
                frame.min() != frame.max() or self._has_colours(number)
            ):
                raise MarkingError(
                    f"frame {number + 1} would leave unmarked",
                    hint="What it shows is too flat, or too dark, for a mark.",
                )


def _windows(shows: Presentation, peak: int) -> tuple[Window, ...]:
    """Return how a frame is looked at, in the scale of all that is shown of it."""
    from miadmark_core.search.views import Window

    found = []
    for look in shows.looks:
        ends = np.array([look.window.lower, look.window.upper])
        lower, upper = (ends - shows.whole.lower) / shows.whole.width
        if shows.whole.is_inverted:
            lower, upper = 1 - upper, 1 - lower
        share = min(1.0, look.peak / peak) if peak else 1.0
        found.append(Window(float(lower), float(upper), share))
    return tuple(found)
