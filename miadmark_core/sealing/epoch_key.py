"""The gateway's own way into its records: one key for all of an epoch.

A stanza holds the object key under AES-256-GCM with a key that HKDF-SHA-512 derives for
this record alone, so the nonce may be fixed, and a stanza moved to another record does
not open. Where an epoch's key is kept, and when the next one begins, is not known here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from miadmark_core.errors import DamagedSealError, Layer
from miadmark_core.sealing.stanza import KEY_ID_SIZE, Stanza, StanzaType
from miadmark_core.sealing.suites import OBJECT_KEY_SIZE

if TYPE_CHECKING:
    from miadmark_core.sealing.record import Header
    from miadmark_core.sealing.suites import Suite

_NONCE: Final = bytes(12)


@dataclass(frozen=True, slots=True)
class EpochKey:
    """The key encryption key of one epoch."""

    version: int
    """Which epoch; from 1 on."""
    secret: bytes = field(repr=False)
    """32 bytes."""

    def __post_init__(self) -> None:
        """Refuse what is no key.

        Raises:
            ValueError: It does not have 32 bytes, or its epoch no number.
        """
        if len(self.secret) != OBJECT_KEY_SIZE or self.version < 1:
            raise ValueError(f"epoch {self.version}, {len(self.secret)} bytes")

    @property
    def key_id(self) -> bytes:
        """Return what names this key in a record."""
        return hashlib.sha256(b"miadmark/v1/epoch" + self.secret).digest()[:KEY_ID_SIZE]

    def wrap(self, suite: Suite, object_key: bytes, info: bytes) -> Stanza:
        """Return ``object_key`` sealed under this key."""
        body = self._cipher(suite, info).encrypt(_NONCE, object_key, None)
        return Stanza(StanzaType.EPOCH, self.key_id, self.version, body)

    def object_key(self, header: Header) -> bytes | None:
        """Return the object key, if the record is of this epoch.

        Raises:
            DamagedSealError: The stanza changed, or belongs to another record.
        """
        for stanza in header.stanzas:
            if stanza[:3] == (StanzaType.EPOCH, self.key_id, self.version):
                return self.unwrap(header.suite, stanza.body, header.stanza_info)
        return None

    def unwrap(self, suite: Suite, body: bytes, info: bytes) -> bytes:
        """Return what a stanza's body holds; the inverse of :meth:`wrap`.

        Raises:
            DamagedSealError: It changed, or belongs to another record.
        """
        try:
            return self._cipher(suite, info).decrypt(_NONCE, body, None)
        except InvalidTag:
            raise DamagedSealError(
                "a stanza of the record does not open", layer=Layer.STANZA
            ) from None

    def _cipher(self, suite: Suite, info: bytes) -> AESGCM:
        derived = HKDF(SHA512(), 32, salt=None, info=suite.label("epoch") + info)
        return AESGCM(derived.derive(self.secret))
