"""Where in a picture the finding is, as far as classifiers that know it can tell.

Nobody drew the lesions of these sets, so the region of interest is what the surrogates'
answers rest on; a reader would draw another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from miadmark_core.search.surrogate import Surrogate

THRESHOLD: Final = 150 / 255
"""In the middle of those that the paper's code sweeps (110 to 170 of 255)."""

_AT_ONCE: Final = 64


def regions_of_interest(
    pixels: NDArray[np.uint8], surrogates: Sequence[Surrogate], device: torch.device
) -> NDArray[np.bool_]:
    """Return where the mean saliency of the surrogates is high.

    Args:
        pixels: Clean pictures, ``(images, rows, columns, 3)``.
        surrogates: At least one.
        device: Where they are.

    Returns:
        ``(images, rows, columns)``; at least one place in each picture.
    """
    found = []
    for start in range(0, len(pixels), _AT_ONCE):
        x = torch.from_numpy(pixels[start : start + _AT_ONCE]).to(device)
        x = x.permute(0, 3, 1, 2).float() / 255
        salient = torch.zeros_like(x[:, :1])
        for surrogate in surrogates:
            seen = surrogate.saliency(x)[:, None]
            seen = functional.interpolate(seen, x.shape[-2:], mode="bilinear")
            salient += seen / seen.amax(dim=(2, 3), keepdim=True).clamp(min=1e-9)
        highest = salient.amax(dim=(2, 3), keepdim=True)
        found.append((salient >= THRESHOLD * highest)[:, 0].cpu().numpy())
    return np.concatenate(found)
