"""Statements of SQL that are carried out by a PostgreSQL server.

They have the names of those of a SQLite file, and are the same unless ``postgres.sql``
has one of that name. Other processes and other nodes write at the same time: what must
not be done twice is done under a lock that ends with its transaction.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from dicom_node.postgres import Server
from dicom_node.postgres_schema import bring_up
from dicom_node.queue.statements import SQL, Statements, statements_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from dicom_node.queueing import Queueing

SERVED: Final = SQL | statements_in("postgres.sql")
"""By their names."""


class Served(Statements):
    """One connection to a server, and what is done on it."""

    def _begin(self, place: Queueing, node: str) -> None:
        """Connect, and have the tables there.

        Args:
            place: Where the database is.
            node: Who claims and takes: what others have is left to them.

        Raises:
            ServerError: It cannot be reached.
            ConfigError: A later version has used it.
        """
        self._server, self._node = Server(place), node
        try:
            bring_up(self._server)
        except BaseException:
            self._server.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._server.close()

    @staticmethod
    def _translated() -> AbstractContextManager[None]:
        """Do nothing: what a server raises is a :class:`SpoolError` already."""
        return nullcontext()

    def _alone_with(self, what: str) -> None:
        """Let nobody else be at something until the transaction ends."""
        self._all("alone_with", what=f"miadmark {what}")

    def _done(self, name: str, **values: object) -> int:
        """Carry out a statement; return how many rows it changed."""
        values["node"] = self._node
        return self._server.execute(SERVED[name], values).rowcount

    def _all(self, name: str, **values: object) -> list[Any]:
        values["node"] = self._node
        return self._server.execute(SERVED[name], values).rows

    @contextmanager
    def _transaction(self, *, lasts: bool = True) -> Iterator[None]:
        """Do what is done in a block as one.

        Args:
            lasts: False for what a power cut of the server may undo.
        """
        with self._server.transaction(lasts=lasts):
            yield

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Read what is read in a block as it was at one moment."""
        with self._server.transaction(reads=True):
            yield
