"""A bell: who has put something into the queue rings, and who works it off wakes.

It is a FIFO in the state folder. Whoever waits holds both of its ends, so that there is
no end of it to read; whoever rings opens it, and where nobody waits, or enough have rung,
nothing happens. The kernel closes what a process held that dies, and a bell that rang
while nobody was there is forgotten: who comes to wait looks into the queue first. Who
must not miss anything looks again after a while, rung or not.
"""

from __future__ import annotations

import logging
import os
import select
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)


class Bell:
    """The bell of one who waits; any thread may ring it."""

    def __init__(self, path: Path) -> None:
        """Make the FIFO, in place of what else is there.

        Where there can be none, nobody is woken, and nothing else is wrong.

        Args:
            path: Where it is; no other process waits there.
        """
        self._path, self._descriptor = path, -1
        try:
            path.unlink(missing_ok=True)
            os.mkfifo(path, 0o600)
            self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            logger.warning("no bell: %s", error.strerror)
        self._poll = select.poll()
        if self._descriptor >= 0:
            self._poll.register(self._descriptor, select.POLLIN)

    def close(self) -> None:
        """Wait no more."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
            os.close(descriptor)

    def wait(self, within_s: float) -> bool:
        """Return once it was rung, or after so many seconds; say whether it was.

        That it was rung before counts, once.
        """
        if not self._poll.poll(1000 * within_s):
            return False
        with suppress(BlockingIOError):
            while len(os.read(self._descriptor, 4096)) == 4096:
                pass
        return True

    def ring(self) -> None:
        """Wake who waits."""
        if self._descriptor >= 0:
            _ring(self._descriptor)


def ring(bells: Sequence[Path]) -> None:
    """Wake whoever waits at some bells.

    Args:
        bells: Where they are, if they are there.
    """
    for path in bells:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue  # nobody waits there
        try:
            if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                _ring(descriptor)
        finally:
            os.close(descriptor)


def _ring(descriptor: int) -> None:
    with suppress(OSError):  # it is full, so it has been rung; or nobody waits any more
        os.write(descriptor, b"\n")
