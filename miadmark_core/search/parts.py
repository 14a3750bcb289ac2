"""A batch in parts that cores work on side by side, one core each.

On a CPU that is faster than all cores on one image after the other: an image alone gives
them too little to share, and the batch as a whole more than their caches hold. On a GPU a
batch is one part. Nothing here knows what is done with a part.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    _Result = TypeVar("_Result")

LARGEST_PART: Final = 8
"""Images: more of them gain nothing on a core, and need their memory."""


def parts_of(chosen: Tensor) -> Sequence[Tensor]:
    """Return the numbers of images in parts, in order: enough to keep each core busy.

    Args:
        chosen: At least one; on the device where the images are.
    """
    if chosen.device.type != "cpu":
        return [chosen]
    size = min(LARGEST_PART, -(-len(chosen) // torch.get_num_threads()))
    return torch.split(chosen, size)


def side_by_side(
    work: Callable[[Tensor], _Result], parts: Sequence[Tensor]
) -> list[_Result]:
    """Return what comes of each part, in order; the first that fails raises.

    A part that is alone has all cores for it.
    """
    cores = torch.get_num_threads()
    if len(parts) < 2 or cores < 2:
        return [work(part) for part in parts]
    alone = partial(torch.set_num_threads, 1)
    try:
        with ThreadPoolExecutor(min(cores, len(parts)), initializer=alone) as pool:
            return list(pool.map(work, parts))
    finally:
        # Threads that begin later take over what was said last.
        torch.set_num_threads(cores)
