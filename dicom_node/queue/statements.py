"""Statements of SQL that have names, and a connection to carry them out on."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from datetime import UTC
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from dicom_node.errors import SpoolError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from datetime import datetime

    from dicom_node.queue.turn import Turn

_FILES: Final = (
    "queue.sql",
    "orders.sql",
    "studies.sql",
    "tallies.sql",
    "purging.sql",
    "commitments.sql",
    "handing.sql",
)


def statements_in(file: str) -> dict[str, str]:
    """Return the statements of a file by the name in the line before each."""
    text = resources.files("dicom_node.queue").joinpath(file).read_text("utf-8")
    found: dict[str, list[str]] = {}
    name, is_new = "", True
    for line in text.splitlines():
        if is_new and line.startswith("-- "):
            name, is_new = line[3:], False
            found[name] = []
        elif not line:
            is_new = True
        elif not line.startswith("-- "):
            found[name].append(line)
    return {name: "\n".join(lines) for name, lines in found.items()}


SQL: Final = {
    name: text for file in _FILES for name, text in statements_in(file).items()
}
"""By their names."""


class Statements:
    """One connection, and what is done on it: by one thread at a time.

    It is to a SQLite file, unless something says else.
    """

    _database: sqlite3.Connection
    _turn: Turn

    @staticmethod
    def _translated() -> AbstractContextManager[None]:
        """Raise what the database raises as :class:`SpoolError`."""
        return translated()

    def close(self) -> None:
        """Close the file."""
        self._database.close()
        self._turn.close()

    def _alone_with(self, what: str) -> None:
        """Let nobody else be at something until the transaction ends.

        Whoever writes to a SQLite file is alone with all of it.
        """

    def _changed(self, name: str, **values: object) -> int:
        """Carry out a statement in a transaction; return how many rows it changed."""
        with self._transaction():
            return self._done(name, **values)

    def _done(self, name: str, **values: object) -> int:
        """Carry out a statement; return how many rows it changed."""
        with self._turn.lock:
            return self._database.execute(SQL[name], values).rowcount

    def _all(self, name: str, **values: object) -> list[Any]:
        with self._turn.lock:
            return self._database.execute(SQL[name], values).fetchall()

    @contextmanager
    def _transaction(self, *, lasts: bool = True) -> Iterator[None]:
        """Do what is done in a block as one.

        Args:
            lasts: False for what a power cut may undo: it is not durable, until
                something that is comes after it.
        """
        with self._translated(), self._turn:
            if not lasts:
                self._database.execute("PRAGMA synchronous = NORMAL")
            try:
                self._database.execute("BEGIN IMMEDIATE")
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
            finally:
                if not lasts:
                    self._database.execute("PRAGMA synchronous = FULL")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Read what is read in a block as it was at one moment."""
        with self._translated(), self._turn.lock:
            self._database.execute("BEGIN")
            try:
                yield
            finally:
                self._database.execute("COMMIT")


def keep_trigger(database: sqlite3.Connection, statement: str) -> None:
    """Make a trigger, unless it is there; one of an earlier version is replaced.

    Args:
        database: Where; not in a transaction, or in one that writes.
        statement: Which makes it. Its third word is the trigger's name.

    Raises:
        sqlite3.Error: It cannot be made.
    """
    statement = statement.strip().rstrip(";")
    name = statement.split()[2]
    there = "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = :name"
    if database.execute(there, {"name": name}).fetchone() == (statement,):
        return
    begins = not database.in_transaction
    if begins:
        database.execute("BEGIN IMMEDIATE")
    try:
        database.execute(f"DROP TRIGGER IF EXISTS {name}")
        database.execute(statement)
    except BaseException:
        if begins:
            database.execute("ROLLBACK")
        raise
    if begins:
        database.execute("COMMIT")


def as_text(moment: datetime) -> str:
    """Return a moment as text that sorts as time does."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


@contextmanager
def translated() -> Iterator[None]:
    """Raise what SQLite raises as :class:`SpoolError`."""
    try:
        yield
    except sqlite3.Error as error:
        raise SpoolError(
            f"the queue cannot be used: {error}",
            hint="Check that the state folder is writable and its disk not full.",
        ) from error
