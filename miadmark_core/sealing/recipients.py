"""Whom a record can be sealed to with a public key: recipients, and the recovery key.

A stanza's body is HPKE (RFC 9180) in base mode, which is anonymous: that a stanza opens
says nothing about who made it, so a record is signed as well
(:mod:`miadmark_core.sealing.signing`).

An identity is one seed of 32 bytes. Its hybrid keys are the seed's SHAKE-256, 64 bytes
for ML-KEM-768 and 32 for X25519, as age does it (C2SP, age.md, "The mlkem768x25519
recipient type"); the X25519 key of the classical suite is another one, so that no key
serves two suites.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import (
    MLKEM768PrivateKey,
    MLKEM768PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)

from miadmark_core.errors import DamagedSealError, Layer
from miadmark_core.sealing.stanza import KEY_ID_SIZE, Stanza, StanzaType
from miadmark_core.sealing.suites import CLASSICAL, HYBRID

if TYPE_CHECKING:
    from miadmark_core.sealing.record import Header
    from miadmark_core.sealing.suites import Suite

SEED_SIZE: Final = 32
_MLKEM_PUBLIC: Final = 1184
_X25519_PUBLIC: Final = 32
_BASE_POINT: Final = b"\x09" + bytes(31)
"""Of X25519 (RFC 7748, 4.1): a share that takes as long as any; zeros would not."""
RECIPIENT_SIZE: Final = _X25519_PUBLIC + _MLKEM_PUBLIC + _X25519_PUBLIC
"""Bytes of a recipient written down."""


@dataclass(frozen=True)
class Recipient:
    """Someone who is to be able to open records of either suite."""

    encoded: bytes
    """X25519 key of suite 01, ML-KEM-768 key and X25519 key of suite 02, raw;
    ``RECIPIENT_SIZE`` bytes."""
    kind: StanzaType = StanzaType.RECIPIENT

    def __post_init__(self) -> None:
        """Refuse what is no three public keys.

        Raises:
            ValueError: A key is malformed, or they are not as long as they must be.
        """
        if len(self.encoded) != RECIPIENT_SIZE:
            raise ValueError(f"{len(self.encoded)} bytes are no recipient")
        MLKEM768PublicKey.from_public_bytes(self._mlkem)
        for start in (0, _X25519_PUBLIC + _MLKEM_PUBLIC):
            if not any(self.encoded[start : start + _X25519_PUBLIC]):
                raise ValueError("zeros are no public key")

    def key_id(self, suite: Suite) -> bytes:
        """Return what names this recipient in records of ``suite``."""
        return hashlib.sha256(suite.label("recipient") + self._raw(suite)).digest()[
            :KEY_ID_SIZE
        ]

    def wrap(self, suite: Suite, object_key: bytes, info: bytes) -> Stanza:
        """Return ``object_key`` sealed to this recipient."""
        body = suite.kem.encrypt(object_key, self._public(suite), info)
        return Stanza(self.kind, self.key_id(suite), 0, body)

    @property
    def _mlkem(self) -> bytes:
        return self.encoded[_X25519_PUBLIC:-_X25519_PUBLIC]

    def _raw(self, suite: Suite) -> bytes:
        if suite is CLASSICAL:
            return self.encoded[:_X25519_PUBLIC]
        return self.encoded[_X25519_PUBLIC:]

    def _public(self, suite: Suite) -> X25519PublicKey | hpke.MLKEM768X25519PublicKey:
        if suite is CLASSICAL:
            return X25519PublicKey.from_public_bytes(self._raw(suite))
        return hpke.MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(self._mlkem),
            X25519PublicKey.from_public_bytes(self.encoded[-_X25519_PUBLIC:]),
        )


@dataclass(frozen=True)
class Identity:
    """The private half of a recipient."""

    seed: bytes = field(repr=False)
    kind: StanzaType = StanzaType.RECIPIENT

    def __post_init__(self) -> None:
        """Refuse what is no seed.

        Raises:
            ValueError: It does not have ``SEED_SIZE`` bytes.
        """
        if len(self.seed) != SEED_SIZE:
            raise ValueError(f"a seed of {len(self.seed)} bytes")

    @classmethod
    def of_seed(cls, seed: bytes) -> Identity:
        """Return the identity of a recipient."""
        return cls(seed)

    @cached_property
    def classical_private_key(self) -> X25519PrivateKey:
        """Return the key of suite 01."""
        return X25519PrivateKey.from_private_bytes(
            hmac.digest(self.seed, CLASSICAL.label("identity"), "sha256")
        )

    @cached_property
    def _hybrid_parts(self) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
        expanded = hashlib.shake_256(self.seed).digest(96)
        return (
            MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
            X25519PrivateKey.from_private_bytes(expanded[64:]),
        )

    @cached_property
    def hybrid_private_key(self) -> hpke.MLKEM768X25519PrivateKey:
        """Return the key of suite 02."""
        return hpke.MLKEM768X25519PrivateKey(*self._hybrid_parts)

    @cached_property
    def recipient(self) -> Recipient:
        """Return the public half."""
        mlkem, x25519 = self._hybrid_parts
        return Recipient(
            self.classical_private_key.public_key().public_bytes_raw()
            + mlkem.public_key().public_bytes_raw()
            + x25519.public_key().public_bytes_raw(),
            self.kind,
        )

    def object_key(self, header: Header) -> bytes | None:
        """Return the object key that a stanza holds for this identity.

        Where there is none, as much work is done as where there is one: how long a
        refusal takes does not say which of both it was.

        Raises:
            DamagedSealError: The stanza changed, or belongs to another record.
        """
        key_id = self.recipient.key_id(header.suite)
        for stanza in header.stanzas:
            if stanza.type is self.kind and stanza.key_id == key_id:
                return self.unwrap(header.suite, stanza.body, header.stanza_info)
        blank = bytes(header.suite.encapsulated_size - 32) + _BASE_POINT + bytes(48)
        try:
            self.unwrap(header.suite, blank, header.stanza_info)
        except DamagedSealError:
            return None
        raise AssertionError("a blank stanza opened")

    def unwrap(self, suite: Suite, body: bytes, info: bytes) -> bytes:
        """Return what a stanza's body holds; the inverse of :meth:`Recipient.wrap`.

        Raises:
            DamagedSealError: It changed, or belongs to something else.
        """
        key = self.hybrid_private_key if suite is HYBRID else self.classical_private_key
        try:
            return suite.kem.decrypt(body, key, info)
        except (InvalidTag, ValueError):
            raise DamagedSealError(
                "a stanza of the record does not open", layer=Layer.STANZA
            ) from None
