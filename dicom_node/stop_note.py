"""A note that a worker was told to stop: if it is killed now, no object is to blame.

Who takes its place reads the note, and takes it away. It need not survive a power cut.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)


class StopNote:
    """A file that is there once a worker was told to stop."""

    def __init__(self, path: Path) -> None:
        """Keep where it is."""
        self._path = path

    def leave(self) -> None:
        """Leave the note; on a disk that takes none, nothing happens."""
        try:
            self._path.touch(mode=0o600)
        except OSError as error:
            logger.warning("no note of being told to stop: %s", error.strerror)

    def taken(self) -> bool:
        """Take the note away, and say whether it was there."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
