"""The search for the paper's visible mark: logos outside what matters in the image.

Logos are placed where the surrogates do not look, each with a place, a size, an angle
and an opacity of its own. Differential evolution finds out roughly, gradients through
the blend the rest; where a few logos do not mislead, a few more are added.

Source:
    Wei et al., 2023, arXiv:2303.09858: a visible logo whose position and opacity are
    searched, kept off a thresholded Grad-CAM map. Their optimiser is not published.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from miadmark_core.mark import FULL_STEP
from miadmark_core.mode import Mode
from miadmark_core.search.aim import Aim
from miadmark_core.search.batch import moved
from miadmark_core.search.chance import of_part, uniform
from miadmark_core.search.optimise import Found
from miadmark_core.search.pose import GENES, blended, rendered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from miadmark_core.search.chance import Chance
    from miadmark_core.search.surrogate import Surrogate
    from miadmark_core.search.views import View


@dataclass(frozen=True, slots=True, kw_only=True)
class LogoEffort:
    """How hard to look, and how much of the image is out of bounds."""

    copies: int = 6
    """Logos that are added at a time."""
    rounds: int = 5
    """How often logos are added, to the images that are still recognised."""
    population: int = 6
    """Candidates an image in each round of the evolution."""
    generations: int = 2
    steps: int = 32
    """Of the refinement, in each round."""
    step_size: float = 0.06
    """Of the width of what a pose may be; later steps shrink evenly to a tenth."""
    threshold: float = 190 / 255
    """The saliency, 0..1, above which a place is out of bounds. The paper's code sweeps
    110 to 170 of 255, once up to 190: the higher, the more room for logos."""
    least_free: float = 0.3
    """The share of the image that is never out of bounds, its least salient part."""


DRAFT_SIDE: Final = 160
"""Rows and columns at which candidates are drawn; the result is checked at full size."""

DIFFERENCE: Final = 0.6
"""The weight F of both differences in the evolution."""

CROSSOVER: Final = 0.7
"""The share CR of poses that a candidate takes from its mutant, each as a whole."""

MARGIN: Final = 2.0
"""In logits: how thoroughly a surrogate is misled before it stops pulling."""

CUT_WEIGHT: Final = 0.5
"""What it costs when all of the logos lies out of bounds. An image that costs no more
than this is settled: every surrogate is misled by half a logit, or more."""


class _Batch(NamedTuple):
    pixels: Tensor  # (batch, 3, side, side)
    free: Tensor  # (batch, 1, side, side), 1 where a logo may be, else 0
    aspect: Tensor  # (batch,), columns a row
    anchors: tuple[Tensor, ...]  # for each surrogate, (batch, ...)

    def part(self, chosen: Tensor) -> _Batch:
        """Return the images that ``chosen`` names, in its order."""
        return _Batch(
            self.pixels[chosen],
            self.free[chosen],
            self.aspect[chosen],
            tuple(anchor[chosen] for anchor in self.anchors),
        )


def place_logos(
    views: Sequence[View],
    surrogates: Sequence[Surrogate],
    effort: LogoEffort,
    chance: Chance,
    device: torch.device,
) -> Found:
    """Return for each view how opaque logos are at each place that mislead.

    Args:
        views: What to mark. Not modified.
        surrogates: Whom to mislead; what they look at is out of bounds.
        effort: How hard to look.
        chance: The only source of it: same seed and device, same logos.
        device: Where the surrogates are.

    Returns:
        Steps of the size of a view: 127 is opaque white, -127 opaque black.
    """
    # They are black and white in the window that a viewer opens with.
    shown = torch.stack([v.windows[0].shown(v.pixels) for v in views])
    pixels = moved(shown, device)
    fixed = torch.stack([v.fixed for v in views])[:, None].to(device)
    aim = Aim(Mode.ERROR, torch.zeros(len(views), device=device), MARGIN)
    full = _Batch(
        pixels=pixels,
        free=free_places(pixels, surrogates, effort) * (1 - fixed),
        aspect=torch.tensor([v.aspect for v in views], device=device),
        anchors=tuple(s.anchor(s.remembered(pixels), aim) for s in surrogates),
    )
    size = (DRAFT_SIDE, DRAFT_SIDE)
    draft = full._replace(
        pixels=functional.interpolate(pixels, size, mode="bilinear", antialias=True),
        free=functional.interpolate(full.free, size, mode="nearest"),
    )
    steps = torch.zeros_like(full.free)
    misled = torch.zeros(len(views), len(surrogates), dtype=torch.bool, device=device)
    poses = torch.empty(len(views), 0, GENES, device=device)
    left = torch.arange(len(views), device=device)
    for _ in range(effort.rounds):
        poses = _evolved(poses, draft.part(left), surrogates, effort, chance)
        poses = _refined(poses, draft.part(left), surrogates, effort)
        part = full.part(left)
        found = (_opacity(poses, part) * FULL_STEP).round()
        misleads = _misled(found / FULL_STEP, part, surrogates)
        # More logos show more: they have to mislead more surrogates to be worth it.
        is_better = misleads.sum(dim=1) > misled[left].sum(dim=1)
        is_better |= (steps[left] == 0).flatten(1).all(dim=1)
        steps[left[is_better]] = found[is_better]
        misled[left[is_better]] = misleads[is_better]
        is_left = ~misled[left].all(dim=1)
        left, poses = left[is_left], poses[is_left]
        chance = of_part(chance, is_left.nonzero()[:, 0])
        if not len(left):
            break
    return Found(steps.permute(0, 2, 3, 1).to("cpu", torch.int8), misled.cpu())


def free_places(
    pixels: Tensor, surrogates: Sequence[Surrogate], effort: LogoEffort
) -> Tensor:
    """Return where a logo may be: where no surrogate looks for its answer.

    Args:
        pixels: ``(batch, 3, side, side)``, 0..1.
        surrogates: Whose saliency counts; at each place the highest of theirs.
        effort: Its threshold, and the least that stays free where all is salient.

    Returns:
        ``(batch, 1, side, side)``, 1 free, 0 out of bounds.
    """
    salient = torch.zeros_like(pixels[:, :1])
    for surrogate in surrogates:
        seen = surrogate.looked(pixels).saliency[:, None]
        low, high = seen.amin((2, 3), keepdim=True), seen.amax((2, 3), keepdim=True)
        seen = (seen - low) / (high - low).clamp(min=1e-9)
        seen = functional.interpolate(seen, pixels.shape[-2:], mode="bilinear")
        salient = torch.maximum(salient, seen)
    least = salient.flatten(1).quantile(effort.least_free, dim=1).view(-1, 1, 1, 1)
    return (salient <= least.clamp(min=effort.threshold)).to(pixels.dtype)


def _evolved(
    start: Tensor,
    batch: _Batch,
    surrogates: Sequence[Surrogate],
    effort: LogoEffort,
    chance: Chance,
) -> Tensor:
    """Return ``start`` with some poses added, the best that evolution came to.

    Args:
        start: ``(batch, logos, GENES)``, 0..1.
        batch: Its images.
        surrogates: Whom to mislead.
        effort: How many candidates, and how often.
        chance: Draws the candidates.

    Source:
        Storn and Price, 1997, "Differential evolution", with the mutants of their
        variant 2 (DE/rand-to-best/1), where a pose is inherited as a whole.
    """
    n, p = len(batch.pixels), effort.population

    def drawn(*shape: int) -> Tensor:
        return uniform(chance, *shape).to(batch.pixels.device)

    def costs(candidates: Tensor) -> Tensor:
        found = torch.empty(n, p, device=start.device)
        with torch.no_grad():
            for column in range(p):
                found[:, column] = _cost(candidates[:, column], batch, surrogates)
        return found

    added = drawn(p, effort.copies, GENES)
    old = torch.cat([start[:, None].expand(-1, p, -1, -1), added], dim=2)
    cost = costs(old)
    rows = torch.arange(n, device=start.device)[:, None]
    for _ in range(effort.generations):
        best = old[rows, cost.argmin(dim=1, keepdim=True)]
        one, other = (old[rows, drawn(p).argsort(dim=1)] for _ in range(2))
        mutant = _reflected(old + DIFFERENCE * (best - old + one - other))
        taken = drawn(*old.shape[1:3], 1) < CROSSOVER
        new = torch.where(taken, mutant, old)
        new_cost = costs(new)
        is_better = new_cost < cost
        old = torch.where(is_better[..., None, None], new, old)
        cost = torch.where(is_better, new_cost, cost)
    return old[rows[:, 0], cost.argmin(dim=1)]


def _refined(
    poses: Tensor,
    batch: _Batch,
    surrogates: Sequence[Surrogate],
    effort: LogoEffort,
) -> Tensor:
    """Return ``poses``, or better ones that gradients lead to from there.

    Source:
        Kingma and Ba, 2015, arXiv:1412.6980, algorithm 1 (Adam).
    """
    best, least = poses.clone(), torch.full_like(batch.aspect, torch.inf)
    first, second = torch.zeros_like(poses), torch.zeros_like(poses)
    for step in range(effort.steps + 1):
        # Whoever is settled costs no more time.
        busy = (least > CUT_WEIGHT).nonzero()[:, 0]
        if not len(busy):
            break
        moving = poses[busy].requires_grad_()
        cost = _cost(moving, batch.part(busy), surrogates)
        (gradient,) = torch.autograd.grad(cost.sum(), moving)
        is_better = cost.detach() < least[busy]
        best[busy[is_better]] = poses[busy[is_better]]
        least[busy] = torch.minimum(cost.detach(), least[busy])
        first[busy] = 0.9 * first[busy] + 0.1 * gradient
        second[busy] = 0.99 * second[busy] + 0.01 * gradient.square()
        moved = (first / (1 - 0.9 ** (step + 1))) / (
            (second / (1 - 0.99 ** (step + 1))).sqrt() + 1e-8
        )
        step_size = effort.step_size * (1 - 0.9 * step / max(effort.steps, 1))
        poses = (poses - step_size * moved).clamp(0, 1)
    return best


def _cost(poses: Tensor, batch: _Batch, surrogates: Sequence[Surrogate]) -> Tensor:
    """Return by how much each image is still recognised, and how much is cut off."""
    whole = rendered(poses, batch.aspect, batch.pixels.shape[-1])
    opacity = whole * batch.free
    marked = blended(batch.pixels, opacity)
    cost = 1 - opacity.abs().sum((1, 2, 3)) / whole.abs().sum((1, 2, 3)).clamp(min=1e-6)
    cost = CUT_WEIGHT * cost
    for surrogate, anchor in zip(surrogates, batch.anchors, strict=True):
        # The square favours whoever is least misled.
        cost = cost + surrogate.recognition(marked, anchor).square()
    return cost


def _opacity(poses: Tensor, batch: _Batch) -> Tensor:
    return rendered(poses, batch.aspect, batch.pixels.shape[-1]) * batch.free


def _misled(opacity: Tensor, batch: _Batch, surrogates: Sequence[Surrogate]) -> Tensor:
    """Return who is misled, ``(batch, surrogates)``."""
    marked = blended(batch.pixels, opacity)
    return torch.stack(
        [
            surrogate.is_misled(marked, anchor)
            for surrogate, anchor in zip(surrogates, batch.anchors, strict=True)
        ],
        dim=1,
    )


def _reflected(genes: Tensor) -> Tensor:
    """Return what left 0..1 mirrored at the end that it passed."""
    return (1 - (1 - genes.abs()).abs()).clamp(0, 1)
