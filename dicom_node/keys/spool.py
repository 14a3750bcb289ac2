"""The keys of the spool, among the keys of a site: made, replaced, destroyed.

A key is used for a while; then there is another, and once nothing in the spool is sealed
with the old one that is destroyed, with all that it ever sealed. What a disk keeps of
files that were deleted is then nobody's to read, not even this site's.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from dicom_node.errors import KeyFolderError
from dicom_node.keys.ring import KeyKind
from dicom_node.spool_keys import SpoolKey, no_key

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime, timedelta

    from dicom_node.keys.store import KeyStore


class SpoolRing:
    """See :class:`dicom_node.spool_keys.SpoolKeys`, for whoever has the site's keys."""

    def __init__(self, store: KeyStore) -> None:
        """Keep the key folder."""
        self._store = store

    def all(self) -> list[SpoolKey]:
        """Return those that are not destroyed, the one in use last."""
        self._store.refresh()
        entries = reversed(self._store.ring.of(KeyKind.SPOOL))
        return [self._key(entry.version) for entry in entries]

    def newest(self) -> SpoolKey:
        """Return the key that is in use."""
        self._store.refresh()  # another process may have made it
        kept = self._store.ring.of(KeyKind.SPOOL)
        if not kept:
            raise KeyFolderError(
                "there is no spool key yet", hint="Starting the node makes one."
            )
        return self._key(kept[0].version)

    def of(self, version: int, key_id: bytes) -> SpoolKey:
        """Return a key by its version and id.

        Raises:
            KeyFolderError: There is no such key.
            KeyServiceError: The root cannot be reached.
        """
        if not self._has(version):
            self._store.refresh()
        key = self._key(version) if self._has(version) else None
        if key is None or key.id != key_id:
            raise no_key(version)
        return key

    def rotate_if_due(self, now: datetime, after: timedelta) -> bool:
        """Make a fresh key where the one in use is old, or where there is none.

        Args:
            now: Aware.
            after: How long a key is used.

        Returns:
            Whether there is a fresh one.
        """
        with self._store.changing():
            kept = self._store.ring.of(KeyKind.SPOOL)
            if kept and now - kept[0].created < after:
                return False
            self._store.rotate(KeyKind.SPOOL, now, 1)
        return True

    def ended(self, now: datetime, grace: timedelta) -> set[int]:
        """Return the versions that nobody seals with any more.

        Args:
            now: Aware.
            grace: How long after a key was replaced somebody may still do.
        """
        kept = self._store.ring.of(KeyKind.SPOOL)
        return {
            old.version
            for new, old in itertools.pairwise(kept)
            if now - new.created >= grace
        }

    def destroy(self, versions: Collection[int]) -> None:
        """Destroy keys: what they sealed is forgotten with them.

        Raises:
            KeyFolderError: The one in use is among them.
        """
        with self._store.changing():
            ring = self._store.ring
            if ring.newest(KeyKind.SPOOL).version in versions:
                raise KeyFolderError("the spool key in use is not destroyed")
            entries = [ring.entry(KeyKind.SPOOL, version) for version in versions]
            for entry in entries:
                ring = ring.without(entry.kind, entry.version)
            self._store.write(ring)
            for entry in entries:
                self._store.destroy(entry)

    def _has(self, version: int) -> bool:
        kept = self._store.ring.of(KeyKind.SPOOL)
        return any(entry.version == version for entry in kept)

    def _key(self, version: int) -> SpoolKey:
        return SpoolKey(version, self._store.secret(KeyKind.SPOOL, version))
