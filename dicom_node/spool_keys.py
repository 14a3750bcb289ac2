"""The keys that the spool is sealed with: one in use, and older ones that still open.

A key is named by its version, and by an id that follows from it: so another site's key of
the same version is not taken for a file that was changed.

Processes that take in what strangers send have these keys and no others: the node hands
them down in a file in memory, which has no name and is never on a disk.
"""

from __future__ import annotations

import hmac
import os
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol

from dicom_node.errors import KeyFolderError

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE: Final = 32
_RECORD: Final = struct.Struct(f">L{SIZE}s")


@dataclass(frozen=True)
class SpoolKey:
    """One key."""

    version: int
    secret: bytes
    """32 bytes."""

    @cached_property
    def id(self) -> bytes:
        """Return what tells it from others of that version, and nothing else of it."""
        return hmac.digest(self.secret, b"miadmark/v1/spool/id", "sha256")[:8]


class SpoolKeys(Protocol):
    """All of them."""

    def newest(self) -> SpoolKey:
        """Return the key that is in use."""
        ...

    def of(self, version: int, key_id: bytes) -> SpoolKey:
        """Return a key by its version and id.

        Raises:
            KeyFolderError: There is no such key.
        """
        ...


class HandedKeys:
    """Keys in a file in memory; whoever holds it may add to it, and all see that."""

    def __init__(self, descriptor: int) -> None:
        """Keep it.

        Args:
            descriptor: Of the file; it stays open, and is nobody's to close but his who
                made it.
        """
        self._descriptor = descriptor
        self._known: tuple[SpoolKey, ...] = ()

    @classmethod
    def made(cls, keys: Sequence[SpoolKey]) -> HandedKeys:
        """Return a new file of keys, the newest last."""
        handed = cls(os.memfd_create("spool keys"))
        for key in keys:
            handed.add(key)
        return handed

    @property
    def descriptor(self) -> int:
        """Return the descriptor, for processes that inherit it."""
        return self._descriptor

    def add(self, key: SpoolKey) -> None:
        """Use another key from now on."""
        at = os.fstat(self._descriptor).st_size
        os.pwrite(self._descriptor, _RECORD.pack(key.version, key.secret), at)

    def newest(self) -> SpoolKey:
        """Return the key that is in use."""
        return self._read()[-1]

    def of(self, version: int, key_id: bytes) -> SpoolKey:
        """Return a key by its version and id; see :class:`SpoolKeys`."""
        for key in reversed(self._read()):
            if (key.version, key.id) == (version, key_id):
                return key
        raise no_key(version)

    def _read(self) -> tuple[SpoolKey, ...]:
        count = os.fstat(self._descriptor).st_size // _RECORD.size
        if count != len(self._known):
            records = os.pread(self._descriptor, count * _RECORD.size, 0)
            # Taken on at once: several threads may read.
            self._known = tuple(SpoolKey(*r) for r in _RECORD.iter_unpack(records))
        return self._known

    def close(self) -> None:
        """Close the file: for whoever made it."""
        os.close(self._descriptor)


def no_key(version: int) -> KeyFolderError:
    """Return what to say where a key is missing."""
    return KeyFolderError(
        f"the spool holds files that were sealed with spool key {version} of another key "
        "folder, or with one that is not there any more",
        hint="Put the key folder back from its backup, where these files came in. What "
        "is in the spool cannot be read without it.",
    )
