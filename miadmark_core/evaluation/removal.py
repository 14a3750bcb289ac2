"""Attackers who know that there is a mark, and what they train or do to get it off.

From the weakest to the strongest: a network that removes visible logos; what is common to
a series of marked pictures, subtracted; marking once more and going the same way back;
and a network trained on the attacker's own pairs, clean and marked, made with this very
tool and other keys. Whoever has the tool can do the last. The pictures they train on are
of the split ``victim``, never of ``test``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn import functional

from miadmark_core.training.denoisers import DenoiserPlan

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from miadmark_core.training.denoisers import LogoRemover

    Pixels = NDArray[np.uint8]
    """``(images, rows, columns, 3)``."""

REMOVER_PLAN: Final = DenoiserPlan(pictures=4_000, learning_rate=3e-3)

_MOST_FIGURES: Final = 6
_FAINTEST: Final = 0.3
_MOST_OPAQUE: Final = 0.95
_SMALLEST: Final = 0.15
_LARGEST: Final = 0.7
"""Of the logos that a remover learns on: opacity, and half a side of half a cut-out.
Wider than any logo that is put on, so that none is a surprise."""

_SMOOTHED: Final = 1.5
"""Standard deviation in pixels: a smoothed picture stands in for the clean one."""


def without_common_mark(marked: Pixels) -> Pixels:
    """Return the pictures without what their high frequencies have in common.

    What is the same in every picture of a series shows in the mean of what smoothing
    takes away; a mark that is fresh in every picture does not.

    Source:
        Dekel et al., 2017, "On the effectiveness of visible watermarks", section 3.
    """
    wide = marked.astype(np.float32)
    smooth = gaussian_filter(wide, (0, _SMOOTHED, _SMOOTHED, 0))
    common = (wide - smooth).mean(axis=0)
    rest: Pixels = np.clip(np.rint(wide - common), 0, 255).astype(np.uint8)
    return rest


def marked_again(marked: Pixels, mark: Callable[[Pixels], Pixels]) -> Pixels:
    """Return the pictures moved away from a second mark as far as it moved them.

    Args:
        marked: Not modified.
        mark: The tool, with the attacker's keys.
    """
    again = mark(marked).astype(np.int16)
    back: Pixels = np.clip(2 * marked.astype(np.int16) - again, 0, 255).astype(np.uint8)
    return back


def pairs_loss(network: nn.Module, pairs: Tensor, _: torch.Generator) -> Tensor:
    """Return how far a remover is from the clean pictures.

    Args:
        network: Takes marked pictures, returns clean ones.
        pairs: Clean and marked side by side, ``(batch, 2 * channels, rows, columns)``.
    """
    clean, marked = pairs.chunk(2, dim=1)
    return functional.l1_loss(network(marked), clean)


def logo_loss(
    network: LogoRemover, clean: Tensor, generator: torch.Generator
) -> Tensor:
    """Return how far a remover is from pictures that random logos were laid over.

    Both the clean pictures and the places of the logos count.

    Source:
        Liu et al., 2021, "WDNet: watermark-decomposition network for visible watermark
        removal": random opacity, size and place; a loss on the mask as well.
    """
    covered, opacity = with_random_logos(clean, generator)
    found, where = network.decomposed(covered)
    is_covered = (opacity > 0).float()
    # What lies under a logo is a small part of a picture, and all that matters.
    weight = 1 + 4 * is_covered
    return (weight * (found - clean).abs()).mean() + (
        0.5 * functional.binary_cross_entropy_with_logits(where, is_covered)
    )


def with_random_logos(
    clean: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return pictures with one to six random figures over each, and their opacity.

    A figure is a ring, a bar or a block of dots of random place, size and turn, in one
    grey: the strokes that logos are made of.

    Args:
        clean: ``(batch, channels, rows, columns)``, -1..1.
        generator: The only source of chance.

    Returns:
        The same shape, and ``(batch, 1, rows, columns)``, 0..1.
    """

    def between(low: float, high: float) -> Tensor:
        drawn = torch.rand(len(clean), 1, 1, 1, generator=generator)
        return (low + (high - low) * drawn).to(clean.device)

    covered, seen = clean, torch.ones_like(clean[:, :1])
    figures = between(1, _MOST_FIGURES + 1).floor()
    for number in range(_MOST_FIGURES):
        figure = _figure(clean.shape, between) & (figures > number)
        opacity = figure * between(_FAINTEST, _MOST_OPAQUE)
        covered = covered * (1 - opacity) + between(-1, 1) * opacity
        seen = seen * (1 - opacity)
    return covered, 1 - seen


def _figure(shape: torch.Size, between: Callable[[float, float], Tensor]) -> Tensor:
    """Return where a random figure lies in each picture, ``(batch, 1, ...)``."""
    right, down = between(-1, 1), between(-1, 1)
    y = torch.linspace(-1, 1, shape[-2], device=right.device).view(1, 1, -1, 1) - down
    x = torch.linspace(-1, 1, shape[-1], device=right.device).view(1, 1, 1, -1) - right
    turn, size = between(-3.14, 3.14), between(_SMALLEST, _LARGEST)
    along = (x * turn.cos() + y * turn.sin()) / size
    across = (y * turn.cos() - x * turn.sin()) / size
    far = (along.square() + across.square()).sqrt()
    ring = (far - 0.8).abs() < 0.15
    bar = (across.abs() < between(0.08, 0.3)) & (along.abs() < 1)
    dots = (torch.sin(along * 9) * torch.sin(across * 9) > 0.4) & (far < 0.7)
    chosen = between(0, 3)
    return (ring & (chosen < 2)) | (bar & (chosen > 1)) | (dots & (chosen < 1))


def paired(clean: NDArray[np.uint8], marked: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return pairs as :func:`pairs_loss` takes them, ``(images, 2 c, rows, columns)``.

    Args:
        clean: ``(images, c, rows, columns)``.
        marked: The same shape.
    """
    return np.concatenate([clean, marked], axis=1)
