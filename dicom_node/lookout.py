"""How a node stands, as far as people want to be told: looked up, a picture at a time."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509

from dicom_node.audit import Event
from dicom_node.errors import AuditError
from dicom_node.notices import Picture, Waiting
from dicom_node.notifying import Topic
from dicom_node.queue.job import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime
    from pathlib import Path

    from dicom_node.chain import Entry, Follower
    from dicom_node.queue.protocol import Queue

_EVENTS: Final[Mapping[Event, tuple[Topic, str]]] = {
    Event.STARTED: (Topic.NODE, "the node was started"),
    Event.STOPPED: (Topic.NODE, "the node was told to stop"),
    Event.INSECURE: (Topic.SECURITY, "an original went out without TLS"),
    Event.DAMAGED: (Topic.SECURITY, "a kept copy of an original did not open"),
    Event.RECOVERED: (Topic.SECURITY, "the recovery key was used"),
}
_BREAK_GLASS: Final = "glass"


class Lookout:
    """Looks up how things stand."""

    def __init__(
        self,
        queue: Queue,
        follower: Follower,
        clock: Callable[[], datetime],
        *,
        lack: Callable[[], str],
        down: Callable[[], Mapping[str, str]],
        certificates: Iterable[Path],
        backlog: timedelta,
        notice: timedelta,
    ) -> None:
        """Keep where to look.

        Args:
            queue: What is owed.
            follower: Of the audit, from the first entry on that may be news.
            clock: Returns the time, aware.
            lack: Says what the disk lacks.
            down: Returns the destinations that do not answer, and why.
            certificates: Files in PEM.
            backlog: After which what waits is told.
            notice: Before a certificate expires.
        """
        self._queue, self._follower, self._clock = queue, follower, clock
        self._lack, self._down = lack, down
        self._certificates = list(certificates)
        self._backlog, self._notice = backlog, notice
        self._events: list[tuple[int, str, str]] = []
        self._is_broken = False

    def look(self) -> Picture:
        """Return how things stand now.

        Raises:
            SpoolError: The queue cannot be used.
        """
        self._follow()
        return Picture(
            held=self._waiting(JobState.HELD),
            quarantined=self._waiting(JobState.QUARANTINED),
            down=dict(self._down()),
            lack=self._lack(),
            expiring=self._expiring(),
            oldest_min=self._oldest(),
            events=list(self._events),
        )

    def forget(self, until: int) -> None:
        """Forget events up to an entry of the audit: they were told."""
        self._events = [one for one in self._events if one[0] > until]

    def _follow(self) -> None:
        """Take up what the audit says that is news."""
        try:
            while entries := self._follower.read(1000):
                self._events += filter(None, map(_event, entries))
        except AuditError as error:
            if not self._is_broken:
                self._is_broken = True
                number = self._follower.head.number + 1
                says = f"the audit is not whole: {error}"
                self._events.append((number, Topic.SECURITY, says))

    def _waiting(self, state: JobState) -> dict[int, Waiting]:
        return {
            job.id: Waiting(job.id, job.sop_instance_uid, job.route, job.destination)
            for job in self._queue.held(state)
        }

    def _oldest(self) -> int:
        since = self._queue.waiting_since()
        if since is None or self._clock() - since < self._backlog:
            return 0
        # Told once, so that it need not be exact.
        return int((self._clock() - since) / timedelta(minutes=1))

    def _expiring(self) -> dict[str, str]:
        found = {}
        for file in self._certificates:
            try:
                end = min(
                    one.not_valid_after_utc
                    for one in x509.load_pem_x509_certificates(file.read_bytes())
                )
            except (OSError, ValueError):
                continue  # who uses it complains
            if end - self._clock() < self._notice:
                found[str(file)] = f"on {end:%Y-%m-%d}"
        return found


def _event(entry: Entry) -> tuple[int, str, str] | None:
    name = str(entry.values.get("event"))
    if _BREAK_GLASS in name:
        says = f"somebody broke the glass ({entry.values.get('route', '')})"
        return entry.head.number, Topic.SECURITY, says
    if name not in set(Event) or Event(name) not in _EVENTS:
        return None
    topic, says = _EVENTS[Event(name)]
    return entry.head.number, topic, says
