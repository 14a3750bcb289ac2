"""Published attacks at the same budget, to lay beside the engines that ship.

Both look through the same surrogates, at the same views, and keep two limits of a mark
that ships: 8/255 of the display window in every pixel, and the same least PSNR. Unlike
such a mark they spare no background and follow no texture, which favours them. They
differ in how they look. Neither is a profile of the product. What differs from the
papers: the class to leave is the surrogates' own answer, since no label is at hand, and
after each signed step the budget's PSNR takes a part of it back.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from miadmark_core.mark import FULL_STEP
from miadmark_core.mode import Mode
from miadmark_core.search.aim import Aim
from miadmark_core.search.effort import Effort
from miadmark_core.search.optimise import Found
from miadmark_core.search.transform import cut
from miadmark_core.search.views import SIDE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from miadmark_core.search.surrogate import Surrogate
    from miadmark_core.search.views import View

    Change = Callable[[Tensor, torch.Generator], Tensor]


class Attack(NamedTuple):
    """A sign attack with momentum, and through what it looks."""

    name: str
    steps: int
    copies: int
    """Changed pictures that one step's gradient is the mean of."""
    change: Change


def _as_it_is(views: Tensor, _: torch.Generator) -> Tensor:
    return views


def shuffled_blocks(views: Tensor, generator: torch.Generator) -> Tensor:
    """Return the pictures cut into four blocks at random places, moved and turned.

    Args:
        views: ``(batch, channels, rows, columns)``. Differentiable.
        generator: The only source of chance; one cut for the whole batch.

    Source:
        Wang et al., 2024, arXiv:2308.10299 (BSR): two cuts each way, turns of up to 24
        degrees.
    """
    strips = []
    for strip in cut(views, 3, generator):
        angle = (torch.rand((), generator=generator).item() * 2 - 1) * math.radians(24)
        strips.append(torch.cat(cut(_turned(strip, angle), 2, generator), dim=2))
    return torch.cat(strips, dim=3)


MI_FGSM = Attack("mi-fgsm", steps=10, copies=1, change=_as_it_is)
"""Dong et al., 2018, arXiv:1710.06081, algorithm 1."""

BSR = Attack("bsr", steps=10, copies=5, change=shuffled_blocks)
"""MI-FGSM through shuffled blocks; 5 copies where the paper has 20, which makes about as
many gradients as the engine takes."""


def attacked(
    attack: Attack,
    views: Sequence[View],
    surrogates: Sequence[Surrogate],
    generator: torch.Generator,
    device: torch.device,
) -> Found:
    """Return a mark for each view, one cell a pixel; the place of the engine's search.

    Args:
        attack: How to look.
        views: What to mark, all of as many planes. Not modified.
        surrogates: Whom to mislead, all of them.
        generator: The only source of chance, on the CPU.
        device: Where the surrogates are.
    """
    pixels = torch.stack([v.pixels for v in views]).to(device)
    peak = torch.tensor([v.peak for v in views], device=device).view(-1, 1, 1, 1)
    error = Aim(Mode.ERROR, torch.zeros(len(views), device=device), margin=0.1)
    remembered = [s.remembered(pixels) for s in surrogates]
    anchors = [
        s.anchor(said, error) for s, said in zip(surrogates, remembered, strict=True)
    ]
    mark = torch.zeros(len(pixels), views[0].planes, SIDE, SIDE, device=device)
    momentum = torch.zeros_like(mark)
    for _ in range(attack.steps):
        gradient = torch.zeros_like(mark)
        for _ in range(attack.copies):
            mark.requires_grad_()
            seen = attack.change((pixels + peak * mark).clamp(0, 1), generator)
            loss = torch.stack(
                [
                    s.log_likelihood(seen, said).sum()
                    for s, said in zip(surrogates, remembered, strict=True)
                ]
            ).sum()
            gradient += torch.autograd.grad(loss, mark)[0]
            mark = mark.detach()
        size = gradient.abs().mean(dim=(1, 2, 3), keepdim=True)
        momentum = momentum + gradient / size.clamp(min=1e-12)
        mark = _projected(mark - momentum.sign() / attack.steps, peak)
    steps = (mark * FULL_STEP).round()
    marked = (pixels + peak * steps / FULL_STEP).clamp(0, 1)
    misled = [s.is_misled(marked, a) for s, a in zip(surrogates, anchors, strict=True)]
    steps = steps.permute(0, 2, 3, 1)
    return Found(steps.to("cpu", torch.int8), torch.stack(misled, 1).cpu())


def _projected(mark: Tensor, peak: Tensor) -> Tensor:
    mark = mark.clamp(-1, 1)
    error = (peak * mark).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    allowed = 10 ** (-Effort().least_psnr_db / 20)
    return mark * (allowed / error.clamp(min=1e-9)).clamp(max=1)


def _turned(x: Tensor, angle: float) -> Tensor:
    cos, sin = math.cos(angle), math.sin(angle)
    ratio = x.shape[2] / x.shape[3]
    matrix = torch.tensor(
        [[cos, -sin * ratio, 0.0], [sin / ratio, cos, 0.0]], device=x.device
    )
    grid = functional.affine_grid(
        matrix.expand(len(x), 2, 3), list(x.shape), align_corners=False
    )
    return functional.grid_sample(x, grid, align_corners=False)
