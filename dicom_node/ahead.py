"""Marks that are looked for before the turn of their objects has come.

A node marks one object of a destination after another. Where other machines look for
marks, that would leave all of them idle but one, so the marks of the next few objects are
asked for while one is made ready and sent: each by itself, so that it gets the mark that
it would get anyway. All of this is in memory: whoever dies loses time, and nothing else.

Nothing here knows which objects are next.
"""

from __future__ import annotations

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

    class Seek(Protocol):
        """Has the marks of one instance looked for."""

        def __call__(
            self, instance: OpenInstance, /, *, marks_quantities: bool = False
        ) -> Finish:
            """Ask for them, and return what puts them in."""
            ...


MOST_BYTES: Final = 64 << 20
"""Of pixels, as they are stored. Six times that lies in memory until they are marked."""
STALE_S: Final = 120.0
"""After which an object that did not have its turn makes room for others: it may have
been held, or its destination has gone."""


class _Sought(NamedTuple):
    size: int
    since: float
    finish: Finish


class Ahead:
    """What is looked for; used by whoever is at the bench."""

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
        self._sought: dict[int, _Sought] = {}
        """By job."""

    def knows(self, job: Job) -> bool:
        """Say whether the marks of a job's object are looked for."""
        return job.id in self._sought

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
        self._forget_stale()
        try:
            instance = opened()
            size = pixel_layout.layout_of(instance.attributes(*pixel_layout.TAGS)).size
            taken = sum(one.size for one in self._sought.values())
            if len(self._sought) > self.most or taken + size > MOST_BYTES:
                return False
            finish = self._seek(instance, marks_quantities=marks_quantities)
        except ClusterError:
            return False
        except Exception:  # noqa: BLE001 its own turn says what is wrong with it
            return True
        self._sought[job.id] = _Sought(size, self._clock(), finish)
        return True

    def taken(self, job: Job) -> Finish | None:
        """Return what marks a job's object, if that was looked for; once."""
        sought = self._sought.pop(job.id, None)
        return None if sought is None else sought.finish

    def _forget_stale(self) -> None:
        until = self._clock() - STALE_S
        for number, one in list(self._sought.items()):
            if one.since < until:
                del self._sought[number]
