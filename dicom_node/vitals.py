"""Whether a node lives and is ready, and the figures of it, as they are now.

Which processes are there is told by the locks that they hold, which the kernel drops with
their holder; whether it listens, by calling.
"""

from __future__ import annotations

import os
import socket
from contextlib import closing
from typing import TYPE_CHECKING, Final

from dicom_node import __version__
from dicom_node.addressing import is_any
from dicom_node.exposition import Told
from dicom_node.figures import ASSOCIATIONS, histograms, level
from dicom_node.room import Room
from dicom_node.supervising import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from dicom_node.config import Config
    from dicom_node.listening import Listening
    from dicom_node.state import State

_CALL_S: Final = 2.0
_SHOWN: Final = {
    "receiver": "receivers.lock",
    "worker": "worker.lock",
    "passer": "passer.lock",
}


class Vitals:
    """What there is to know of a node from beside it."""

    def __init__(
        self, config: Config, state: State, clock: Callable[[], datetime]
    ) -> None:
        """Keep whom to look at.

        Args:
            config: That the node goes by.
            state: Its state folder.
            clock: Returns the time, aware.
        """
        self._config, self._state, self._clock = config, state, clock

    def processes(self) -> dict[str, bool]:
        """Return whether each process that should be there is."""
        wanted = dict(_SHOWN)
        if not self._config.passed:
            del wanted["passer"]
        return {name: self._is_held(file) for name, file in wanted.items()}

    def lacks(self) -> list[str]:
        """Return what keeps the node from taking something in and working on it."""
        lacks = [
            f"no {name} is running"
            for name, is_up in self.processes().items()
            if not is_up
        ]
        lacks += [
            f"{door.bind}:{door.port} does not answer"
            for door in self._config.listeners
            if not _answers(door)
        ]
        lack = Room(self._state.folder, self._config.storage).lack()
        return [*lacks, lack] if lack else lacks

    def told(self) -> Told:
        """Return the figures.

        Raises:
            SpoolError: The queue cannot be read.
        """
        disk = os.statvfs(self._state.folder)
        path = self._state.figures().path
        with closing(self._state.history()) as history:
            return Told(
                version=__version__,
                now=self._clock(),
                stands=history.stands(),
                events=history.events(),
                oldest=history.oldest(),
                unpromised=history.unpromised(),
                histograms=histograms(path),
                pairs=[
                    (r.name, to) for r in self._config.routes for to in r.destinations
                ],
                are_up=self.are_up(),
                processes=self.processes(),
                associations=level(path, ASSOCIATIONS),
                free_bytes=disk.f_bavail * disk.f_frsize,
                free_inodes=disk.f_favail,
                wanted_bytes=self._config.storage.least_free,
            )

    def are_up(self) -> Mapping[str, bool]:
        """Return whether each destination is up, as far as is known."""
        with self._state.reachability(self._config) as reachability:
            found = reachability.all()
        return {name: health.since is None for name, health in found.items()}

    def _is_held(self, file: str) -> bool:
        held = locked(self._state.folder / file)
        if held is None:
            return True
        held.close()
        return False


def _answers(door: Listening) -> bool:
    """Say whether somebody accepts there; nothing is said to him."""
    host = door.bind
    if not door.port:
        return True  # which one it has become is known to the node alone
    if is_any(host):
        host = "::1" if ":" in host else "127.0.0.1"
    try:
        socket.create_connection((host, door.port), timeout=_CALL_S).close()
    except OSError:
        return False
    return True
