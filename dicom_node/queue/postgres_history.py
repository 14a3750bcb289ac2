"""What people are shown of a queue in a PostgreSQL database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from dicom_node.postgres import Server
from dicom_node.postgres_schema import bring_up
from dicom_node.queue.history import History

if TYPE_CHECKING:
    from dicom_node.queueing import Queueing


class PostgresHistory(History):
    """Reads a queue's tables; one connection, one thread."""

    _unused: ClassVar = ""  # the server counts what its columns hold

    def __init__(self, place: Queueing) -> None:
        """Open them.

        Raises:
            ServerError: The server cannot be reached.
            ConfigError: A later version has used the database.
        """
        self._server = Server(place)
        bring_up(self._server)

    def close(self) -> None:
        """Close the connection."""
        self._server.close()

    def _rows(self, statement: str, **values: object) -> list[Any]:
        return self._server.execute(statement, values).rows
