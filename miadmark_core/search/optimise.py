"""The search: a short loop that pushes an image off what surrogates recognise in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from miadmark_core.mark import FULL_STEP
from miadmark_core.search.transform import transformed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from miadmark_core.search.surrogate import Surrogate
    from miadmark_core.search.views import View


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How hard to look, and how much the result may show."""

    steps: int = 48
    step_size: float = 0.4
    """Of a full step; the root mean square of the first move. Later ones shrink evenly
    to a tenth, so that the last ones settle rather than wander."""
    decay: float = 0.9
    """How much of the last direction is kept."""
    plain_share: float = 0.3
    """Share of the steps, the last ones, that see the image as it is, untransformed."""
    least_psnr_db: float = 35.1
    """Of what a view shows; a little above what is promised, since rounding adds."""


START_SIZE: Final = 0.15
"""Of a full step; the root mean square of the random start."""


LOOK_AGAIN: Final = 4
"""A surrogate is shown the images that it still recognised when it saw them last, and
every so many steps all of them: what is misled already costs nothing."""


class Found(NamedTuple):
    """What the search came to."""

    steps: Tensor
    """``(batch, height, width, planes)``, int8, on the CPU."""
    misled: Tensor
    """``(batch, surrogates)``, bool: who is misled."""


class _Batch(NamedTuple):
    planes: int
    pixels: Tensor  # (batch, 3, SIDE, SIDE)
    limit: Tensor  # (batch, 1, height, width)
    peak: Tensor  # (batch, 1, 1, 1)


def optimise(
    views: Sequence[View],
    surrogates: Sequence[Surrogate],
    effort: Effort,
    generator: torch.Generator,
    device: torch.device,
) -> Found:
    """Return a grid for each view that misleads the surrogates, within the budget.

    Args:
        views: What to mark, all of as many planes. Not modified.
        surrogates: Whom to mislead; all of them at every step.
        effort: How hard to look.
        generator: The only source of chance, on the CPU: same seed and device, same
            grids. The start is drawn from it, so that no mark is a public function of
            its image.
        device: Where the surrogates are.

    Source:
        Dong et al., 2018, arXiv:1710.06081, algorithm 1 (momentum), with the sign
        replaced by a normalised gradient: a sign moves smooth tissue as far as texture
        and draws patterns there that could be taken for anatomy.
    """
    batch = _Batch(
        planes=views[0].planes,
        pixels=torch.stack([v.pixels for v in views]).to(device),
        limit=torch.stack([v.limit for v in views])[:, None].to(device),
        peak=torch.tensor([v.peak for v in views], device=device).view(-1, 1, 1, 1),
    )
    anchors = [surrogate.anchor(batch.pixels) for surrogate in surrogates]
    shape = (len(views), batch.planes, *batch.limit.shape[2:])
    start = torch.randn(shape, generator=generator).to(device)
    grid = _projected(start * START_SIZE, batch, effort)
    transformed_steps = round(effort.steps * (1 - effort.plain_share))
    grid = _climbed(
        grid, batch, surrogates, anchors, effort, generator, transformed_steps
    )
    misled = _misled(grid, batch, surrogates, anchors)
    left = ~misled.all(dim=1)
    if left.any() and effort.steps:
        # Who is not misled is worked on once more, without transforms.
        part = _Batch(
            batch.planes, batch.pixels[left], batch.limit[left], batch.peak[left]
        )
        kept = [anchor[left] for anchor in anchors]
        grid[left] = _climbed(grid[left], part, surrogates, kept, effort, generator, 0)
        misled = _misled(grid, batch, surrogates, anchors)
    steps = (grid * FULL_STEP).round()
    return Found(steps.permute(0, 2, 3, 1).to("cpu", torch.int8), misled.cpu())


def _climbed(
    grid: Tensor,
    batch: _Batch,
    surrogates: Sequence[Surrogate],
    anchors: Sequence[Tensor],
    effort: Effort,
    generator: torch.Generator,
    transformed_steps: int,
) -> Tensor:
    """Return ``grid`` after ``effort.steps`` steps, the first of them transformed."""
    momentum = torch.zeros_like(grid)
    recognised = torch.ones(len(grid), len(surrogates), device=grid.device)
    for step in range(effort.steps):
        grid.requires_grad_()
        marked = _marked(batch, grid)
        if step < transformed_steps:
            marked = transformed(marked, generator, is_coloured=batch.planes > 1)
        loss = grid.sum() * 0
        for index, (surrogate, anchor) in enumerate(
            zip(surrogates, anchors, strict=True)
        ):
            seen = recognised[:, index] > 0
            if step % LOOK_AGAIN == 0:
                seen = torch.ones_like(seen)
            if seen.any():
                still = surrogate.recognition(marked[seen], anchor[seen])
                recognised[seen, index] = still.detach()
                # The square favours whoever is least misled.
                loss = loss + still.square().sum()
        (gradient,) = torch.autograd.grad(loss, grid)
        grid = grid.detach()
        momentum = effort.decay * momentum + _normalised(gradient * batch.limit)
        step_size = effort.step_size * (1 - 0.9 * step / effort.steps)
        grid = _projected(grid - step_size * _normalised(momentum), batch, effort)
    return grid


def _misled(
    grid: Tensor,
    batch: _Batch,
    surrogates: Sequence[Surrogate],
    anchors: Sequence[Tensor],
) -> Tensor:
    """Return who is misled, ``(batch, surrogates)``, after rounding."""
    final = _marked(batch, (grid * FULL_STEP).round() / FULL_STEP)
    return torch.stack(
        [s.is_misled(final, a) for s, a in zip(surrogates, anchors, strict=True)], 1
    )


def _marked(batch: _Batch, grid: Tensor) -> Tensor:
    return (batch.pixels + _grown(batch, grid)).clamp(0, 1)


def _grown(batch: _Batch, grid: Tensor) -> Tensor:
    side = batch.pixels.shape[-1]
    return batch.peak * functional.interpolate(grid, size=(side, side), mode="bilinear")


def _projected(grid: Tensor, batch: _Batch, effort: Effort) -> Tensor:
    """Return ``grid`` cut to its limits and scaled to the least PSNR."""
    grid = torch.minimum(torch.maximum(grid, -batch.limit), batch.limit)
    error = _grown(batch, grid).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    allowed = 10 ** (-effort.least_psnr_db / 20)
    return grid * (allowed / error.clamp(min=1e-9)).clamp(max=1)


def _normalised(direction: Tensor) -> Tensor:
    """Return ``direction`` with a root mean square of 1 for each image."""
    size = direction.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return direction / size.clamp(min=1e-12)
