"""Turns at a file that several processes write to: whoever waits goes on at once.

SQLite lets one write at a time, and whoever finds another at it sleeps for a while and
looks again: longer than writing takes, and not in order. A lock of the kernel wakes the
next. It is a courtesy only: SQLite's own lock is what keeps writers apart, also those
that know nothing of this one, and the kernel drops it with whoever held it.

The threads of one process share a connection, and so a place: what keeps them apart is
a lock of the process, and that is no courtesy.
"""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


class Turn:
    """One process's place at a file; a context manager.

    Its threads have their turns one after another, each with what :attr:`lock` covers.
    """

    def __init__(self, path: Path) -> None:
        """Open the lock, or do without where that cannot be.

        Args:
            path: A file that nothing is ever written to; made if it is not there.
        """
        self.lock = threading.RLock()
        self._descriptor = -1
        with suppress(OSError):
            self._descriptor = os.open(
                path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )

    def __enter__(self) -> None:
        """Wait for one's turn."""
        self.lock.acquire()
        with suppress(OSError, ValueError):  # there may be none
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let the next go on."""
        with suppress(OSError, ValueError):  # there may be none
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self.lock.release()

    def close(self) -> None:
        """Give the place up."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
