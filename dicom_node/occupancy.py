"""How much room callers take up in one receiving process, and who has to give way.

Two rooms. In the first wait connections that have not said who they are: whoever comes
is let in, and where it is full the oldest of the host with most of them is closed, so
that those who keep silent never keep out those who do not. In the second are
associations, so many in all, from one host and under one title.
"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(eq=False, slots=True)
class Place:
    """One that waits."""

    host: str
    close: Callable[[], None]
    """Ends its connection, from whichever thread."""
    is_evicted: bool = False


class WaitingRoom:
    """Connections that have not been admitted, oldest first."""

    def __init__(self, room: int) -> None:
        """Prepare for ``room`` of them."""
        self._room = room
        self._places: dict[Place, None] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._places)

    def enter(self, host: str, close: Callable[[], None]) -> Place:
        """Let a connection wait; another may have to go for it."""
        place = Place(host, close)
        with self._lock:
            evicted = self._evicted() if len(self._places) >= self._room else None
            self._places[place] = None
        if evicted is not None:
            evicted.is_evicted = True
            evicted.close()
        return place

    def leave(self, place: Place) -> None:
        """Forget a connection."""
        with self._lock:
            self._places.pop(place, None)

    def _evicted(self) -> Place:
        ((host, _),) = Counter(p.host for p in self._places).most_common(1)
        evicted = next(place for place in self._places if place.host == host)
        del self._places[evicted]
        return evicted


class TooManyError(Exception):
    """There is no room for another association; it says of what."""


class Associations:
    """Associations at once: in all, from one host, under one calling AE title."""

    def __init__(self, most: int, per_host: int) -> None:
        """Prepare for ``most``, of which ``per_host`` may be one host's."""
        self._most, self._per_host = most, per_host
        self._hosts: Counter[str] = Counter()
        self._titles: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many there are."""
        return self._hosts.total()

    @contextmanager
    def seat(self, host: str, title: str, per_title: int) -> Iterator[None]:
        """Take a seat for as long as the block lasts.

        Raises:
            TooManyError: There is none.
        """
        with self._lock:
            if self._hosts.total() >= self._most:
                raise TooManyError("there are as many associations as there may be")
            if self._hosts[host] >= self._per_host:
                raise TooManyError("its address has as many associations as it may")
            if self._titles[title] >= per_title:
                raise TooManyError("its title has as many associations as it may")
            self._hosts[host] += 1
            self._titles[title] += 1
        try:
            yield
        finally:
            with self._lock:
                self._forget(self._hosts, host)
                self._forget(self._titles, title)

    @staticmethod
    def _forget(counter: Counter[str], key: str) -> None:
        counter[key] -= 1
        if counter[key] <= 0:
            del counter[key]
