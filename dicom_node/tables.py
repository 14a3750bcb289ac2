"""Tables in a SQLite file, or in a database on a server: by the same statements.

What stands in them is not known here. Statements are written so that both understand
them; each is durable by itself, or with those of its transaction.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from dicom_node.durable import database
from dicom_node.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from dicom_node.queueing import Queueing

FAILURES: Final = (sqlite3.Error, ServerError)
"""What using a database raises."""


class Rows(Protocol):
    """What a statement came to."""

    @property
    def rowcount(self) -> int:
        """Return how many rows it changed."""
        ...

    def fetchone(self) -> Any:
        """Return its first row; None if there is none."""
        ...

    def fetchall(self) -> list[Any]:
        """Return its rows."""
        ...


class Database(Protocol):
    """Carries out statements that have a ``?`` for each value."""

    def execute(self, statement: str, values: Sequence[object] = ()) -> Rows:
        """Carry out a statement."""
        ...

    def executemany(self, statement: str, values: Iterable[Sequence[object]]) -> object:
        """Carry out a statement for each of ``values``."""
        ...

    def transaction(self, *, alone: str = "") -> AbstractContextManager[None]:
        """Do what is done in a block as one.

        Args:
            alone: What nobody else may be at meanwhile; of a file, it is all of it.
        """
        ...

    def close(self) -> None:
        """Close it."""
        ...


class FileDatabase:
    """A SQLite file, which several threads may use.

    What is deleted does not stay behind in it.
    """

    def __init__(self, path: Path, schema: str) -> None:
        """Open it, or make it.

        Raises:
            sqlite3.Error: It cannot be opened.
        """
        self._lock = threading.RLock()
        self._connection = database(path, schema, is_of_one_thread=False)
        self._connection.execute("PRAGMA secure_delete = ON")

    def execute(self, statement: str, values: Sequence[object] = ()) -> Rows:
        """Carry out a statement."""
        with self._lock:
            return self._connection.execute(statement, values)

    def executemany(self, statement: str, values: Iterable[Sequence[object]]) -> object:
        """Carry out a statement for each of ``values``."""
        with self._lock:
            return self._connection.executemany(statement, values)

    @contextmanager
    def transaction(self, *, alone: str = "") -> Iterator[None]:
        """Do what is done in a block as one; whoever writes is alone with the file."""
        del alone
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def opened(place: Path | Queueing, schema: str) -> Database:
    """Return the tables in a file, or on a server, opened or made.

    Args:
        place: Which.
        schema: Makes those of a file; a server has all that there are.

    Raises:
        sqlite3.Error: The file cannot be opened.
        ServerError: The server cannot be reached.
        ConfigError: A later version has used the database.
    """
    if isinstance(place, Path):
        return FileDatabase(place, schema)
    from dicom_node.postgres import Server
    from dicom_node.postgres_schema import bring_up

    server = Server(place)
    try:
        bring_up(server)
    except BaseException:
        server.close()
        raise
    return server


class Tables:
    """What keeps tables that are open until the end of a block."""

    _database: Database

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close them."""
        self._database.close()
