"""The search: a short loop that leads an image away from what surrogates see in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from torch import Tensor

from miadmark_core.mark import FULL_STEP
from miadmark_core.search.aim import Aim
from miadmark_core.search.batch import Batch, ends_of, eyes_on, moved, through
from miadmark_core.search.budget import budget_of, region_of
from miadmark_core.search.chance import apart, normal, of_part, uniform
from miadmark_core.search.direction import in_cells, normalised, shaped
from miadmark_core.search.looking import Glance, gradient, misled, pulled
from miadmark_core.search.parts import Crew, parts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from miadmark_core.search.batch import Eye
    from miadmark_core.search.budget import Budget
    from miadmark_core.search.chance import Chance
    from miadmark_core.search.effort import Effort
    from miadmark_core.search.surrogate import Look, Surrogate
    from miadmark_core.search.views import View

    Start = Callable[[Tensor, Budget, Sequence[Tensor], Chance], Tensor]
    """Of pixels, their budget, the surrogates' anchors, and chance: a grid each,
    ``(batch, planes, height, width)``, in full steps."""


START_SIZE: Final = 0.15
"""Of a full step; the root mean square of a random start."""

AT_ONCE: Final = 2
"""Eyes that look at each step, by turns in their order: both surrogates behind a window
where there are two, one eye twice where there is no other."""


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

    def first_look(eye: Eye) -> Look:
        return eye.surrogate.looked(through(pixels, ends, eye.window))

    with Crew(AT_ONCE, device) as crew:
        looks = crew.each(first_look, eyes)
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
        part, own = batch.part(chosen), of_part(chance, chosen)
        return _led(part.kept(grid[chosen]), part, eyes, effort, steps, own)

    everyone = torch.arange(len(views), device=device)
    grid, is_misled = _in_parts(led_away, everyone)
    if effort.settling and not is_misled.all():
        grid, is_misled = _escalated(grid, is_misled, batch, eyes, effort, chance)
    whole = (grid * FULL_STEP).round().permute(0, 2, 3, 1)
    by_all = is_misled.view(len(views), -1, len(surrogates)).all(dim=1)
    return Found(whole.to("cpu", torch.int8), by_all.cpu())


def _in_parts(
    led: Callable[[Tensor], tuple[Tensor, Tensor]], chosen: Tensor
) -> tuple[Tensor, Tensor]:
    """Return grids, and which eyes they mislead, of the chosen images, in order."""
    parts = parts_of(chosen)
    with Crew(len(parts), chosen.device) as crew:
        grids, is_misled = zip(*crew.each(led, parts), strict=True)
    return torch.cat(grids), torch.cat(is_misled)


def _led(
    grid: Tensor,
    batch: Batch,
    eyes: Sequence[Eye],
    effort: Effort,
    steps: int,
    chance: Chance,
) -> tuple[Tensor, Tensor]:
    """Return grids for some images after so many steps, and which eyes they mislead."""
    with Crew(AT_ONCE, grid.device) as crew:
        found = _climbed(grid, batch, eyes, effort, steps, chance, crew)
        found = _settled(found, batch, eyes, effort, crew)
        return found, misled(found, batch, eyes, crew)


def _climbed(
    grid: Tensor,
    batch: Batch,
    eyes: Sequence[Eye],
    effort: Effort,
    steps: int,
    chance: Chance,
    crew: Crew,
) -> Tensor:
    """Return ``grid`` after so many steps through random changes."""
    momentum = torch.zeros_like(grid)
    # What does not change one eye sees once.
    count = AT_ONCE if effort.is_changed else min(AT_ONCE, len(eyes))
    sources = apart(chance, count) if effort.is_changed else [None] * count
    for step in range(steps):
        glances = [
            Glance((step * count + n) % len(eyes), own) for n, own in enumerate(sources)
        ]
        direction = gradient(grid, batch, eyes, glances, crew) * batch.budget.limit
        pull = shaped(direction, effort)
        momentum = effort.decay * momentum + normalised(pull)
        step_size = effort.step_size * (1 - 0.9 * step / steps)
        grid = batch.kept(grid - step_size * normalised(momentum))
    return grid


def _settled(
    grid: Tensor, batch: Batch, eyes: Sequence[Eye], effort: Effort, crew: Crew
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
        marked = part.marked(moving)
        pull = pulled(marked.detach(), part, eyes, crew)
        is_left = pull.still > 0
        if not is_left.any():
            break
        (found,) = torch.autograd.grad(marked, moving, pull.gradient)
        onward = shaped(found * part.budget.limit, effort)
        momentum[left] = effort.decay * momentum[left] + normalised(onward)
        step_size = 0.5 * effort.step_size * (1 - 0.9 * step / effort.settling)
        moved = grid[left] - step_size * normalised(momentum[left])
        grid[left[is_left]] = part.budget.filled(moved, side)[is_left]
        left = left[is_left]
    return grid


def _escalated(
    grid: Tensor,
    is_misled: Tensor,
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
        return _led(grid[chosen], more, eyes, effort, effort.escalation, own)

    left = (~is_misled.all(dim=1)).nonzero()[:, 0]
    found, now = _in_parts(led_further, left)
    helps = now.sum(dim=1) > is_misled[left].sum(dim=1)
    grid, is_misled = grid.clone(), is_misled.clone()
    grid[left[helps]], is_misled[left[helps]] = found[helps], now[helps]
    return grid, is_misled
