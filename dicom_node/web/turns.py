"""Work that takes much memory or time: one at a time, and only some wait for it.

Whoever waits occupies a thread of the page, of which there are not many. What the work is
is not known here.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dicom_node.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Turns:
    """Lets one work, and a number of others wait."""

    def __init__(self, waiting: int) -> None:
        """Prepare.

        Args:
            waiting: How many may wait while one works.
        """
        self._places = threading.BoundedSemaphore(waiting + 1)
        self._working = threading.Lock()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Wait for one's turn, and work.

        Raises:
            NodeError: Too many wait already.
        """
        if not self._places.acquire(blocking=False):
            raise NodeError(
                "too many ask for this at once", hint="Try again in a moment."
            )
        try:
            with self._working:
                yield
        finally:
            self._places.release()
