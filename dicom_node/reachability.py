"""How each destination is: a small SQLite table that all processes of a node share.

What one of them finds out, the others know; and a node that starts again does not learn
anew, at the cost of everybody who waits, that a destination is down. Of a destination
whose address has changed nothing is known.
"""

from __future__ import annotations

import random
import sqlite3
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from dicom_node import breaker as breaking
from dicom_node.breaker import NEW, Health, Trouble
from dicom_node.errors import SpoolError
from dicom_node.tables import FileDatabase, Tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from dicom_node.breaker import Breaker
    from dicom_node.destination import Destination

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS destination (
    name      TEXT PRIMARY KEY,
    address   TEXT NOT NULL,
    failures  INTEGER NOT NULL,
    trouble   TEXT NOT NULL,
    since     TEXT,               -- when it went down; null if it is up
    reason    TEXT NOT NULL,
    again     TEXT,               -- when it is asked or tried again
    probes    INTEGER NOT NULL
) WITHOUT ROWID;
"""


class Reachability(Tables):
    """The table; one connection, which several threads may use."""

    def __init__(
        self,
        path: Path,
        destinations: Iterable[Destination],
        breaker: Breaker,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Open the file, or make it.

        Args:
            path: Of the file.
            destinations: Those of the configuration.
            breaker: When one of them is down.
            chance: Returns a number from 0 up to 1.

        Raises:
            SpoolError: It cannot be opened.
        """
        self._addresses = {one.name: one.address for one in destinations}
        self._breaker, self._chance = breaker, chance
        with _translated():
            self._database = FileDatabase(path, _SCHEMA)

    def all(self) -> dict[str, Health]:
        """Return how each destination of the configuration is.

        Raises:
            SpoolError: The file cannot be read.
        """
        with _translated():
            rows = self._database.execute("SELECT * FROM destination").fetchall()
        found = {
            name: Health(
                failures=failures,
                trouble=Trouble(trouble),
                since=_moment(since),
                reason=reason,
                again=_moment(again),
                probes=probes,
            )
            for name, address, failures, trouble, since, reason, again, probes in rows
            if self._addresses.get(name) == address
        }
        return {name: found.get(name, NEW) for name in self._addresses}

    def failed(
        self,
        name: str,
        trouble: Trouble,
        reason: str,
        now: datetime,
        *,
        wait_s: float = 0.0,
    ) -> Health:
        """Count a failure, and return how the destination is now.

        Args:
            name: Of the destination.
            trouble: Which kind.
            reason: For people.
            now: Aware.
            wait_s: For how long it wants to be left alone; 0 if it does not say.

        Raises:
            SpoolError: It cannot be written down.
        """
        with self._changing():
            health = breaking.failed(
                self.all()[name],
                trouble,
                reason,
                now=now,
                breaker=self._breaker,
                chance=self._chance,
                wait_s=wait_s,
            )
            self._put(name, health)
        return health

    def took(self, name: str) -> None:
        """Forget what is known against a destination: it has taken something.

        Raises:
            SpoolError: It cannot be written down.
        """
        with self._changing():
            self._put(name, NEW)

    def to_ask(self, now: datetime) -> list[str]:
        """Return who is to be asked by C-ECHO now; whoever is told so does it.

        Nobody else is told the same before it is time to ask again.

        Raises:
            SpoolError: It cannot be written down.
        """
        if not any(health.is_to_be_asked(now) for health in self.all().values()):
            return []
        due = []
        with self._changing():
            for name, health in self.all().items():
                if health.is_to_be_asked(now):
                    due.append(name)
                    asked = breaking.put_off(
                        health, now=now, breaker=self._breaker, chance=self._chance
                    )
                    self._put(name, asked)
        return due

    def silent(self, name: str, reason: str) -> None:
        """Say why a destination that was asked is still down.

        Raises:
            SpoolError: It cannot be written down.
        """
        with self._changing():
            self._put(name, replace(self.all()[name], reason=reason))

    def answered(self, name: str) -> None:
        """Say that a destination that was asked answered.

        Raises:
            SpoolError: It cannot be written down.
        """
        with self._changing():
            self._put(name, breaking.answered(self.all()[name], self._breaker))

    def _put(self, name: str, health: Health) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO destination VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                name,
                self._addresses[name],
                health.failures,
                health.trouble,
                health.since and health.since.isoformat(),
                health.reason,
                health.again and health.again.isoformat(),
                health.probes,
            ),
        )

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Let nobody else change the table meanwhile."""
        with _translated(), self._database.transaction():
            yield


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise SpoolError(
            f"how destinations are cannot be read or written down: {error}",
            hint="Check that the state folder is writable and its disk not full.",
        ) from error
