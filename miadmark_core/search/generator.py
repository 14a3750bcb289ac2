"""A network that draws a mark at once, where the search takes many steps.

It sees the image, how far each cell may go, which classes the image is to leave, and
noise; what comes out is a grid. With other noise the grid is another one: it was trained
so that two marks of one image have little in common. It knows nothing of how it was
trained, and promises nothing: what it draws is refined and checked like any other start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from miadmark_core.search.budget import Budget
    from miadmark_core.search.chance import Chance

SIDE: Final = 112
"""Rows and columns of the image that it is shown, and of the grid that it draws."""

FOLD: Final = 4
"""So many cells each way are drawn together: most of the work is a sixteenth as large."""

NOISE: Final = 6
"""Planes of noise."""

PATTERNS: Final = 4
"""For each class that an image may have to leave; noise mixes them."""

_WIDTHS: Final = (48, 64)


class Generator(nn.Module):
    """Patterns for each class, mixed, and what a network adds with the image in view.

    The network takes one step down and one up, on a picture folded to a quarter of its
    sides. Patterns that mislead on many images are learned soon, what is right for one
    image takes longer.

    Sources:
        Ronneberger et al., 2015, arXiv:1505.04597 (U-Net); Poursaeed et al., 2018,
        arXiv:1712.02328 (generative adversarial perturbations); Moosavi-Dezfooli et al.,
        2017, arXiv:1610.08401 (universal perturbations).
    """

    def __init__(self, classes: int, planes: int) -> None:
        """Make one with random weights.

        Args:
            classes: Of the surrogates that it was trained against; 0 for encoders.
            planes: Of the grids that it draws, 1 or 3.
        """
        super().__init__()
        self.classes, self.planes = classes, planes
        shape = (PATTERNS, max(classes, 1), planes, SIDE, SIDE)
        self.patterns = nn.Parameter(0.1 * torch.randn(shape))
        outer, inner = _WIDTHS
        self.enter = _block(FOLD**2 * (planes + 1) + NOISE + classes, outer)
        self.outer = _block(outer, outer)
        self.down = nn.Conv2d(outer, inner, 2, stride=2)
        self.inner = nn.Sequential(_block(inner, inner), _block(inner, inner))
        self.up = nn.ConvTranspose2d(inner, outer, 2, stride=2)
        self.leave = _block(2 * outer, outer)
        self.draw = nn.Conv2d(outer, FOLD**2 * planes, 3, padding=1)

    def forward(
        self, images: Tensor, limit: Tensor, leaving: Tensor, noise: Tensor
    ) -> Tensor:
        """Return a grid for each image, each cell within its limit.

        Args:
            images: ``(batch, 3, rows, columns)``, 0..1.
            limit: ``(batch, 1, 112, 112)``, 0..1.
            leaving: Which classes each image is to leave, ``(batch, classes)``, 0..1.
            noise: ``(batch, NOISE, 28, 28)``, standard normal.

        Returns:
            ``(batch, planes, 112, 112)``, in full steps.
        """
        small = functional.adaptive_avg_pool2d(images[:, : self.planes], SIDE)
        told = leaving[:, :, None, None].expand(-1, -1, *noise.shape[-2:])
        shown = torch.cat([2 * small - 1, limit], dim=1)
        shown = functional.pixel_unshuffle(shown, FOLD)
        outer = self.outer(self.enter(torch.cat([shown, noise, told], dim=1)))
        inner = self.up(self.inner(self.down(outer)))
        outer = self.leave(torch.cat([outer, inner], dim=1))
        drawn = functional.pixel_shuffle(self.draw(outer), FOLD)
        return torch.tanh(drawn + self._mixed(leaving, noise)) * limit

    def _mixed(self, leaving: Tensor, noise: Tensor) -> Tensor:
        """Return the patterns that noise chooses for what each image is to leave."""
        chosen = noise.flatten(1)[:, :PATTERNS].mul(4).softmax(dim=1)
        if not self.classes:
            leaving = torch.ones_like(chosen[:, :1])
        shares = leaving / leaving.sum(dim=1, keepdim=True).clamp(min=1e-6)
        return torch.einsum("nk,nc,kcphw->nphw", chosen, shares, self.patterns)

    def start(
        self,
        pixels: Tensor,
        budget: Budget,
        anchors: Sequence[Tensor],
        chance: Chance,
    ) -> Tensor:
        """Return where a search may start: :data:`miadmark_core.search.optimise.Start`.

        Args:
            pixels: ``(batch, 3, side, side)``, 0..1.
            budget: What the marks may show.
            anchors: Of the surrogates, ``(batch, ...)``.
            chance: Draws the noise.
        """
        noise = torch.cat([noise_for(1, own) for own in chance]).to(pixels.device)
        leaving = leaving_of(anchors, self.classes)
        with torch.no_grad():
            drawn: Tensor = self(pixels, budget.limit, leaving, noise)
        # It was taught on images of which a step up is lighter.
        return drawn * budget.peak.sign()


def noise_for(images: int, generator: torch.Generator) -> Tensor:
    """Return fresh noise for so many images, ``(images, NOISE, 28, 28)``."""
    side = SIDE // FOLD
    return torch.randn(images, NOISE, side, side, generator=generator)


def leaving_of(anchors: Sequence[Tensor], classes: int) -> Tensor:
    """Return which share of the surrogates leads each image off each class.

    Args:
        anchors: Of surrogates for the same classes, or of encoders.
        classes: How many; 0 for encoders.

    Returns:
        ``(batch, classes)``, 0..1.
    """
    if not classes:
        return anchors[0][:, :0]
    return torch.stack([(anchor > 0).float() for anchor in anchors]).mean(dim=0)


def _block(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.GroupNorm(1, outputs),
        nn.ReLU(),
    )
