"""How many associations a destination has with this node: so many files, locked.

The kernel drops a lock with its holder: a process that is killed holds none.
"""

from __future__ import annotations

import fcntl
import hashlib
import time
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from dicom_node.destination import Destination

_LATELY_S: Final = 1.0


class Slots:
    """The files, in a folder that all processes of a node share."""

    def __init__(self, folder: Path) -> None:
        """Keep where.

        Args:
            folder: Made if it is not there.
        """
        self._folder = folder

    def path(self, destination: Destination, kind: str) -> Path:
        """Return the path of a file of a destination, whatever that is called."""
        name = hashlib.sha256(destination.name.encode("utf-8")).hexdigest()[:16]
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._folder / f"{name}.{kind}"

    def take(self, destination: Destination) -> IO[bytes] | None:
        """Return a slot, to be closed when the association is; None if none is free.

        That somebody wanted one is remembered until he gets it.
        """
        wanted = self.path(destination, "wanted")
        for number in range(destination.max_associations):
            held = self.path(destination, f"{number}.slot").open("ab")
            if _is_ours(held):
                wanted.unlink(missing_ok=True)
                return held
            held.close()
        wanted.touch(mode=0o600)
        return None

    def is_free(self, destination: Destination) -> bool:
        """Say whether a slot is free; if none is, it is remembered that one is wanted."""
        slot = self.take(destination)
        if slot is None:
            return False
        slot.close()
        return True

    def is_wanted(self, destination: Destination) -> bool:
        """Say whether somebody wanted a slot a moment ago, and got none."""
        try:
            wanted = self.path(destination, "wanted").stat().st_mtime
        except FileNotFoundError:
            return False
        return abs(time.time() - wanted) < _LATELY_S


def _is_ours(stream: IO[bytes]) -> bool:
    """Lock a file for as long as it is open, unless somebody else has."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
