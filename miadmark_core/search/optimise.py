"""The search: a short loop that leads an image away from what surrogates see in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from torch import Tensor

from miadmark_core.mark import FULL_STEP
from miadmark_core.search.aim import Aim
from miadmark_core.search.batch import Batch, ends_of, eyes_on, moved, through
from miadmark_core.search.budget import budget_of, region_of
from miadmark_core.search.chance import normal, of_part, uniform
from miadmark_core.search.direction import in_cells, normalised, shaped
from miadmark_core.search.parts import parts_of, side_by_side
from miadmark_core.search.transform import transformed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from miadmark_core.search.batch import Eye
    from miadmark_core.search.budget import Budget
    from miadmark_core.search.chance import Chance
    from miadmark_core.search.effort import Effort
    from miadmark_core.search.surrogate import Surrogate
    from miadmark_core.search.views import View

    Start = Callable[[Tensor, Budget, Sequence[Tensor], Chance], Tensor]
    """Of pixels, their budget, the surrogates' anchors, and chance: a grid each,
    ``(batch, planes, height, width)``, in full steps."""


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
    """``(batch, surrogates)``, bool: who is misled: in every window."""


def optimise(
    views: Sequence[View],
    surrogates: Sequence[Surrogate],
    effort: Effort,
    chance: Chance,
    device: torch.device,
    start: Start | None = None,
) -> Found:
    """Return a grid for each view that misleads the surrogates, within the budget.

    Args:
        views: What to mark, all of as many planes and windows. Not modified.
        surrogates: Whom to mislead.
        effort: How hard to look.
        chance: The only source of it: same seed and device, same grid. The start, the
            classes that an image is led to and the changes that it is seen through are
            drawn from what is its own, so that no mark is a public function of its
            image, and none depends on whose company it was found in, but for rounding.
        device: Where the surrogates are.
        start: What to start from; by default noise.

    Source:
        Dong et al., 2018, arXiv:1710.06081, algorithm 1 (momentum), with the sign
        replaced by a normalised gradient: a sign moves smooth tissue as far as texture
        and draws patterns there that could be taken for anatomy.
    """
    pixels = moved(torch.stack([v.pixels for v in views]), device)
    eyes = eyes_on(views, surrogates)
    ends = ends_of(views, device)
    looks = [e.surrogate.looked(through(pixels, ends, e.window)) for e in eyes]
    region = region_of(views, [look.saliency for look in looks])
    lots = uniform(chance).to(device)
    aim = Aim(effort.mode, lots, effort.margin)
    batch = Batch(
        is_coloured=views[0].planes > 1,
        pixels=pixels,
        ends=ends,
        budget=budget_of(views, region, effort.least_psnr_db, device),
        anchors=tuple(
            eye.surrogate.anchor(look.remembered, aim)
            for eye, look in zip(eyes, looks, strict=True)
        ),
    )
    if start is None:
        shape = (views[0].planes, *batch.budget.limit.shape[2:])
        grid = START_SIZE * normal(chance, *shape).to(device)
    else:
        grid = start(pixels, batch.budget, batch.anchors, chance)
    grid = in_cells(grid, effort)
    steps = effort.steps if start is None else effort.drawn_steps or 0

    def led_away(chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return grids for some images, and which eyes they mislead."""
        part, own = batch.part(chosen), of_part(chance, chosen)
        found = _climbed(part.kept(grid[chosen]), part, eyes, effort, steps, own)
        found = _settled(found, part, eyes, effort)
        return found, _misled(found, part, eyes)

    everyone = torch.arange(len(views), device=device)
    grid, misled = _together(side_by_side(led_away, parts_of(everyone)))
    if effort.settling and not misled.all():
        grid, misled = _escalated(grid, misled, batch, eyes, effort, chance)
    whole = (grid * FULL_STEP).round().permute(0, 2, 3, 1)
    by_all = misled.view(len(views), len(surrogates), -1).all(dim=2)
    return Found(whole.to("cpu", torch.int8), by_all.cpu())


def _climbed(
    grid: Tensor,
    batch: Batch,
    eyes: Sequence[Eye],
    effort: Effort,
    steps: int,
    chance: Chance,
) -> Tensor:
    """Return ``grid`` after so many steps through random changes."""
    momentum = torch.zeros_like(grid)
    distance = torch.ones(len(grid), len(eyes), device=grid.device)
    for step in range(steps):
        turn, index = divmod(step, len(eyes))
        seen = distance[:, index] > 0
        if turn % LOOK_AGAIN == 0:
            seen = torch.ones_like(seen)
        gradient = torch.zeros_like(grid)
        if seen.any():
            part, moving = batch.part(seen), grid[seen].requires_grad_()
            eye = eyes[index]
            shown = part.seen(part.marked(moving), eye)
            if effort.is_changed:
                own = of_part(chance, seen.nonzero()[:, 0])
                shown = _changed(shown, own, eye, part)
            still = _recognition(eye, shown, part.anchors[index])
            distance[seen, index] = still.detach()
            # The square favours whoever is least misled.
            (gradient[seen],) = torch.autograd.grad(still.square().sum(), moving)
        pull = shaped(gradient * batch.budget.limit, effort)
        momentum = effort.decay * momentum + normalised(pull)
        step_size = effort.step_size * (1 - 0.9 * step / steps)
        grid = batch.kept(grid - step_size * normalised(momentum))
    return grid


def _settled(grid: Tensor, batch: Batch, eyes: Sequence[Eye], effort: Effort) -> Tensor:
    """Return ``grid`` once the unchanged image misleads, or after so many steps.

    Between steps the budget is spent to the full, as rounding will find it.
    """
    side = batch.pixels.shape[-1]
    grid = batch.budget.filled(grid, side)
    left = torch.arange(len(grid), device=grid.device)
    momentum = torch.zeros_like(grid)
    for step in range(effort.settling):
        part, moving = batch.part(left), grid[left].requires_grad_()
        marked = part.marked(moving)
        loss, pulls = _pulled(marked.detach(), part, eyes)
        is_left = loss > 0
        if not is_left.any():
            break
        (gradient,) = torch.autograd.grad(marked, moving, pulls)
        pull = shaped(gradient * part.budget.limit, effort)
        momentum[left] = effort.decay * momentum[left] + normalised(pull)
        step_size = 0.5 * effort.step_size * (1 - 0.9 * step / effort.settling)
        moved = grid[left] - step_size * normalised(momentum[left])
        grid[left[is_left]] = part.budget.filled(moved, side)[is_left]
        left = left[is_left]
    return grid


def _pulled(marked: Tensor, part: Batch, eyes: Sequence[Eye]) -> tuple[Tensor, Tensor]:
    """Return how well all eyes still see, and the gradient of it, of marked images.

    One eye after the other: together they would need the memory of all.
    """
    loss = marked.new_zeros(len(marked))
    pulls: list[Tensor] = []
    for eye, anchor in zip(eyes, part.anchors, strict=True):
        seen = marked.clone().requires_grad_()
        square = _recognition(eye, part.seen(seen, eye), anchor).square()
        loss = loss + square.detach()
        if square.detach().any():
            pulls += torch.autograd.grad(square.sum(), seen)
    return loss, sum(reversed(pulls), torch.zeros_like(marked))


def _escalated(
    grid: Tensor,
    misled: Tensor,
    batch: Batch,
    eyes: Sequence[Eye],
    effort: Effort,
    chance: Chance,
) -> tuple[Tensor, Tensor]:
    """Return grids and which eyes are misled, after more steps with a larger budget.

    Only images that somebody still sees through are touched, and only if it helps.
    """

    def led_further(chosen: Tensor) -> tuple[Tensor, Tensor]:
        part, own = batch.part(chosen), of_part(chance, chosen)
        more = part._replace(budget=part.budget.escalated(effort.escalated_psnr_db))
        found = _climbed(grid[chosen], more, eyes, effort, effort.escalation, own)
        found = _settled(found, more, eyes, effort)
        return found, _misled(found, more, eyes)

    left = (~misled.all(dim=1)).nonzero()[:, 0]
    found, now = _together(side_by_side(led_further, parts_of(left)))
    helps = now.sum(dim=1) > misled[left].sum(dim=1)
    grid, misled = grid.clone(), misled.clone()
    grid[left[helps]], misled[left[helps]] = found[helps], now[helps]
    return grid, misled


def _misled(grid: Tensor, batch: Batch, eyes: Sequence[Eye]) -> Tensor:
    """Return which eyes are misled, ``(batch, eyes)``, after rounding."""
    final = batch.marked((grid * FULL_STEP).round() / FULL_STEP)
    return torch.stack(
        [
            eye.surrogate.is_misled(batch.seen(final, eye), anchor)
            for eye, anchor in zip(eyes, batch.anchors, strict=True)
        ],
        dim=1,
    )


def _together(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return grids, and which eyes they mislead, of all parts."""
    grids, misled = zip(*parts, strict=True)
    return torch.cat(grids), torch.cat(misled)


def _changed(shown: Tensor, chance: Chance, eye: Eye, batch: Batch) -> Tensor:
    """Return what an eye is shown, each image changed at random as it would be alone."""
    size, coloured = eye.surrogate.size, batch.is_coloured
    return torch.cat(
        [
            transformed(shown[[n]], own, size, is_coloured=coloured)
            for n, own in enumerate(chance)
        ]
    )


def _recognition(eye: Eye, shown: Tensor, anchor: Tensor) -> Tensor:
    """Return how well an eye still sees: on a GPU in half precision where that will do.

    What a mark comes to is decided in full precision, by :func:`_misled`.
    """
    with torch.autocast(shown.device.type, torch.bfloat16, enabled=shown.is_cuda):
        return eye.surrogate.recognition(shown, anchor).float()
