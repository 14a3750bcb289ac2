"""The sockets that a node listens on, kept open by its first process.

Those that receive share them, so that nobody who calls finds them closed while one of
these is started again, or goes by another configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dicom_node.sockets import listening_socket

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Sequence

    from dicom_node.listening import Listening


class Doors:
    """Sockets by the addresses that they listen on."""

    def __init__(self) -> None:
        """Begin with none."""
        self._open: dict[tuple[str, int, int], socket.socket] = {}

    def open(self, listeners: Sequence[Listening]) -> list[int]:
        """Open the sockets of listeners, but for those that are open already.

        Returns:
            The descriptor of each, in their order.

        Raises:
            ConfigError: A port is taken, or not ours to take; none was opened.
        """
        wanted = _keys(listeners)
        opened: dict[tuple[str, int, int], socket.socket] = {}
        try:
            for key, door in zip(wanted, listeners, strict=True):
                if key not in self._open:
                    opened[key] = listening_socket(door)
        except BaseException:
            for one in opened.values():
                one.close()
            raise
        self._open |= opened
        return [self._open[key].fileno() for key in wanted]

    def places(self, listeners: Sequence[Listening]) -> list[str]:
        """Return where listeners whose sockets are open listen, ``host:port``."""
        return [_place(self._open[key]) for key in _keys(listeners)]

    def keep_only(self, listeners: Sequence[Listening]) -> None:
        """Close this process's hold on all sockets but those of listeners."""
        kept = set(_keys(listeners))
        for key in self._open.keys() - kept:
            self._open.pop(key).close()

    def close(self) -> None:
        """Close all."""
        self.keep_only([])


def _keys(listeners: Iterable[Listening]) -> list[tuple[str, int, int]]:
    """Return what tells listeners apart; of port 0 there may be several."""
    keys: list[tuple[str, int, int]] = []
    for door in listeners:
        count = sum(key[:2] == (door.bind, door.port) for key in keys)
        keys.append((door.bind, door.port, count))
    return keys


def _place(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
