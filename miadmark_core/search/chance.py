"""What the images of a batch draw from: each from a source of its own.

Images are searched together since that is faster, and strangers to one another all the
same: what one draws says nothing of another's mark, and its mark is the one that it would
get alone. Nothing here knows where seeds come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    Chance = Sequence[torch.Generator]
    """One for each image of a batch, on the CPU, so that every device draws the same."""


def uniform(chance: Chance, *shape: int) -> Tensor:
    """Return numbers from 0 to below 1, ``(batch, *shape)``."""
    return torch.cat([torch.rand(1, *shape, generator=own) for own in chance])


def normal(chance: Chance, *shape: int) -> Tensor:
    """Return standard normal numbers, ``(batch, *shape)``."""
    return torch.cat([torch.randn(1, *shape, generator=own) for own in chance])


def of_part(chance: Chance, chosen: Tensor) -> Chance:
    """Return what the images draw from that ``chosen`` names."""
    return [chance[n] for n in chosen.tolist()]


def apart(chance: Chance, count: int) -> list[Chance]:
    """Return sources for so many who draw at the same time.

    What one of them draws, and when, moves nothing that another draws.
    """
    seeds = [torch.randint(1 << 62, (count,), generator=own).tolist() for own in chance]
    return [
        [torch.Generator().manual_seed(of_image[n]) for of_image in seeds]
        for n in range(count)
    ]
