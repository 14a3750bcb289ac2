"""Epochs that end, and single objects whose key is destroyed.

An object that is out cannot be changed. So an epoch ends by sealing the object keys of
all its records once more, in the ledger, under the present epoch's key, and destroying
the old one: from then on its stanzas in all the objects of the world open nothing. That
is also how one object is shredded: its record leaves the ledger, and its epoch ends.

What remains: the recovery key and direct recipients open an object as long as they exist,
and a backup of the key folder opens it as long as the root version of that time exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dicom_node.errors import KeyServiceError, LostRecordError
from dicom_node.keys.ring import KeyKind
from dicom_node.ledger import Rewrapped
from miadmark_core.errors import UntrustedSignerError
from miadmark_core.sealing.record import parse

if TYPE_CHECKING:
    from datetime import datetime

    from dicom_node.keys.keyring import Keyring
    from dicom_node.ledger import Ledger
    from miadmark_core.sealing.epoch_key import EpochKey
    from miadmark_core.sealing.record import Header, SealedRecord

_BATCH: Final = 1000


@dataclass(frozen=True, slots=True)
class LedgerOpener:
    """Opens records whose epoch has ended, by what the ledger holds."""

    keyring: Keyring
    ledger: Ledger

    def object_key(self, header: Header) -> bytes | None:
        """Return the object key that the ledger holds for a record; None if none.

        Raises:
            DamagedSealError: What it holds belongs to another record.
        """
        kept = self.ledger.rewrapped(header.record_id)
        epoch = None if kept is None else self.keyring.epochs.of(kept.epoch)
        if kept is None or epoch is None:
            return None
        return epoch.unwrap(header.suite, kept.body, header.stanza_info)


def end_epochs(keyring: Keyring, ledger: Ledger, now: datetime) -> int:
    """Begin a new epoch and destroy the keys of all before it; return its number.

    Nothing is destroyed before every record of the ledger opens under the new key. The
    second pass is for records that were on their way during the first: whoever keeps one
    later than that sees that its epoch has ended (:func:`keep`). A crash on the way is
    repaired by doing it again.

    Raises:
        LostRecordError: A record opens by no key of this site: nothing is destroyed.
    """
    version = keyring.rotate(KeyKind.EPOCH, now, ledger.last_number() + 1)
    rewrap_before(version, keyring, ledger)
    keyring.epochs.raise_floor(version)
    rewrap_before(version, keyring, ledger)
    keyring.epochs.destroy_ended()
    return version


def keep(
    marked_digest: bytes,
    record: SealedRecord,
    study_instance_uid: str,
    *,
    keyring: Keyring,
    ledger: Ledger,
    now: datetime,
) -> None:
    """Put a new record into the ledger; it opens when this returns.

    Raises:
        KeyServiceError: A key of it was given up meanwhile: it has to be made again.
        LedgerError: It cannot be kept.
    """
    ledger.add(marked_digest, record, now, study_instance_uid)
    keyring.refresh()
    header = parse(record.header)
    epoch = max(stanza.version for stanza in header.stanzas)
    try:
        keyring.trusted().require(header)
        is_good = keyring.epochs.of(epoch) is not None
    except UntrustedSignerError:
        is_good = False
    if not is_good:
        ledger.forget(header.record_id)
        raise KeyServiceError(
            "a key was given up while the object was marked, so it is marked again"
        )


def rewrap_before(version: int, keyring: Keyring, ledger: Ledger) -> int:
    """Seal the object keys of all older epochs under the present one; return how many."""
    present, after, total = keyring.epochs.newest(), 0, 0
    while rows := ledger.headers_before(version, after, _BATCH):
        headers = [parse(encoded) for _, encoded in rows]
        ledger.rewrap(
            _rewrapped(header, present, keyring, ledger) for header in headers
        )
        after, total = rows[-1][0], total + len(rows)
    return total


def _rewrapped(
    header: Header, present: EpochKey, keyring: Keyring, ledger: Ledger
) -> Rewrapped:
    kept = ledger.rewrapped(header.record_id)
    before = None if kept is None else keyring.epochs.of(kept.epoch, is_ended=True)
    if kept is not None and before is not None:
        key = before.unwrap(header.suite, kept.body, header.stanza_info)
    elif (found := keyring.epochs.object_key(header, is_ended=True)) is not None:
        key = found
    else:
        raise LostRecordError(
            f"record {header.record_id.hex()} opens by no key of this site",
            hint="Nothing was destroyed. The recovery key opens it: miadmark ledger "
            "rebuild PATH... --shares FILE...",
        )
    stanza = present.wrap(header.suite, key, header.stanza_info)
    return Rewrapped(header.record_id, present.version, stanza.body)


def shred(
    record_id: bytes, keyring: Keyring, ledger: Ledger, *, by: str, now: datetime
) -> int:
    """Destroy what this site can open one record with; return the epoch that began."""
    ledger.shred(record_id, by, now)
    return end_epochs(keyring, ledger, now)
