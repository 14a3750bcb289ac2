"""One receiver of notices: told what is new, gathered, and not too often.

What was told is remembered in a file, once it was taken. So a server that is down
delays a notice and loses none, unless what it was about has passed meanwhile.
"""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from dicom_node.durable import write_durably
from dicom_node.notices import Told, after, news

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from dicom_node.lookout import Lookout
    from dicom_node.notices import Notice, Picture
    from dicom_node.notifying import Notifying

    Tell = Callable[[Sequence[Notice], datetime], None]
    """Hands notices over; raises NotToldError where they were not taken."""


class Announcing:
    """Tells one receiver."""

    def __init__(
        self,
        wanted: Notifying,
        watching: Lookout,
        place: Path,
        tell: Tell,
        clock: Callable[[], datetime],
    ) -> None:
        """Keep what it needs.

        Args:
            wanted: Whom, about what, and how often.
            watching: Looks up how things stand.
            place: The file that remembers what was told.
            tell: Hands notices over.
            clock: Returns the time, aware.
        """
        self._wanted, self._watching = wanted, watching
        self._place, self._tell, self._clock = place, tell, clock
        self._told = _remembered(place)
        self._since: datetime | None = None
        """When the first of what is new was seen."""
        self._last: datetime | None = None
        """When something was told last."""

    def tend(self, *, at_once: bool = False) -> int:
        """Tell what is new if it is time; return how many notices that were.

        Args:
            at_once: It is: the node ends.

        Raises:
            NotToldError: It was not taken.
            SpoolError: The queue cannot be used.
            OSError: It was taken, and that cannot be remembered.
        """
        picture, now = self._watching.look(), self._clock()
        if self._told is None:
            self._told = _at_first(picture)
        found = [
            notice
            for notice in news(picture, self._told, with_uids=self._wanted.uids)
            if notice.topic in self._wanted.about
        ]
        if not found:
            self._since = None
            self._remember(picture)
            return 0
        self._since = self._since or now
        if not at_once and not self._is_time(now):
            return 0
        self._tell(found, now)
        self._since, self._last = None, now
        self._remember(picture)
        return len(found)

    def _is_time(self, now: datetime) -> bool:
        assert self._since is not None  # something is new
        gathered = now - self._since >= timedelta(seconds=self._wanted.gather_s)
        return gathered and (
            self._last is None
            or now - self._last >= timedelta(seconds=self._wanted.every_s)
        )

    def _remember(self, picture: Picture) -> None:
        told = after(picture)
        assert self._told is not None  # it has looked
        told.entry = max(told.entry, self._told.entry)
        if told != self._told or not self._place.exists():
            write_durably(self._place, json.dumps(told.as_json()).encode("ascii"))
            self._told = told
        self._watching.forget(told.entry)


def told_until(place: Path) -> int | None:
    """Return the last entry of the audit that was told; None if nothing ever was."""
    told = _remembered(place)
    return None if told is None else told.entry


def _remembered(place: Path) -> Told | None:
    try:
        found = json.loads(place.read_bytes())
        known = {field.name for field in fields(Told)}
        return Told(**{name: found[name] for name in known & found.keys()})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


_STARTED: Final = "the node was started"


def _at_first(picture: Picture) -> Told:
    """Return what a new receiver need not be told: what was before the node began."""
    starts = [n for n, topic, says in picture.events if says == _STARTED]
    return Told(entry=max(starts, default=1) - 1)
