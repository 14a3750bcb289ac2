"""Who made a record: a gateway's signature, and the gateways that a site trusts.

Sealing alone proves nothing about the maker: anyone can seal to a public key, and so
could choose what "restored" pixels look like. The signature is checked first, against a
list that the caller gives. In the hybrid suite both of its halves have to be right.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.mldsa import (
    MLDSA65PrivateKey,
    MLDSA65PublicKey,
)

from miadmark_core.errors import DamagedSealError, Layer, UntrustedSignerError
from miadmark_core.sealing.suites import HYBRID

if TYPE_CHECKING:
    from collections.abc import Mapping

    from miadmark_core.sealing.record import Header
    from miadmark_core.sealing.suites import Suite

SIGNER_ID_SIZE: Final = 16
TENANT_SIZE: Final = 16
SIGNING_SEED_SIZE: Final = 64
VERIFIER_SIZE: Final = 32 + 1952
"""Bytes of a gateway's two public keys."""
_ED25519_SIGNATURE: Final = 64


@dataclass(frozen=True)
class Verifier:
    """The public keys of a gateway."""

    encoded: bytes
    """Ed25519 key, then ML-DSA-65 key, raw; ``VERIFIER_SIZE`` bytes."""

    def __post_init__(self) -> None:
        """Refuse what is no two public keys.

        Raises:
            ValueError: They are not as long as they must be, or malformed.
        """
        if len(self.encoded) != VERIFIER_SIZE:
            raise ValueError(f"{len(self.encoded)} bytes are no verifier")
        MLDSA65PublicKey.from_public_bytes(self.encoded[32:])

    @cached_property
    def id(self) -> bytes:
        """Return what names the gateway's keys in a record."""
        return hashlib.sha256(b"miadmark/v1/signer" + self.encoded).digest()[
            :SIGNER_ID_SIZE
        ]

    @cached_property
    def _keys(self) -> tuple[Ed25519PublicKey, MLDSA65PublicKey]:
        return (
            Ed25519PublicKey.from_public_bytes(self.encoded[:32]),
            MLDSA65PublicKey.from_public_bytes(self.encoded[32:]),
        )

    def has_signed(
        self, suite: Suite, purpose: str, signature: bytes, message: bytes
    ) -> bool:
        """Say whether this gateway signed ``message`` for ``purpose``."""
        if len(signature) != suite.signature_size:
            return False
        labelled = suite.label(purpose) + message
        ed25519, mldsa = self._keys
        try:
            ed25519.verify(signature[:_ED25519_SIGNATURE], labelled)
            if suite is HYBRID:
                mldsa.verify(signature[_ED25519_SIGNATURE:], labelled)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class Signer:
    """The gateway that makes records."""

    seed: bytes = field(repr=False)
    """Of the Ed25519 key, then of the ML-DSA-65 key; ``SIGNING_SEED_SIZE`` bytes."""

    @cached_property
    def _keys(self) -> tuple[Ed25519PrivateKey, MLDSA65PrivateKey]:
        return (
            Ed25519PrivateKey.from_private_bytes(self.seed[:32]),
            MLDSA65PrivateKey.from_seed_bytes(self.seed[32:]),
        )

    @cached_property
    def verifier(self) -> Verifier:
        """Return the public half."""
        ed25519, mldsa = self._keys
        return Verifier(
            ed25519.public_key().public_bytes_raw()
            + mldsa.public_key().public_bytes_raw()
        )

    def sign(self, suite: Suite, purpose: str, message: bytes) -> bytes:
        """Return the signature over ``message``; of the suite's length."""
        labelled = suite.label(purpose) + message
        ed25519, mldsa = self._keys
        signature = ed25519.sign(labelled)
        return signature + mldsa.sign(labelled) if suite is HYBRID else signature


class Trust(NamedTuple):
    """How far one gateway is trusted."""

    verifier: Verifier
    tenant: bytes
    """Whose gateway it is; ``TENANT_SIZE`` bytes."""
    last_sequence: int | None = None
    """The last record that is believed, once the key has been given up."""


@dataclass(frozen=True, slots=True)
class TrustedSigners:
    """The gateways whose records a site opens."""

    of: Mapping[bytes, Trust]
    """By :attr:`Verifier.id`."""

    def verify(self, header: Header) -> None:
        """Return if a trusted gateway signed the record.

        Raises:
            UntrustedSignerError: It is not on the list, or was no more by then.
            DamagedSealError: It is, and did not sign this.
        """
        trust = self.require(header)
        if not trust.verifier.has_signed(
            header.suite, "record", header.signature, header.signed
        ):
            raise DamagedSealError(
                "the record is not what its gateway signed",
                hint="It was changed after marking. Ask for the object again, and tell "
                "whoever looks after security.",
                layer=Layer.SIGNATURE,
            )

    def require(self, header: Header) -> Trust:
        """Return how far the gateway that a record names is trusted.

        Raises:
            UntrustedSignerError: Not as far as to this record.
        """
        trust = self.of.get(header.signer_id)
        named = header.signer_id.hex()
        if trust is None:
            raise UntrustedSignerError(
                f"sealed by the gateway {named}, which is not trusted here",
                hint="Compare that number with the sending site by telephone, then: "
                "miadmark keys trust FILE",
                layer=Layer.SIGNER,
            )
        if trust.tenant != header.tenant:
            raise UntrustedSignerError(
                f"sealed by the gateway {named} in the name of another tenant",
                hint="Tell whoever looks after security at the sending site.",
                layer=Layer.SIGNER,
            )
        if trust.last_sequence is not None and header.sequence > trust.last_sequence:
            raise UntrustedSignerError(
                f"sealed with a key of the gateway {named} after that was given up",
                hint="Whoever holds that key makes records with it: tell whoever looks "
                "after security.",
                layer=Layer.SIGNER,
            )
        return trust
