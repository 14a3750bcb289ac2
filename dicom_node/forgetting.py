"""What was in the spool is forgotten: its key is replaced every week, and then destroyed.

A disk may keep what was deleted, and writing over a file proves nothing where blocks are
never written in place (flash, copy-on-write, snapshots). So nothing is written over: once
no file is sealed with a key that was replaced, the key goes, and whatever a disk still
has of those files is noise to everybody. How well the key itself is forgotten is up to
what keeps it; see ``keys rotate root``.
"""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from dicom_node.errors import KeyFolderError, NodeError
from dicom_node.keys.keyring import Keyring
from dicom_node.spool_keys import HandedKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path

    from dicom_node.keys.spool import SpoolRing
    from dicom_node.spool import Spool

logger = logging.getLogger(__name__)

LASTS: Final = timedelta(days=7)
"""How long a key is used."""
GRACE: Final = timedelta(days=1)
"""How long after a key was replaced somebody may still begin a file with it."""
_LOOK_S: Final = 3600.0


def require_key_folder(folder: Path, spool: Spool) -> None:
    """Return if there are keys, or nothing is sealed: new keys would not open it.

    Raises:
        KeyFolderError: The spool is sealed, and the key folder is gone.
    """
    if not Keyring.exists(folder) and spool.keys_in_use():
        raise KeyFolderError(
            f"{folder} holds no keys, and the spool holds files that are sealed",
            hint="Put the key folder back from its backup. Without it they cannot be "
            "read: then move the spool away, and ask the senders again.",
        )


class Forgetting:
    """Looks after the keys of one spool."""

    def __init__(
        self, ring: SpoolRing, spool: Spool, clock: Callable[[], datetime]
    ) -> None:
        """Keep what it needs.

        Args:
            ring: The keys.
            spool: What is sealed with them.
            clock: Returns the time, aware.
        """
        self._ring, self._spool, self._clock = ring, spool, clock

    def begin(self) -> HandedKeys:
        """Return the keys for processes that have no others; the first is made now.

        Raises:
            KeyFolderError: Something in the spool was sealed with none of them.
        """
        self._ring.rotate_if_due(self._clock(), LASTS)
        for version, key_id in sorted(self._spool.keys_in_use()):
            self._ring.of(version, key_id)
        return HandedKeys.made(self._ring.all())

    def turn(self, handed: HandedKeys) -> None:
        """Replace the key if it has been used long enough, destroy those that may go."""
        now = self._clock()
        if self._ring.rotate_if_due(now, LASTS):
            handed.add(self._ring.newest())
        ended = self._ring.ended(now, GRACE)
        if not ended:
            return
        # Asked for after who is out of use: nobody begins a file with those any more.
        used = {version for version, _ in self._spool.keys_in_use()}
        if gone := ended - used:
            self._ring.destroy(gone)
            logger.info("forgotten spool keys=%s", ",".join(map(str, sorted(gone))))


@contextmanager
def spool_keys(
    ring: SpoolRing, spool: Spool, clock: Callable[[], datetime]
) -> Iterator[HandedKeys]:
    """Yield keys to hand down, and look after them until the end of the block.

    Args:
        ring: The keys.
        spool: What is sealed with them.
        clock: Returns the time, aware.

    Raises:
        KeyFolderError: Something in the spool was sealed with none of them.
    """
    forgetting, over = Forgetting(ring, spool, clock), threading.Event()
    handed = forgetting.begin()

    def tend() -> None:
        while not over.wait(_LOOK_S):
            try:
                forgetting.turn(handed)
            except (NodeError, OSError):
                logger.exception("the keys of the spool cannot be replaced; later")

    tending = threading.Thread(target=tend, daemon=True)
    tending.start()
    try:
        yield handed
    finally:
        over.set()
        tending.join()
        handed.close()
