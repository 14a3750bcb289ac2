"""How fast a destination may be sent to: a token bucket that several processes share.

The bucket is one number in a file: until when what was sent lasts at the agreed speed.
Whoever wants to send a piece adds what that takes, and waits until it is his turn; so
that all who send have their turns one after another, and the same share each.

The number is on the clock that counts since the machine was started.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BURST_S: Final = 0.25
"""What was not sent in that time may be sent at once; and no piece is longer."""
_LONGEST_S: Final = 60.0
"""Who is said to have to wait longer reads a number from before a restart."""
_NUMBER: Final = struct.Struct("<d")


class Turn(NamedTuple):
    """When a piece may be sent."""

    spent_until: float
    """To be remembered: how long what was sent lasts, this piece included."""
    wait_s: float


def turn(spent_until: float, size: int, now: float, bytes_per_s: float) -> Turn:
    """Return when a piece may be sent. Pure.

    Args:
        spent_until: As it was remembered.
        size: Bytes of the piece.
        now: On the same clock.
        bytes_per_s: The agreed speed.
    """
    if spent_until - now > _LONGEST_S:
        spent_until = now
    begins = max(spent_until, now - BURST_S)
    return Turn(begins + size / bytes_per_s, max(begins - now, 0.0))


class Throttle:
    """The bucket of one destination."""

    def __init__(
        self,
        path: Path,
        bytes_per_s: int,
        clock: Callable[[], float],
        sleep: Callable[[float], object],
    ) -> None:
        """Keep what it needs.

        Args:
            path: Of the file; made if it is not there.
            bytes_per_s: The agreed speed.
            clock: Returns seconds, the same for all processes.
            sleep: Waits that many seconds.
        """
        self._path, self._bytes_per_s = path, bytes_per_s
        self._clock, self._sleep = clock, sleep

    @property
    def piece(self) -> int:
        """Return how many bytes are sent at a time, at most."""
        return max(int(self._bytes_per_s * BURST_S), 4096)

    def wait(self, size: int) -> None:
        """Return when a piece of that many bytes may be sent.

        Raises:
            OSError: The file cannot be used.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            known = os.pread(descriptor, _NUMBER.size, 0).ljust(_NUMBER.size, b"\0")
            (spent_until,) = _NUMBER.unpack(known)
            now = self._clock()
            mine = turn(spent_until, size, now, self._bytes_per_s)
            os.pwrite(descriptor, _NUMBER.pack(mine.spent_until), 0)
        finally:
            os.close(descriptor)
        if mine.wait_s:
            self._sleep(mine.wait_s)
