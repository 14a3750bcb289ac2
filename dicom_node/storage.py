"""What a site wants of the disk of its state, and of its memory of what it sent.

Choices only, as a configuration names them; nothing here looks at a disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from dicom_node.errors import ConfigError

_MB: Final = 1 << 20


class OtherBytes(StrEnum):
    """How other bytes under the UID of a known instance are answered."""

    DUPLICATE = "duplicate"
    """0x0111, duplicate SOP Instance (PS3.7 C.4.1)."""
    MISMATCH = "mismatch"
    """0xA900, data set does not match SOP class (PS3.4 B.2.3): senders know it better."""

    @property
    def status(self) -> int:
        """Return the status of the answer."""
        return 0x0111 if self is OtherBytes.DUPLICATE else 0xA900


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """How much of the disk is left alone, and what is remembered of what was sent."""

    least_free_mb: float = 1024.0
    """Where less is free, nothing is taken in."""
    least_free_inodes: int = 10_000
    """Likewise; a file system that counts none has enough."""
    reserve_mb: float = 64.0
    """A file that holds room for the ledger, the queue and the audit; 0 for none."""
    remember_sent_h: float = 24.0
    """How long what was sent is remembered: the same bytes again are not sent again, and
    other bytes under their UID are quarantined. 0 to send again whatever comes again."""
    keep_sent_days: float = 30.0
    """How long the queue knows of what it sent or dropped; then it only counts it. As
    long as ``remember_sent_h`` at least."""
    other_bytes: OtherBytes = OtherBytes.DUPLICATE
    encrypt: bool = True
    """Whether what is in the spool is sealed under a key of this site. What large
    objects take meanwhile is memory then; false where the disk itself is encrypted."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        for name in ("least_free_mb", "least_free_inodes", "reserve_mb"):
            if getattr(self, name) < 0:
                raise ConfigError(f"storage: {name} = {getattr(self, name)}")
        if not 0 <= self.keep_sent_days <= 3660:
            raise ConfigError(
                f"storage: keep_sent_days = {self.keep_sent_days}",
                hint="Days, from 0 to ten years.",
            )
        if not 0 <= self.remember_sent_h <= 24 * 3660:
            raise ConfigError(
                f"storage: remember_sent_h = {self.remember_sent_h}",
                hint="Hours, from 0 to ten years.",
            )

    @property
    def least_free(self) -> int:
        """Return :attr:`least_free_mb` in bytes."""
        return int(self.least_free_mb * _MB)

    @property
    def reserve(self) -> int:
        """Return :attr:`reserve_mb` in bytes."""
        return int(self.reserve_mb * _MB)

    @property
    def remember_sent(self) -> timedelta:
        """Return :attr:`remember_sent_h`."""
        return timedelta(hours=self.remember_sent_h)

    @property
    def keep_sent(self) -> timedelta:
        """Return how long the queue knows of what is settled."""
        return max(timedelta(days=self.keep_sent_days), self.remember_sent)
