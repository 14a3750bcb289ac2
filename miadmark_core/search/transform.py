"""Random changes that a mark has to survive on its way to a model.

Each step of the search sees the marked image through other ones, so that what is found
holds on average over what users' software does, rather than for one network at one size
(expectation over transformation; Athalye et al., 2018, arXiv:1707.07397). Blocks are
shuffled now and then: a mark that still misleads does not rest on where things are,
which is what networks of one origin have least in common.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor
from torch.nn import functional

from miadmark_core.search.codec import jpeg_like

if TYPE_CHECKING:
    from collections.abc import Callable

GREY_SHARE: Final = 0.25
"""How often coloured views are shown in grey."""

SHUFFLED_SHARE: Final = 0.5
"""How often blocks change places."""

SOFTENED_SHARE: Final = 0.5
"""How often views are scaled down and up again."""


def transformed(
    views: Tensor,
    generator: torch.Generator,
    size: int,
    *,
    is_coloured: bool = False,
) -> Tensor:
    """Return each view shuffled, moved, turned, scaled, windowed and worn at random.

    Args:
        views: ``(batch, 3, rows, columns)``, 0..1. Differentiable.
        generator: The only source of chance; on the CPU, so that every device draws
            the same.
        size: Rows and columns of the result.
        is_coloured: Whether to take the colour away now and then.

    Returns:
        ``(batch, 3, size, size)``, 0..1.
    """
    n, device = len(views), views.device

    def between(low: float, high: float) -> Tensor:
        drawn = torch.rand(n, generator=generator)
        return (low + (high - low) * drawn).to(device).view(-1, 1, 1, 1)

    def happens(share: float) -> bool:
        return bool(torch.rand((), generator=generator) < share)

    if is_coloured and happens(GREY_SHARE):
        views = views.mean(dim=1, keepdim=True).expand_as(views)
    if happens(SHUFFLED_SHARE):
        views = shuffled(views, generator)
    side = size
    if happens(SOFTENED_SHARE):
        side = int(torch.randint(5 * size // 8, size, (), generator=generator))
    x = _sampled(
        views,
        side,
        angle=between(-math.radians(10), math.radians(10)),
        zoom=between(0.85, 1.1),
        mirror=torch.where(between(0, 1) < 0.3, -1.0, 1.0),
        right=between(-0.06, 0.06),
        down=between(-0.06, 0.06),
    )
    if side != size:
        x = functional.interpolate(x, (size, size), mode="bilinear")
    # Another window: what is shown as black, and what as white.
    x = (x * between(0.85, 1.18) + between(-0.06, 0.06)).clamp(0, 1)
    wear = _WEAR[int(torch.randint(len(_WEAR), (), generator=generator))]
    return wear(x, generator)


def shuffled(views: Tensor, generator: torch.Generator) -> Tensor:
    """Return the pictures cut in four at random places, the parts in another order.

    Args:
        views: ``(batch, channels, rows, columns)``. Differentiable.
        generator: The only source of chance; one cut for the whole batch.

    Source:
        Wang et al., 2024, arXiv:2308.10299 (BSR), without its turns, since the view is
        turned as a whole.
    """
    strips = [torch.cat(cut(s, 2, generator), dim=2) for s in cut(views, 3, generator)]
    return torch.cat(strips, dim=3)


def cut(x: Tensor, dim: int, generator: torch.Generator) -> list[Tensor]:
    """Return the two parts of ``x``, cut at a random place, in random order."""
    side = x.shape[dim]
    place = int(torch.randint(side // 4, 3 * side // 4, (), generator=generator))
    parts = [x.narrow(dim, 0, place), x.narrow(dim, place, side - place)]
    return parts[::-1] if torch.rand((), generator=generator) < 0.5 else parts


def _sampled(
    x: Tensor,
    side: int,
    *,
    angle: Tensor,
    zoom: Tensor,
    mirror: Tensor,
    right: Tensor,
    down: Tensor,
) -> Tensor:
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    rows = [
        torch.cat([cos * mirror, -sin, right], dim=3),
        torch.cat([sin * mirror, cos, down], dim=3),
    ]
    affine = torch.cat(rows, dim=2)[:, 0]
    grid = functional.affine_grid(affine, [len(x), 3, side, side], align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False)


def _noisy(x: Tensor, generator: torch.Generator) -> Tensor:
    strength = 0.03 * torch.rand((), generator=generator).item()
    noise = torch.randn(x.shape, generator=generator).to(x.device)
    return (x + strength * noise).clamp(0, 1)


def _blurred(x: Tensor, generator: torch.Generator) -> Tensor:
    outer = 0.25 * torch.rand((), generator=generator).item()
    taps = torch.tensor([outer, 1 - 2 * outer, outer], device=x.device)
    kernel = (taps[:, None] * taps).expand(x.shape[1], 1, 3, 3)
    padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
    return functional.conv2d(padded, kernel, groups=x.shape[1])


def _in_few_levels(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return fewer bits; the gradient passes as if nothing had been rounded."""
    levels = (1 << int(torch.randint(4, 8, (), generator=generator))) - 1
    return x + ((x * levels).round() / levels - x).detach()


def _coded(x: Tensor, generator: torch.Generator) -> Tensor:
    return jpeg_like(x, int(torch.randint(40, 95, (), generator=generator)))


def _as_it_is(x: Tensor, _: torch.Generator) -> Tensor:
    return x


_WEAR: Final[tuple[Callable[[Tensor, torch.Generator], Tensor], ...]] = (
    _as_it_is,
    _noisy,
    _blurred,
    _in_few_levels,
    _coded,
)
