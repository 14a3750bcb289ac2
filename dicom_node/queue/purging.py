"""What was settled long ago is forgotten, so that a queue does not grow for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from datetime import datetime


class Purging(Protocol):
    """Forgets."""

    def purge(self, before: datetime, count: int = 500) -> int:
        """Forget instances that came in and were settled until ``before``.

        Whatever is open stays, and the counts stay as they are.

        Args:
            before: Aware.
            count: How many at most: others wait meanwhile.

        Returns:
            How many there were.
        """
        ...
