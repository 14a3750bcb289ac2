"""Whether a node lives and is ready, and the figures of it, as they are now.

Which processes are there is told by the locks that they hold
(:mod:`~dicom_node.presence`). Nobody is called: the sockets stay open whoever accepts on
them, so that an answer would say little.
"""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING, Final

from dicom_node import __version__
from dicom_node.charter_source import Known
from dicom_node.exposition import Told
from dicom_node.figures import ASSOCIATIONS, histograms, level
from dicom_node.presence import RECEIVING, how_many, is_present

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from dicom_node.config import Config
    from dicom_node.state import State

_BESIDE: Final = frozenset({"reporter", "web", "follower"})
"""Without these, instances are still taken in and worked on."""


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
        config, folder = self._config, self._state.folder
        wanted = {
            "worker": True,
            "passer": bool(config.passed),
            "committer": config.commits,
            "hatch": bool(config.hatches),
            "desk": config.release is not None,
            "reporter": True,
            "web": config.web is not None,
            "follower": config.charter is not None,
        }
        found = {
            name: is_present(folder, name) for name, is_so in wanted.items() if is_so
        }
        return {"receiver": self.receivers() > 0, **found}

    def receivers(self) -> int:
        """Return how many processes take instances in."""
        return how_many(self._state.folder, RECEIVING)

    def lacks(self, *, beside: bool = True) -> list[str]:
        """Return what is not as it should be.

        Args:
            beside: Whether that is told too which keeps the node neither from taking
                something in nor from working on it.
        """
        lacks = [
            f"no {name} is running"
            for name, is_up in self.processes().items()
            if not is_up and (beside or name not in _BESIDE)
        ]
        lack = self._state.room(self._config.storage).lack()
        return [*lacks, lack] if lack else lacks

    def notes(self) -> list[str]:
        """Return what is worth telling of a node that is ready."""
        known, there = self.charter(), self.receivers()
        lines = [] if known is None else known.lines(self._clock())
        wanted = self._config.node.receivers
        if 0 < there < wanted:
            lines = [f"{there} of {wanted} receivers are running", *lines]
        return lines

    def charter(self) -> Known | None:
        """Return what is known of the charter, if the site has one."""
        is_wanted = self._config.charter is not None
        return Known.of(self._state.folder) if is_wanted else None

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
                receivers=self.receivers(),
                receivers_wanted=self._config.node.receivers,
                associations=level(path, ASSOCIATIONS),
                free_bytes=disk.f_bavail * disk.f_frsize,
                free_inodes=disk.f_favail,
                wanted_bytes=self._config.storage.least_free,
                charter=self.charter(),
            )

    def are_up(self) -> Mapping[str, bool]:
        """Return whether each destination is up, as far as is known."""
        with self._state.reachability(self._config) as reachability:
            found = reachability.all()
        return {name: health.since is None for name, health in found.items()}
