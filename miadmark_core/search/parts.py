"""Work that cores do side by side: parts of a batch, and eyes on one part.

Where a batch has fewer parts than there are cores, a part shares out its own among its
eyes. On a CPU that is faster than all cores on one image after the other: an image alone
gives them too little to share, and the batch as a whole more than their caches hold. On a
GPU a batch is one part, and one thing is done after the other. Nothing here knows what is
done.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final, Self, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    _Part = TypeVar("_Part")
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


class Crew:
    """Threads that share the cores of whoever opens it, and stay until it is closed.

    They stay since a thread that begins has its memory to fetch anew: in each step of
    the search that would cost as much as the step itself.
    """

    def __init__(self, most: int, device: torch.device) -> None:
        """Be ready for so many things at the same time.

        Args:
            most: At least 1; there are no more threads than cores, and none where they
                would be alone, or where the work is not done by the CPU.
            device: Where the work is.
        """
        self._cores = torch.get_num_threads() if device.type == "cpu" else 1
        workers = min(self._cores, most)
        self._pool: ThreadPoolExecutor | None = None
        if workers > 1:
            share = partial(_limited_to, self._cores // workers)
            self._pool = ThreadPoolExecutor(workers, initializer=share)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close, and leave the cores to whoever opened it."""
        if self._pool:
            self._pool.shutdown()
            # Threads that begin later take over what was said last.
            torch.set_num_threads(self._cores)

    def each(
        self, work: Callable[[_Part], _Result], parts: Sequence[_Part]
    ) -> list[_Result]:
        """Return what comes of each part, in order; the first that fails raises.

        A part that is alone is worked on by whoever asks, with all cores.
        """
        if self._pool is None or len(parts) < 2:
            return [work(part) for part in parts]
        return list(self._pool.map(work, parts))


def _limited_to(cores: int) -> None:
    """Have this thread use so many cores, whatever others say of theirs."""
    # The first that a thread asks takes over what any thread said last: this one asks
    # before it says its own.
    torch.get_num_threads()
    torch.set_num_threads(cores)
