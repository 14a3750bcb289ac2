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
