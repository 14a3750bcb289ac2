"""The search: a short loop that leads an image away from what surrogates see in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from miadmark_core.mark import FULL_STEP
from miadmark_core.mode import Mode
from miadmark_core.search.aim import Aim
from miadmark_core.search.budget import Budget, budget_of, region_of
from miadmark_core.search.transform import transformed
from miadmark_core.search.views import GRID_SIDE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from miadmark_core.search.surrogate import Surrogate
    from miadmark_core.search.views import View

    Start = Callable[[Tensor, Budget, Sequence[Tensor], torch.Generator], Tensor]
    """Of pixels, their budget, the surrogates' anchors, and chance: a grid each,
    ``(batch, planes, height, width)``, in full steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How hard to look, and how much the result may show."""

    steps: int = 28
    """Each through one surrogate, by turns, and through random changes."""
    drawn_steps: int | None = None
    """The same where a generator draws the start; None not to ask it."""
    settling: int = 8
    """Steps after these, through all surrogates that are not misled yet, unchanged."""
    step_size: float = 0.4
    """Of a full step; the root mean square of the first move. Later ones shrink evenly
    to a tenth, so that the last ones settle rather than wander."""
    decay: float = 0.9
    """How much of the last direction is kept."""
    least_psnr_db: float = 36.2
    """Of what a view shows; a little above what is promised, since rounding adds."""
    escalated_psnr_db: float = 35.1
    """The same for what misleads nobody otherwise."""
    escalation: int = 16
    """Steps more, through random changes, for what misleads nobody otherwise."""
    margin: float = 8.0
    """In logits: how thoroughly a surrogate is misled before it stops pulling."""
    mode: Mode = Mode.AUTO
    """What images are led to."""
    slope: float = 0.5
    """How steeply the spectrum of each move falls, as a power of the frequency: images
    fall with about 1, and what falls as they do is hardest to filter off."""
    cells: int = GRID_SIDE
    """Of the grid that differ, along each side; ``GRID_SIDE`` over a whole number."""
    is_changed: bool = True
    """Whether the surrogates see the image through random changes."""
    only: str = ""
    """The one kind of network to look through; all if empty, or if none is of it."""

    def __post_init__(self) -> None:
        """Refuse cells that do not divide the grid."""
        if self.cells < 1 or GRID_SIDE % self.cells:
            raise ValueError(f"{self.cells} cells do not divide {GRID_SIDE}")


START_SIZE: Final = 0.15
"""Of a full step; the root mean square of a random start."""

LOOK_AGAIN: Final = 4
"""A surrogate is shown the images that were not where they are led when it saw them
last, and every so many turns all of them: what is misled already costs nothing."""


class Found(NamedTuple):
    """What the search came to."""

    steps: Tensor
    """``(batch, height, width, planes)``, int8, on the CPU."""
    misled: Tensor
    """``(batch, surrogates)``, bool: who is misled."""


class _Batch(NamedTuple):
    is_coloured: bool
    pixels: Tensor  # (batch, 3, SIDE, SIDE)
    budget: Budget
    anchors: tuple[Tensor, ...]  # for each surrogate, (batch, ...)

    def part(self, chosen: Tensor) -> _Batch:
        return _Batch(
            self.is_coloured,
            self.pixels[chosen],
            self.budget.part(chosen),
            tuple(anchor[chosen] for anchor in self.anchors),
        )

    def marked(self, grid: Tensor) -> Tensor:
        grown = self.budget.grown(grid, self.pixels.shape[-1])
        return (self.pixels + grown).clamp(0, 1)

    def kept(self, grid: Tensor) -> Tensor:
        return self.budget.kept(grid, self.pixels.shape[-1])


def optimise(
    views: Sequence[View],
    surrogates: Sequence[Surrogate],
    effort: Effort,
    generator: torch.Generator,
    device: torch.device,
    start: Start | None = None,
) -> Found:
    """Return a grid for each view that misleads the surrogates, within the budget.

    Args:
        views: What to mark, all of as many planes. Not modified.
        surrogates: Whom to mislead.
        effort: How hard to look.
        generator: The only source of chance, on the CPU: same seed and device, same
            grids. The start and the classes that images are led to are drawn from it,
            so that no mark is a public function of its image.
        device: Where the surrogates are.
        start: What to start from; by default noise.

    Source:
        Dong et al., 2018, arXiv:1710.06081, algorithm 1 (momentum), with the sign
        replaced by a normalised gradient: a sign moves smooth tissue as far as texture
        and draws patterns there that could be taken for anatomy.
    """
    pixels = torch.stack([v.pixels for v in views]).to(device)
    looks = [surrogate.looked(pixels) for surrogate in surrogates]
    region = region_of(views, [look.saliency for look in looks])
    lots = torch.rand(len(views), generator=generator).to(device)
    aim = Aim(effort.mode, lots, effort.margin)
    batch = _Batch(
        is_coloured=views[0].planes > 1,
        pixels=pixels,
        budget=budget_of(views, region, effort.least_psnr_db, device),
        anchors=tuple(
            surrogate.anchor(look.remembered, aim)
            for surrogate, look in zip(surrogates, looks, strict=True)
        ),
    )
    shape = (len(views), views[0].planes, *batch.budget.limit.shape[2:])
    if start is None:
        grid = START_SIZE * torch.randn(shape, generator=generator).to(device)
    else:
        grid = start(pixels, batch.budget, batch.anchors, generator)
    grid = _in_cells(grid, effort)
    steps = effort.steps if start is None else effort.drawn_steps or 0
    grid = _climbed(batch.kept(grid), batch, surrogates, effort, steps, generator)
    grid = _settled(grid, batch, surrogates, effort)
    misled = _misled(grid, batch, surrogates)
    if effort.settling and not misled.all():
        grid, misled = _escalated(grid, misled, batch, surrogates, effort, generator)
    whole = (grid * FULL_STEP).round().permute(0, 2, 3, 1)
    return Found(whole.to("cpu", torch.int8), misled.cpu())


def _climbed(
    grid: Tensor,
    batch: _Batch,
    surrogates: Sequence[Surrogate],
    effort: Effort,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Return ``grid`` after so many steps through random changes."""
    momentum = torch.zeros_like(grid)
    distance = torch.ones(len(grid), len(surrogates), device=grid.device)
    for step in range(steps):
        turn, index = divmod(step, len(surrogates))
        seen = distance[:, index] > 0
        if turn % LOOK_AGAIN == 0:
            seen = torch.ones_like(seen)
        gradient = torch.zeros_like(grid)
        if seen.any():
            part, moving = batch.part(seen), grid[seen].requires_grad_()
            shown = part.marked(moving)
            if effort.is_changed:
                shown = transformed(
                    shown,
                    generator,
                    surrogates[index].size,
                    is_coloured=batch.is_coloured,
                )
            still = surrogates[index].recognition(shown, part.anchors[index])
            distance[seen, index] = still.detach()
            # The square favours whoever is least misled.
            (gradient[seen],) = torch.autograd.grad(still.square().sum(), moving)
        pull = _shaped(gradient * batch.budget.limit, effort)
        momentum = effort.decay * momentum + _normalised(pull)
        step_size = effort.step_size * (1 - 0.9 * step / steps)
        grid = batch.kept(grid - step_size * _normalised(momentum))
    return grid


def _settled(
    grid: Tensor, batch: _Batch, surrogates: Sequence[Surrogate], effort: Effort
) -> Tensor:
    """Return ``grid`` once the unchanged image misleads, or after so many steps.

    Between steps the budget is spent to the full, as rounding will find it.
    """
    side = batch.pixels.shape[-1]
    grid = batch.budget.filled(grid, side)
    left = torch.arange(len(grid), device=grid.device)
    momentum = torch.zeros_like(grid)
    for step in range(effort.settling):
        part, moving = batch.part(left), grid[left].requires_grad_()
        loss = torch.zeros(len(left), device=grid.device)
        marked = part.marked(moving)
        for surrogate, anchor in zip(surrogates, part.anchors, strict=True):
            loss = loss + surrogate.recognition(marked, anchor).square()
        is_left = loss.detach() > 0
        if not is_left.any():
            break
        (gradient,) = torch.autograd.grad(loss.sum(), moving)
        pull = _shaped(gradient * part.budget.limit, effort)
        momentum[left] = effort.decay * momentum[left] + _normalised(pull)
        step_size = 0.5 * effort.step_size * (1 - 0.9 * step / effort.settling)
        moved = grid[left] - step_size * _normalised(momentum[left])
        grid[left[is_left]] = part.budget.filled(moved, side)[is_left]
        left = left[is_left]
    return grid


def _escalated(
    grid: Tensor,
    misled: Tensor,
    batch: _Batch,
    surrogates: Sequence[Surrogate],
    effort: Effort,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return grids and who is misled, after more steps with a larger budget.

    Only images that somebody still sees through are touched, and only if it helps.
    """
    left = (~misled.all(dim=1)).nonzero()[:, 0]
    part = batch.part(left)
    more = part._replace(budget=part.budget.escalated(effort.escalated_psnr_db))
    found = _climbed(grid[left], more, surrogates, effort, effort.escalation, generator)
    found = _settled(found, more, surrogates, effort)
    now = _misled(found, more, surrogates)
    helps = now.sum(dim=1) > misled[left].sum(dim=1)
    grid, misled = grid.clone(), misled.clone()
    grid[left[helps]], misled[left[helps]] = found[helps], now[helps]
    return grid, misled


def _misled(grid: Tensor, batch: _Batch, surrogates: Sequence[Surrogate]) -> Tensor:
    """Return who is misled, ``(batch, surrogates)``, after rounding."""
    final = batch.marked((grid * FULL_STEP).round() / FULL_STEP)
    return torch.stack(
        [
            surrogate.is_misled(final, anchor)
            for surrogate, anchor in zip(surrogates, batch.anchors, strict=True)
        ],
        dim=1,
    )


def _shaped(direction: Tensor, effort: Effort) -> Tensor:
    """Return ``direction`` with the spectrum and the cells that a mark is to have."""
    side = direction.shape[-1]
    if effort.slope:
        down = torch.fft.fftfreq(side, 1 / side, device=direction.device)[:, None]
        across = torch.fft.rfftfreq(side, 1 / side, device=direction.device)
        frequency = (down.square() + across.square()).sqrt().clamp(min=1)
        waves = torch.fft.rfft2(direction) * frequency**-effort.slope
        direction = torch.fft.irfft2(waves, s=(side, side))
    return _in_cells(direction, effort)


def _in_cells(grid: Tensor, effort: Effort) -> Tensor:
    """Return ``grid`` with as many different cells as it is to have."""
    side = grid.shape[-1]
    if effort.cells >= side:
        return grid
    one = functional.avg_pool2d(grid, side // effort.cells)
    return functional.interpolate(one, (side, side), mode="nearest")


def _normalised(direction: Tensor) -> Tensor:
    """Return ``direction`` with a root mean square of 1 for each image."""
    size = direction.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return direction / size.clamp(min=1e-12)
