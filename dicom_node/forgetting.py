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

from dicom_node.errors import KeyFolderError, NodeError, SpoolError
from dicom_node.keys.keyring import Keyring
from dicom_node.spool_keys import HandedKeys, no_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from dicom_node.keys.spool import SpoolRing
    from dicom_node.spool import Spool
    from dicom_node.spool_keys import SpoolKey

logger = logging.getLogger(__name__)

LASTS: Final = timedelta(days=7)
"""How long a key is used."""
GRACE: Final = timedelta(days=1)
"""How long after a key was replaced somebody may still begin a file with it."""
_LOOK_S: Final = 60.0
_DAMAGED_BITS: Final = 8
"""Of the 64 in a key's id. Those of two keys are as alike once in a thousand million."""


def require_key_folder(folder: Path, spool: Spool) -> None:
    """Return if there are keys, or nothing is sealed: new keys would not open it.

    Raises:
        KeyFolderError: The spool is sealed, and the key folder is gone.
        SpoolError: The spool cannot be listed.
    """
    if not Keyring.exists(folder) and any(spool.keys_in_use()):
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

        A file or two that name no key of these are damaged, where others name one: they
        are said, and held when their turn comes.

        Raises:
            KeyFolderError: What is in the spool was sealed with other keys.
            SpoolError: It cannot be listed.
        """
        self._ring.rotate_if_due(self._clock(), LASTS)
        keys = self._ring.all()
        _require_ours(self._spool.keys_in_use().keys, keys)
        return HandedKeys.made(keys)

    def turn(self, handed: HandedKeys) -> None:
        """Replace the key if it has been used long enough, destroy those that may go.

        Raises:
            SpoolError: What is in the spool cannot be told, so nothing is destroyed.
        """
        now = self._clock()
        self._ring.rotate_if_due(now, LASTS)
        newest = self._ring.newest()
        # Another node, which shares the folder, may have made it.
        if newest != handed.newest():
            handed.add(newest)
        ended = self._ring.ended(now, GRACE)
        if not ended:
            return
        # Asked for after who is out of use: nobody begins a file with those any more.
        in_use = self._spool.keys_in_use()
        if in_use.unread:
            raise SpoolError(
                f"{len(in_use.unread)} files in the spool cannot be read, so no key of "
                "it is destroyed",
                hint="The log names them. Check the disk, and how many files this "
                "account may open.",
            )
        used = {version for version, _ in in_use.keys}
        if gone := ended - used:
            self._ring.destroy(gone)
            logger.info("forgotten spool keys=%s", ",".join(map(str, sorted(gone))))


def _require_ours(
    named: Mapping[tuple[int, bytes], int], keys: Sequence[SpoolKey]
) -> None:
    """Return if files were sealed with these keys, but for some that were damaged.

    Args:
        named: How many files name a key by version and id.
        keys: Those that there are.
    """
    ours = [(key.version, key.id) for key in keys]
    strange = {one: count for one, count in named.items() if one not in ours}
    for one in strange:
        logger.error("no key opens a file in the spool: it names spool key %d", one[0])
    others = {
        one: count
        for one, count in strange.items()
        if not any(_is_nearly(one, known) for known in ours)
    }
    # Two files are not damaged into naming one key.
    if others and (max(others.values()) > 1 or named.keys() == others.keys()):
        raise no_key(min(others)[0])


def _is_nearly(one: tuple[int, bytes], other: tuple[int, bytes]) -> bool:
    """Say whether two names of keys differ by damage: by less than keys do by chance."""
    ids = int.from_bytes(one[1]) ^ int.from_bytes(other[1])
    return (one[0] ^ other[0]).bit_count() + ids.bit_count() <= _DAMAGED_BITS


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
        KeyFolderError: What is in the spool was sealed with none of them.
        SpoolError: It cannot be listed.
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
