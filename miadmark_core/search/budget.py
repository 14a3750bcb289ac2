"""What a mark may show: how far each cell may go, how much in all, and what stays.

Texture hides a mark and smooth tissue shows it; where the finding is, a mark may go half
as far or less; on background and padding it is nothing; and local means hardly move,
since that is what a densitometry reads. The limits hold whatever the search
does: it is projected onto them after each step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from miadmark_core.search.views import SIDE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from miadmark_core.search.views import View

REGION_SHARE: Final = 0.5
"""How far a mark may go in the region of interest, of what it may elsewhere."""

FINDING: Final = 150 / 255
"""The saliency from which a place is in the region of interest: in the middle of what
the paper's code sweeps (110 to 170 of 255)."""

_EDGE: Final = 0.2
"""The saliency over which the limit falls to that of the region."""

MEAN_SIDE: Final = 9
"""Cells along each side of what local means are taken over: a twelfth of the image."""

MOST_MEAN: Final = 0.2
"""Of a full step: how far a local mean may move. Not at all would cost a mark most of
what carries over to classifiers that the search does not know."""


class Budget(NamedTuple):
    """What the marks of a batch of images may show."""

    limit: Tensor
    """``(batch, 1, height, width)``, 0..1: the share of a full step that a cell may
    take."""
    peak: Tensor
    """``(batch, 1, 1, 1)``: what a full step adds, as a share of the view's scale."""
    least_psnr_db: float
    """Of what each window of a view shows."""
    most: Tensor | None = None
    """Like ``limit``: what no cell ever passes; None for a full step."""
    visible: Tensor | None = None
    """``(batch, windows, side, side)``: how much of what is added at a place a window
    shows; None where one window shows all."""

    def part(self, chosen: Tensor) -> Budget:
        """Return the budget of the images that ``chosen`` names."""
        return self._replace(
            limit=self.limit[chosen],
            peak=self.peak[chosen],
            most=None if self.most is None else self.most[chosen],
            visible=None if self.visible is None else self.visible[chosen],
        )

    def escalated(self, least_psnr_db: float) -> Budget:
        """Return more room: the root of each limit, in the region of interest as well.

        For the few images that mislead nobody within the first; no step passes 8/255,
        and background and padding stay.
        """
        limit = self.limit.sqrt()
        if self.most is not None:
            limit = (self.limit / self.most).sqrt() * self.most
        return self._replace(limit=limit, least_psnr_db=least_psnr_db)

    def grown(self, grid: Tensor, side: int) -> Tensor:
        """Return what a grid adds to views of ``side`` rows and columns."""
        return self.peak * functional.interpolate(grid, (side, side), mode="bilinear")

    def kept(self, grid: Tensor, side: int) -> Tensor:
        """Return ``grid`` as near to what it was as the budget allows.

        Args:
            grid: ``(batch, planes, height, width)``, in full steps.
            side: Of the views that the PSNR is of.
        """
        for _ in range(2):
            # Each of the two undoes a little of the other.
            grid = _within(_levelled(grid, self.limit), self.limit)
        return grid * self._room(grid, side).clamp(max=1)

    def filled(self, grid: Tensor, side: int) -> Tensor:
        """Return ``grid`` grown until the budget is spent, as far as limits let it.

        A mark that was found early would be weaker than others, and tell whoever
        measures it how soon it was found.
        """
        for _ in range(3):
            grid = _levelled(grid, self.limit)
            grid = _within(grid * self._room(grid, side).clamp(max=8), self.limit)
        return grid * self._room(grid, side).clamp(max=1)

    def _room(self, grid: Tensor, side: int) -> Tensor:
        """Return by what factor the grid may grow, ``(batch, 1, 1, 1)``."""
        grown = self.grown(grid, side)
        if self.visible is not None:
            # One window after the other: samples and windows both lie in dimension 1.
            shown = [grown * self.visible[:, [n]] for n in range(self.visible.shape[1])]
            squares = [s.square().mean(dim=(1, 2, 3), keepdim=True) for s in shown]
            square = torch.stack(squares).amax(0)
        else:
            square = grown.square().mean(dim=(1, 2, 3), keepdim=True)
        allowed: float = 10 ** (-self.least_psnr_db / 20)
        # The slope of a root is infinite at 0.
        return allowed / square.clamp(min=1e-18).sqrt()


def budget_of(
    views: Sequence[View],
    region: Tensor,
    least_psnr_db: float,
    device: torch.device,
) -> Budget:
    """Return what the marks of some views may show.

    Args:
        views: As many as there are images.
        region: Of interest: ``(batch, 1, side, side)``, 0 outside to 1 inside.
        least_psnr_db: Of what a view shows.
        device: Where the search is.
    """
    limit = torch.stack([v.limit for v in views])[:, None].to(device)
    # Half of one stored value is none: there a cell may take a whole step, or nothing.
    is_coarse = torch.tensor([v.is_coarse for v in views], device=device)
    is_coarse = is_coarse.view(-1, 1, 1, 1)
    padded = torch.stack([v.fixed for v in views])[:, None].to(device)
    is_free = (
        functional.adaptive_avg_pool2d(padded, (limit.shape[2], limit.shape[3])) < 1
    )
    inside = functional.adaptive_avg_pool2d(region, (limit.shape[2], limit.shape[3]))
    has_one = all(len(v.windows) == 1 for v in views)
    return Budget(
        limit=is_free
        * torch.where(
            is_coarse, (limit > 0).to(limit), limit * (1 - (1 - REGION_SHARE) * inside)
        ),
        peak=torch.tensor([v.peak for v in views], device=device).view(-1, 1, 1, 1),
        least_psnr_db=least_psnr_db,
        most=None
        if has_one
        else torch.stack([v.most for v in views])[:, None].to(device),
        visible=None
        if has_one
        else torch.stack([_visible(v) for v in views]).to(device),
    )


def _visible(view: View) -> Tensor:
    """Return how much of what is added each window of a view shows, place by place."""
    grey = view.pixels.mean(dim=0)
    return torch.stack(
        [
            ((grey > w.lower) & (grey < w.upper)).to(grey) / (w.upper - w.lower)
            for w in view.windows
        ]
    )


def region_of(views: Sequence[View], saliencies: Sequence[Tensor]) -> Tensor:
    """Return where the finding is: as somebody drew it, or what surrogates look at.

    Args:
        views: Their ``region`` counts where it is given.
        saliencies: At least one surrogate's, ``(batch, rows, columns)``, at least 0.

    Returns:
        ``(batch, 1, SIDE, SIDE)``, 0 outside to 1 inside.
    """
    region = ((salient(saliencies, SIDE) - FINDING) / _EDGE + 1).clamp(0, 1)
    for number, drawn in enumerate(v.region for v in views):
        if drawn is not None:
            region[number, 0] = drawn.to(region)
    return region


def salient(saliencies: Sequence[Tensor], side: int) -> Tensor:
    """Return how much each place counts for the surrogates, on average.

    Args:
        saliencies: At least one surrogate's, ``(batch, rows, columns)``, at least 0.
        side: Rows and columns of the result.

    Returns:
        ``(batch, 1, side, side)``, 0 to 1 at the most salient place.
    """
    total = saliencies[0].new_zeros(len(saliencies[0]), 1, side, side)
    for saliency in saliencies:
        seen = functional.interpolate(saliency[:, None], (side, side), mode="bilinear")
        total += seen / seen.amax(dim=(2, 3), keepdim=True).clamp(min=1e-9)
    return total / total.amax(dim=(2, 3), keepdim=True).clamp(min=1e-9)


def _within(grid: Tensor, limit: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(grid, -limit), limit)


def _levelled(grid: Tensor, limit: Tensor) -> Tensor:
    """Return ``grid`` without what moves local means too far."""
    may = (limit > 0).to(grid)
    mean = _mean(grid * may) / _mean(may).clamp(min=0.05)
    return (grid - (mean - mean.clamp(-MOST_MEAN, MOST_MEAN))) * may


def _mean(x: Tensor) -> Tensor:
    half = MEAN_SIDE // 2
    padded = functional.pad(x, (half, half, half, half), mode="reflect")
    return functional.avg_pool2d(padded, MEAN_SIDE, stride=1)
