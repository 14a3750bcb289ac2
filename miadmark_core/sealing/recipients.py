"""Whom a record can be sealed to: one stanza a recipient, each holding the object key.

A stanza says in clear only the key id of whom it is for. Its body is HPKE (RFC 9180) in
base mode, which is anonymous: that a stanza opens says nothing about who made it, so a
record is signed as well (:mod:`miadmark_core.sealing.signing`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke

from miadmark_core.errors import DamagedSealError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import (
        X25519PrivateKey,
        X25519PublicKey,
    )

KEY_ID_SIZE: Final = 16
"""Bytes of the SHA-256 of a public key that name it."""

STANZA_SIZE: Final = 80
"""Bytes of an X25519 stanza's body: 32 encapsulated, 32 sealed, a 16-byte tag."""

_SUITE: Final = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


@dataclass(frozen=True, slots=True)
class Recipient:
    """Someone who is to be able to open records."""

    public_key: X25519PublicKey

    @property
    def key_id(self) -> bytes:
        """Return what names this recipient in a record."""
        return _key_id(self.public_key)

    def wrap(self, object_key: bytes, info: bytes) -> bytes:
        """Return ``object_key`` sealed to this recipient; ``STANZA_SIZE`` bytes."""
        return _SUITE.encrypt(object_key, self.public_key, info)


@dataclass(frozen=True, slots=True)
class Identity:
    """The private half of a recipient."""

    private_key: X25519PrivateKey

    @property
    def key_id(self) -> bytes:
        """Return what names this identity in a record."""
        return _key_id(self.private_key.public_key())

    def recipient(self) -> Recipient:
        """Return the public half."""
        return Recipient(self.private_key.public_key())

    def unwrap(self, body: bytes, info: bytes) -> bytes:
        """Return the object key; the inverse of :meth:`Recipient.wrap`.

        Raises:
            DamagedSealError: The stanza changed, or belongs to another record.
        """
        try:
            return _SUITE.decrypt(body, self.private_key, info)
        except (InvalidTag, ValueError):
            raise DamagedSealError("a stanza of the record does not open") from None


def _key_id(key: X25519PublicKey) -> bytes:
    return hashlib.sha256(b"miadmark/v1/x25519" + key.public_bytes_raw()).digest()[
        :KEY_ID_SIZE
    ]
