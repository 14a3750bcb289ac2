"""Marks that are looked for before the turn of their objects has come.

A node marks one object of a destination after another. Where other machines look for
marks, that would leave all of them idle but one, so the marks of the next few objects are
asked for while one is made ready and sent: each by itself, so that it gets the mark that
it would get anyway. What goes to several destinations of a route is marked once, and
looked for once. All of this is in memory: whoever dies loses time, and nothing else.

Nothing here knows which objects are next.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from dicom_node import pixel_layout
from dicom_node.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from dicom_node.filters.mark import MarkedInstance
    from dicom_node.instance import OpenInstance
    from dicom_node.queue.job import Job
    from miadmark_core.sealing.recipients import Recipient

    Finish = Callable[[Sequence[Recipient]], MarkedInstance]
    """Returns an instance marked, so that the recipients open it too; or raises."""

    class Mark(Protocol):
        """Marks one instance."""

        def __call__(
            self,
            instance: OpenInstance,
            recipients: Sequence[Recipient],
            *,
            marks_quantities: bool = False,
        ) -> MarkedInstance:
            """Return it marked, so that the recipients open it too; or raise."""
            ...

    class Seek(Protocol):
        """Has the marks of one instance looked for."""

        def __call__(
            self, instance: OpenInstance, /, *, marks_quantities: bool = False
        ) -> Finish:
            """Ask for them, and return what puts them in."""
            ...


MOST_BYTES: Final = 64 << 20
"""Of pixels, as they are stored. Six times that lies in memory until they are marked."""
STALE_S: Final = 300.0
"""After which an object that nobody has called the next makes room for others: it may
have been held, or its destination has gone. Longer than those before it take, since what
is forgotten too early is searched twice."""


class _Sought(NamedTuple):
    size: int
    since: float
    """When it was one of the next for the last time."""
    finish: Finish | None
    """None for what was taken, and for what nothing could be asked about: its own turn
    says why."""


class Ahead:
    """What is looked for; used by any thread."""

    def __init__(
        self, seek: Seek, most: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin with nothing.

        Args:
            seek: Has marks looked for.
            most: For how many objects at a time, beside the one whose turn it is.
            clock: Returns seconds.
        """
        self.most = most
        self._seek, self._clock = seek, clock
        self._lock = threading.Lock()
        self._sought: dict[tuple[int, str], _Sought] = {}
        """By instance and route."""

    @property
    def count(self) -> int:
        """Return for how many objects it is known that they come, and what they need."""
        return len(self._sought)

    def knows(self, job: Job) -> bool:
        """Say whether a job's object, which is one of the next, was looked at."""
        self.tend()
        with self._lock:
            sought = self._sought.get(_known_by(job))
            if sought is not None:
                again = sought._replace(since=self._clock())
                self._sought[_known_by(job)] = again
        return sought is not None

    def look(
        self,
        job: Job,
        opened: Callable[[], OpenInstance],
        *,
        marks_quantities: bool,
    ) -> bool:
        """Have the marks of an object looked for.

        Args:
            job: Whose object it is.
            opened: Opens it.
            marks_quantities: Whether it is marked if it holds quantities.

        Returns:
            False if nothing more is looked for now: there is no room, or nobody to ask.
        """
        self.tend()
        size, finish = 0, None
        try:
            instance = opened()
            size = pixel_layout.layout_of(instance.attributes(*pixel_layout.TAGS)).size
            if not self._has_room_for(size):
                return False
            finish = self._seek(instance, marks_quantities=marks_quantities)
        except ClusterError:
            return False
        except Exception:  # noqa: BLE001 its own turn says what is wrong with it
            size = 0
        with self._lock:
            self._sought[_known_by(job)] = _Sought(size, self._clock(), finish)
        return True

    def taken(self, job: Job) -> Finish | None:
        """Return what marks a job's object, if that was looked for; once.

        Until it is forgotten it is known, so that nobody looks for it meanwhile.
        """
        self.tend()
        with self._lock:
            sought = self._sought.get(_known_by(job))
            if sought is None:
                return None
            self._sought[_known_by(job)] = _Sought(0, self._clock(), None)
        return sought.finish

    def forget(self, job: Job) -> None:
        """Forget a job's object: it is marked, or nobody is to mark it."""
        with self._lock:
            self._sought.pop(_known_by(job), None)

    def tend(self) -> None:
        """Forget what did not have its turn for too long."""
        with self._lock:
            until = self._clock() - STALE_S
            for key, one in list(self._sought.items()):
                if one.since < until:
                    del self._sought[key]

    def _has_room_for(self, size: int) -> bool:
        with self._lock:
            asked = [one.size for one in self._sought.values() if one.finish]
        return len(asked) <= self.most and sum(asked) + size <= MOST_BYTES


def _known_by(job: Job) -> tuple[int, str]:
    return job.instance_id, job.route
