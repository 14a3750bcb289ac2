"""How fast, and when, an archive may be read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from dicom_node.throttle import BURST_S, turn

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from dicom_node.hours import Hours

LOOK_S: Final = 5.0
"""How often it is looked whether the hours have begun; clocks may be set meanwhile."""
MOMENT_S: Final = 1.0
"""For which it does not matter whether what has been read is worked on meanwhile."""


@dataclass(slots=True, kw_only=True)
class Pacing:
    """So many objects and bytes a second, on average, and only in some hours."""

    clock: Callable[[], float]
    """Returns seconds."""
    now: Callable[[], datetime]
    """Returns the time, aware."""
    sleep: Callable[[float], bool]
    """Waits that many seconds; true if that was cut short, and everything is to end."""
    objects_per_s: float = 0.0
    """0 for as many as come."""
    bytes_per_s: float = 0.0
    """0 for as many as come."""
    hours: Hours | None = None
    """In which objects are read; None: always."""
    hindrance: Callable[[], str] = str
    """Says in words why nothing more is to be read just now; empty if nothing is."""
    told: Callable[[str], object] = lambda _: None
    """Hears why nothing is done; empty once something is."""
    _objects_until: float = field(default=0.0, init=False)
    _bytes_until: float = field(default=0.0, init=False)

    def is_shut(self) -> bool:
        """Say whether nothing may be read now, at whatever speed."""
        return bool(self._why_not())

    def is_late(self, size: int = 0) -> bool:
        """Say whether the speed alone has the next object wait for longer than a moment.

        Args:
            size: Bytes that have come and are not spent yet.
        """
        now, until = self.clock(), self._objects_until
        if self.bytes_per_s:
            most = max(int(self.bytes_per_s * BURST_S), 1)
            # The last piece has not to be waited for.
            left = max(size - most, 0) / self.bytes_per_s
            until = max(until, max(self._bytes_until, now - BURST_S) + left)
        return until - now > MOMENT_S

    def begin(self) -> bool:
        """Wait until another object may be read; false if everything is to end."""
        is_told = False
        while why := self._why_not():
            self.told(why)
            is_told = True
            if self.sleep(LOOK_S):
                return False
        if is_told:
            self.told("")
        if not self.objects_per_s:
            return not self.sleep(0)
        mine = turn(self._objects_until, 1, self.clock(), self.objects_per_s)
        self._objects_until = mine.spent_until
        return not self.sleep(mine.wait_s)

    def _why_not(self) -> str:
        if self.hours is not None and not self.hours.are_open(self.now()):
            return "waits for its hours"
        return self.hindrance()

    def spend(self, size: int) -> bool:
        """Wait as long as ``size`` bytes take; false if everything is to end.

        They have been read at once: it is what comes next that is late.
        """
        if not self.bytes_per_s:
            return True
        most = max(int(self.bytes_per_s * BURST_S), 1)
        while size > 0:
            piece = min(size, most)
            mine = turn(self._bytes_until, piece, self.clock(), self.bytes_per_s)
            self._bytes_until = mine.spent_until
            if self.sleep(mine.wait_s):
                return False
            size -= piece
        return True
