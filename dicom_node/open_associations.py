"""Associations that one server has open, and their end.

Each is known from before it begins until it is over. Once they are ended none begins any
more, so that whoever ends them leaves none behind. Nothing here knows who may have one.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from dicom_node.admission import Refusal, Rejection, TurnedAwayError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetdicom.association import Association

_ENDING_S: Final = 5.0
"""How long associations have to hear that the node stops."""


class OpenAssociations:
    """Those that are open, in the order in which they began."""

    def __init__(self) -> None:
        """Begin with none."""
        self._open: dict[Association, None] = {}
        self._lock = threading.Lock()
        self._is_ending = False

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._open)

    @contextmanager
    def having(self, association: Association) -> Iterator[None]:
        """Know of an association while the block lasts.

        Raises:
            TurnedAwayError: Nothing is accepted any more.
        """
        with self._lock:
            if self._is_ending:
                raise TurnedAwayError(Refusal(Rejection.CONGESTION, "the node stops"))
            self._open[association] = None
        try:
            yield
        finally:
            with self._lock:
                del self._open[association]

    def end(self) -> None:
        """Abort all; none begins after that."""
        with self._lock:
            self._is_ending = True
            associations = list(self._open)
        # All at once: each waits a moment for its peer.
        aborting = [threading.Thread(target=a.abort, daemon=True) for a in associations]
        for one in aborting:
            one.start()
        end = time.monotonic() + _ENDING_S
        for one in aborting:
            one.join(max(end - time.monotonic(), 0))
