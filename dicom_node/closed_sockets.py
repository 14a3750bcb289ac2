"""The sockets of pynetdicom's associations, closed whatever the other end has done.

pynetdicom 3.0.4 shuts a socket down before it closes it, and does not close one that
cannot be shut down: where nobody listens, or the peer has cut the connection. It stays
open until Python collects what nobody has any more.
"""

from __future__ import annotations

import socket
from contextlib import suppress

from pynetdicom.transport import AssociationSocket


def install() -> None:
    """Let pynetdicom close all of them, from now on, in this process."""
    AssociationSocket._shutdown_socket = _closed  # type: ignore[method-assign]  # noqa: SLF001


def _closed(self: AssociationSocket) -> None:
    open_one = self.socket
    if open_one is None:
        return
    with suppress(OSError):
        open_one.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        open_one.close()
