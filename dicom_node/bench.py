"""The bench: where one job at a time is worked at, and a note says which one that is.

Objects are sent side by side, each destination's by a thread of its own. To mark, to
strip and to encode wants the whole machine: that is done one job after another, the most
urgent of those that wait comes next, and whoever waits for the network meanwhile leaves
the bench to others.

What may kill its process is done at the bench, so if the process dies, the note names
whose fault it was, and nobody else is blamed who was only on his way. It need not survive
a power cut.

Nothing here knows what is done at the bench.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dicom_node.queue.job import Job

logger = logging.getLogger(__name__)

_NUMBER: Final = struct.Struct("<q")
_NOBODY: Final = 0
"""No job has that number."""


class _Place(NamedTuple):
    """Somebody at the bench, or who wants to be; what is less comes first."""

    urgency: int
    """The more urgent, the less."""
    job_id: int
    """What came in first comes first."""
    number: int
    instance_id: int | None
    """That nobody else may have meanwhile."""


class Bench:
    """One for each process that works."""

    def __init__(self, note: Path | None = None) -> None:
        """Read what the note says, and begin anew.

        Args:
            note: Its file, made if it is not there; None for no note.
        """
        self.suspects: frozenset[int] = frozenset()
        """Numbers of the jobs at which whoever had this bench before has died."""
        self._changed = threading.Condition()
        self._at: _Place | None = None
        self._waiting: list[_Place] = []
        self._away: dict[int, _Place] = {}
        """By instance: who has left the bench, and will be back."""
        self._mine = threading.local()
        self._count = 0
        self._note = -1
        if note is not None:
            try:
                self._note = os.open(note, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                said = os.pread(self._note, _NUMBER.size, 0)
                (number,) = _NUMBER.unpack(said.ljust(_NUMBER.size, b"\0"))
                self.suspects = frozenset({number} - {_NOBODY})
            except OSError as error:
                logger.warning("no note of who is at it: %s", error.strerror)
            self._write(_NOBODY)

    def close(self) -> None:
        """Write no more notes."""
        note, self._note = self._note, -1
        if note >= 0:
            os.close(note)

    @contextmanager
    def at(self, job: Job, *, keeps_instance: bool = False) -> Iterator[None]:
        """Be at the bench for a block, once it is one's turn.

        What ends the process, and no error does, leaves the note as it is.

        Args:
            job: Which is worked at.
            keeps_instance: Whether no other job of the same instance may come to the
                bench, not even while this one is :meth:`away`.
        """
        assert getattr(self._mine, "place", None) is None, "at the bench already"
        with self._changed:
            self._count += 1
            instance = job.instance_id if keeps_instance else None
            place = _Place(-job.priority, job.id, self._count, instance)
        self._enter(place)
        self._mine.place = place
        try:
            yield
        except Exception:
            self._write(_NOBODY)
            raise
        else:
            self._write(_NOBODY)
        finally:
            self._mine.place = None
            self._leave()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Leave the bench to others for a block; nothing happens to who is not at it."""
        place: _Place | None = getattr(self._mine, "place", None)
        if place is None:
            yield
            return
        self._write(_NOBODY)
        with self._changed:
            if place.instance_id is not None:
                self._away[place.instance_id] = place
        self._leave()
        try:
            yield
        finally:
            self._enter(place)

    def _enter(self, place: _Place) -> None:
        with self._changed:
            self._waiting.append(place)
            try:
                self._changed.wait_for(lambda: self._next() is place)
                self._at = place
            finally:
                self._waiting.remove(place)
            if place.instance_id is not None:
                self._away.pop(place.instance_id, None)
        self._write(place.job_id)

    def _next(self) -> _Place | None:
        """Return who may come to the bench; None for nobody, or while somebody is."""
        if self._at is not None:
            return None
        free = (
            place
            for place in self._waiting
            if place.instance_id is None
            or self._away.get(place.instance_id, place) is place
        )
        return min(free, default=None)

    def _leave(self) -> None:
        with self._changed:
            self._at = None
            self._changed.notify_all()

    def _write(self, number: int) -> None:
        if self._note >= 0:
            with suppress(OSError):  # then nobody is blamed
                os.pwrite(self._note, _NUMBER.pack(number), 0)
