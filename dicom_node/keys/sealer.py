"""What marking asks of the keys: derive, seal, and open again to prove it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dicom_node.opening import Opening
from miadmark_core.sealing.seal import seal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from dicom_node.keys.keyring import Keyring
    from miadmark_core.sealing.recipients import Recipient
    from miadmark_core.sealing.record import SealedRecord


@dataclass(frozen=True, slots=True)
class Sealer:
    """Seals records for one site."""

    keyring: Keyring
    number: Callable[[], int]
    """Returns the number of the next record: :meth:`dicom_node.ledger.Ledger.number`."""
    recipients: tuple[Recipient, ...] = ()
    """Who can open them without asking (direct)."""

    def derive(self, message: bytes) -> bytes:
        """Return 32 bytes that only this site can derive from ``message``."""
        return self.keyring.derive(message)

    def seal(
        self, payload: bytes, context: bytes, *, method: str, now: datetime
    ) -> SealedRecord:
        """Return ``payload`` sealed to this site, its recovery key and the recipients.

        Args:
            payload: What to seal.
            context: What it belongs to.
            method: How it undoes the mark; 1 to 64 ASCII characters.
            now: Aware.
        """
        ring, sequence = self.keyring, self.number()
        ring.epochs.rotate_if_due(now, sequence)
        recovery = ring.recovery()
        recipients = {r.encoded: r for r in (*ring.recipients(), *self.recipients)}
        return seal(
            payload,
            context,
            suite=ring.suite,
            to=[
                ring.epochs.newest(),
                *([recovery] if recovery else []),
                *recipients.values(),
            ],
            signer=ring.signer(),
            tenant=ring.ring.tenant,
            sequence=sequence,
            policy=ring.ring.policy,
            method=method,
            now=now,
            random=os.urandom,
        )

    def opening(self) -> Opening:
        """Return what opens the site's records, and what others have sealed to it."""
        return opening_of(self.keyring)

    def with_recipients(self, more: Sequence[Recipient]) -> Sealer:
        """Return a sealer that seals to these as well."""
        return replace(self, recipients=(*self.recipients, *more))


def opening_of(keyring: Keyring) -> Opening:
    """Return what a site's keys open, with nobody asked and no ledger looked into."""
    return Opening(
        openers=[keyring.epochs, *keyring.identities()],
        trusted=keyring.trusted(),
        least_suite=keyring.ring.least_suite,
        own_tenant=keyring.ring.tenant,
    )
