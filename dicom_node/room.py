"""Room on the disk that the state lies on: enough to take something in, or not.

A node that is being drained takes in nothing either: that is a lack of room, too.

Receiving stops well before the disk is full, so that what has been taken in can still be
marked, sent and written down. Where others fill the disk all the same, a file that was
made for that is given up: the ledger, the queue and the audit go on in its place, what is
sent is deleted, and the file is made again once there is room.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Final

from dicom_node.draining import is_draining
from dicom_node.errors import SpoolError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dicom_node.storage import Storage

logger = logging.getLogger(__name__)

LOOK_AGAIN_S: Final = 0.5
"""How long what was seen is believed."""

GIVE_BELOW: Final = 16 << 20
"""Free bytes, below which the reserve is given up."""


class Room:
    """Looks after the disk of one folder."""

    def __init__(
        self,
        folder: Path,
        wanted: Storage,
        *,
        spooling: Path | None = None,
        look: Callable[[Path], os.statvfs_result] = os.statvfs,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep what it needs; nothing is looked at yet.

        Args:
            folder: The state folder.
            wanted: What is to be left free.
            spooling: Where what is taken in lies, if that is elsewhere.
            look: Says what is free.
            monotonic: Returns seconds.
        """
        self._folder, self._wanted = folder, wanted
        self._look, self._monotonic = look, monotonic
        self._looked_at = dict.fromkeys((folder, spooling or folder))
        self._reserve = folder / "reserve"
        self._seen = -LOOK_AGAIN_S
        self._lack = ""

    def lack(self) -> str:
        """Return what is missing, in words; empty if something can be taken in."""
        if self._monotonic() - self._seen >= LOOK_AGAIN_S:
            self._seen = self._monotonic()
            lacks = (self._looked(one) for one in self._looked_at)
            self._lack = next(filter(None, lacks), "")
        return self._lack

    def require(self) -> None:
        """Return if there is room to take something in.

        Raises:
            SpoolError: There is not.
        """
        if lack := self.lack():
            if is_draining(self._folder):
                raise SpoolError(lack, hint="Send it to another node of this site.")
            raise SpoolError(
                f"{self._folder}: {lack}",
                hint="Make room, or find out why nothing is sent: miadmark status.",
            )

    def tend(self) -> None:
        """Give the reserve up where the disk is full, make it again where there is room.

        Whatever goes wrong with that is no reason to stop.
        """
        free = self._free()
        try:
            if free < GIVE_BELOW:
                self.give()
            elif (
                self._wanted.reserve
                and not self._reserve.exists()
                and free > self._wanted.least_free + self._wanted.reserve
            ):
                self._make()
        except OSError:
            logger.exception("the reserve cannot be looked after")

    def give(self) -> None:
        """Give the reserve up, for what has to be written down now."""
        try:
            self._reserve.unlink()
        except FileNotFoundError:
            return
        logger.error("the disk is full: its reserve is given up, nothing is taken in")

    def _make(self) -> None:
        part = self._reserve.with_suffix(".part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, self._wanted.reserve)
        except OSError:
            part.unlink()
            raise
        finally:
            os.close(descriptor)
        part.replace(self._reserve)

    def _free(self) -> int:
        seen = self._look(self._folder)
        return seen.f_bavail * seen.f_frsize

    def _looked(self, folder: Path) -> str:
        seen, wanted = self._look(folder), self._wanted
        if is_draining(self._folder):
            return "this node is being drained, and takes in nothing more"
        free = seen.f_bavail * seen.f_frsize
        if free < wanted.least_free:
            return f"{free >> 20} MB are free, {wanted.least_free_mb:.0f} are wanted"
        if seen.f_files and seen.f_favail < wanted.least_free_inodes:
            least = wanted.least_free_inodes
            return f"{seen.f_favail} inodes are free, {least} are wanted"
        return ""
