"""Where in a picture the finding is, as far as classifiers that know it can tell.

Nobody drew the lesions of these sets, so the region of interest is what the surrogates'
answers rest on; a reader would draw another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from miadmark_core.search.budget import FINDING, salient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from miadmark_core.search.surrogate import Surrogate

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
        seen = salient([s.looked(x).saliency for s in surrogates], x.shape[-1])
        found.append((seen >= FINDING)[:, 0].cpu().numpy())
    return np.concatenate(found)
