"""Sockets that listen.

Who listens on them, and for what, is not known here.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final, Protocol

from dicom_node.errors import ConfigError

if TYPE_CHECKING:

    class Listens(Protocol):
        """What a configuration says of where to listen."""

        @property
        def bind(self) -> str:
            """An address."""
            ...

        @property
        def port(self) -> int:
            """0 for any that is free."""
            ...


_BACKLOG: Final = 512
"""Connections that may wait to be accepted."""


def listening_socket(place: Listens, named: str = "") -> socket.socket:
    """Return a socket that listens.

    Args:
        place: Where.
        named: The table of the configuration that says so, for people.

    Raises:
        ConfigError: The port is taken, or not ours to take.
    """
    try:
        return socket.create_server(
            (place.bind, place.port),
            family=socket.AF_INET6 if ":" in place.bind else socket.AF_INET,
            backlog=_BACKLOG,
        )
    except OSError as error:
        where = f"{named}: " if named else ""
        raise ConfigError(
            f"{where}{place.bind}:{place.port} cannot be listened on: {error.strerror}"
        ) from error
