"""Images that are searched together, and the eyes that look at them.

Where people look at an image through several windows, each surrogate looks through each
of them: an eye is a surrogate behind a window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from miadmark_core.search.budget import Budget
    from miadmark_core.search.surrogate import Surrogate
    from miadmark_core.search.views import View


class Eye(NamedTuple):
    """A surrogate that looks through one of the windows of each image."""

    surrogate: Surrogate
    window: int


class Batch(NamedTuple):
    """Images, what their marks may show, and what they are led away from."""

    is_coloured: bool
    pixels: Tensor
    """``(batch, 3, side, side)``, in the scale of the views."""
    ends: Tensor | None
    """From :func:`ends_of`."""
    budget: Budget
    anchors: tuple[Tensor, ...]
    """For each eye, ``(batch, ...)``."""

    def part(self, chosen: Tensor) -> Batch:
        """Return the images that ``chosen`` names."""
        return Batch(
            self.is_coloured,
            self.pixels[chosen],
            None if self.ends is None else self.ends[chosen],
            self.budget.part(chosen),
            tuple(anchor[chosen] for anchor in self.anchors),
        )

    def marked(self, grid: Tensor) -> Tensor:
        """Return the images with ``grid``; differentiable."""
        grown = self.budget.grown(grid, self.pixels.shape[-1])
        return (self.pixels + grown).clamp(0, 1)

    def seen(self, marked: Tensor, eye: Eye) -> Tensor:
        """Return what an eye is shown of marked images, 0..1; differentiable."""
        return through(marked, self.ends, eye.window)

    def kept(self, grid: Tensor) -> Tensor:
        """Return ``grid`` as near to what it was as the budget allows."""
        return self.budget.kept(grid, self.pixels.shape[-1])


def moved(pixels: Tensor, device: torch.device) -> Tensor:
    """Return pixels on a device; a GPU fetches them while the CPU goes on."""
    if device.type != "cuda":
        return pixels.to(device)
    return pixels.pin_memory().to(device, non_blocking=True)


def eyes_on(views: Sequence[View], surrogates: Sequence[Surrogate]) -> list[Eye]:
    """Return each surrogate behind each window, one window after the other.

    Args:
        views: All with as many windows.
        surrogates: Who looks.
    """
    count = len(views[0].windows)
    return [Eye(surrogate, n) for n in range(count) for surrogate in surrogates]


def ends_of(views: Sequence[View], device: torch.device) -> Tensor | None:
    """Return the ends of the windows of some views.

    Returns:
        ``(batch, windows, 2)``, black and white; None where one window shows all.
    """
    if all(len(v.windows) == 1 for v in views):
        return None
    ends = [[(w.lower, w.upper) for w in v.windows] for v in views]
    return torch.tensor(ends, device=device)


def through(pixels: Tensor, ends: Tensor | None, window: int) -> Tensor:
    """Return pixels of views as one of their windows shows them, 0..1."""
    if ends is None:
        return pixels
    lower, upper = (ends[:, window, n].view(-1, 1, 1, 1) for n in range(2))
    return ((pixels - lower) / (upper - lower)).clamp(0, 1)
