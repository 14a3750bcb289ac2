"""A node goes over to another configuration: for a while, two of them are right.

Those that receive by the new one begin before those that work by the old one have ended,
and associations finish by the old one while others work by the new one. So whoever works
may meet a job of a route that it does not know, which is no reason to hold it: not before
all go by one configuration again. A lock says when that is, which the kernel drops with
its holder.
"""

from __future__ import annotations

import fcntl
from typing import IO, TYPE_CHECKING, Final

from dicom_node.supervising import locked

if TYPE_CHECKING:
    from pathlib import Path

_LOCK: Final = "changing.lock"


class Transition:
    """Is on from its beginning to its end; for the first process of a node."""

    def __init__(self, folder: Path) -> None:
        """Keep the state folder; nothing begins yet."""
        self._path = folder / _LOCK
        self._held: IO[bytes] | None = None

    def begin(self) -> None:
        """Begin, if it has not begun.

        Raises:
            OSError: Nobody can be told of it.
        """
        if self._held is None:
            held = self._path.open("ab")
            try:
                fcntl.flock(held, fcntl.LOCK_EX)  # who looks has it for a moment only
            except OSError:
                held.close()
                raise
            self._held = held

    def end(self) -> None:
        """End, if it has begun."""
        held, self._held = self._held, None
        if held is not None:
            held.close()


def is_on(folder: Path) -> bool:
    """Say whether a node goes over to another configuration just now.

    Args:
        folder: Its state folder.

    Raises:
        OSError: It cannot be told.
    """
    seen = locked(folder / _LOCK, is_shared=True)
    if seen is None:
        return True
    seen.close()
    return False
