"""Take a site's charter whole: keys first, then grants, then the epochs that ended.

Whatever is interrupted is done again, since the number is noted last. Nothing of what is
here is destroyed before all records of this node's ledger open without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dicom_node.audit import Event
from dicom_node.rewrapping import rewrap_before

if TYPE_CHECKING:
    from datetime import datetime

    from dicom_node.audit import Audit
    from dicom_node.grants import Grants
    from dicom_node.keys.keyring import Keyring
    from dicom_node.ledger import Ledger


class Taken(NamedTuple):
    """What a node goes by now."""

    number: int
    issued: datetime
    is_new: bool


def take(
    content: bytes,
    source: str,
    *,
    keyring: Keyring,
    grants: Grants,
    ledger: Ledger,
    audit: Audit,
    now: datetime,
) -> Taken | None:
    """Take a charter, if this node does not have it; return it, or None if it has.

    Args:
        content: The file.
        source: Where it came from, for people.
        keyring: Of this node, which follows.
        grants: Of this node.
        ledger: Of this node; an epoch ends here once its records open without it.
        audit: Where it is written down.
        now: Aware.

    Raises:
        KeyFolderError: It is not this site's, not for this node, or an older one.
        LedgerError: Its grants tell another history.
        LostRecordError: A record here opens by no key: nothing is destroyed.
    """
    signed = keyring.nodes.verified(content, source)
    if signed is None:
        return None
    charter = signed.charter
    keyring.nodes.take_keys(signed, now, source)
    grants.take(charter.grants)
    if charter.least_epoch > keyring.ring.least_epoch:
        rewrap_before(charter.least_epoch, keyring, ledger)
        keyring.epochs.raise_floor(charter.least_epoch)
        rewrap_before(charter.least_epoch, keyring, ledger)
    keyring.epochs.destroy_ended()
    keyring.nodes.finish(signed)
    audit.add(
        Event.KEYS,
        did="charter taken",
        number=charter.number,
        digest=signed.digest[:32],
        grants=len(charter.grants),
    )
    return Taken(charter.number, charter.issued, is_new=True)
