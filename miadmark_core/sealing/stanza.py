"""A stanza: the object key, sealed to one holder of a key.

In clear it says its type and for whom it is, as the first 16 bytes of a SHA-256; never a
name. A type belongs to one suite or to both, and has one length, so that a record cannot
mix what a suite keeps apart.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from miadmark_core.sealing.suites import OBJECT_KEY_SIZE

if TYPE_CHECKING:
    from miadmark_core.sealing.record import Header
    from miadmark_core.sealing.suites import Suite

KEY_ID_SIZE: Final = 16
"""Bytes of a digest that name a key."""


class StanzaType(IntEnum):
    """For whom a stanza is, as written in a record; and the order in which they stand."""

    EPOCH = 1
    """The gateway's own key encryption key of that time; AES-256-GCM, both suites."""
    RECOVERY = 2
    """The site's recovery key, kept by people; HPKE of the suite."""
    RECIPIENT = 3
    """A recipient, who opens the record without asking; HPKE of the suite."""


class Stanza(NamedTuple):
    """One of them."""

    type: StanzaType
    key_id: bytes
    """Whose key; ``KEY_ID_SIZE`` bytes."""
    version: int
    """Of that key: the epoch's number; 0 for the others."""
    body: bytes
    """The object key, sealed; :func:`body_size` bytes."""


def body_size(kind: StanzaType, suite: Suite) -> int:
    """Return the one length that a body of that type has in that suite."""
    if kind is StanzaType.EPOCH:
        return OBJECT_KEY_SIZE + 16
    return suite.wrapped_size


class Wrapper(Protocol):
    """Whoever a record can be sealed to."""

    def wrap(self, suite: Suite, object_key: bytes, info: bytes) -> Stanza:
        """Return ``object_key`` sealed to it.

        Args:
            suite: Of the record.
            object_key: ``OBJECT_KEY_SIZE`` bytes.
            info: What the stanza is bound to; whoever opens it must have the same.
        """
        ...


class Opener(Protocol):
    """Whoever may know a record's object key."""

    def object_key(self, header: Header) -> bytes | None:
        """Return it, not yet believed; None where no stanza is for this holder.

        Raises:
            SealError: A stanza is, and does not open.
        """
        ...
