"""The epochs of a site: every record is sealed to the present one, until it is ended.

The ring says which is the first that still counts; the keys of those before it are
destroyed. Where a node follows another, that one begins them. What records there are is
not known here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from dicom_node.errors import KeyFolderError
from dicom_node.keys.ring import KeyKind
from miadmark_core.sealing.epoch_key import EpochKey
from miadmark_core.sealing.stanza import StanzaType

if TYPE_CHECKING:
    from datetime import datetime

    from dicom_node.keys.membership import Membership
    from dicom_node.keys.store import KeyStore
    from miadmark_core.sealing.record import Header

MAX_EPOCH_DAYS: Final = 90
MAX_EPOCH_RECORDS: Final = 1 << 20


class EpochRing:
    """The epochs' keys, among the keys of a site: opens what is sealed to them."""

    def __init__(self, store: KeyStore, nodes: Membership) -> None:
        """Keep the key folder, and whether this node follows another."""
        self._store, self._nodes = store, nodes

    def newest(self) -> EpochKey:
        """Return the key of the present epoch."""
        version = self._store.ring.newest(KeyKind.EPOCH).version
        return EpochKey(version, self._store.secret(KeyKind.EPOCH, version))

    def of(self, version: int, *, is_ended: bool = False) -> EpochKey | None:
        """Return the key of an epoch; None where it does not count, or is destroyed.

        Args:
            version: The epoch.
            is_ended: Return it even where it counts no more.
        """
        ring = self._store.ring
        kept = {e.version for e in ring.of(KeyKind.EPOCH)}
        if version not in kept or (version < ring.least_epoch and not is_ended):
            return None
        return EpochKey(version, self._store.secret(KeyKind.EPOCH, version))

    def object_key(self, header: Header, *, is_ended: bool = False) -> bytes | None:
        """Return the object key by the epoch's stanza, if that epoch still counts.

        Args:
            header: Of the record.
            is_ended: Take an epoch that counts no more, as long as its key is there.

        Raises:
            DamagedSealError: The stanza changed, or belongs to another record.
        """
        for stanza in header.stanzas:
            if stanza.type is StanzaType.EPOCH:
                key = self.of(stanza.version, is_ended=is_ended)
                return None if key is None else key.object_key(header)
        return None

    def rotate_if_due(self, now: datetime, sequence: int) -> bool:
        """Begin a new epoch where the present one has lasted long enough.

        A node that follows another waits until that one begins one.
        """
        self._store.refresh()
        if self._nodes.taken or not self._is_due(now, sequence):
            return False
        with self._store.changing():
            if not self._is_due(now, sequence):
                return False  # another process was first
            self._store.rotate(KeyKind.EPOCH, now, sequence)
        return True

    def _is_due(self, now: datetime, sequence: int) -> bool:
        epoch = self._store.ring.newest(KeyKind.EPOCH)
        return (
            now - epoch.created
        ).days >= MAX_EPOCH_DAYS or sequence - epoch.first_sequence >= MAX_EPOCH_RECORDS

    def raise_floor(self, version: int) -> None:
        """Let the stanzas of all epochs before ``version`` count no more.

        Raises:
            KeyFolderError: The present epoch would be among them.
        """
        with self._store.changing():
            ring = self._store.ring
            if version > ring.newest(KeyKind.EPOCH).version:
                raise KeyFolderError(f"epoch {version} has not begun")
            least = max(version, ring.least_epoch)
            self._store.write(replace(ring, least_epoch=least))

    def destroy_ended(self) -> None:
        """Destroy the keys of the epochs that count no more.

        What they sealed opens by other stanzas, or never again.
        """
        with self._store.changing():
            ring = self._store.ring
            # Those that were destroyed already, too: the power may have gone meanwhile.
            gone = [
                e
                for e in ring.keys
                if e.kind is KeyKind.EPOCH and e.version < ring.least_epoch
            ]
            for entry in gone:
                ring = ring.without(entry.kind, entry.version)
            self._store.write(ring)
            for entry in gone:
                self._store.destroy(entry)
