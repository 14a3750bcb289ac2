"""Who made a record: a gateway's signature, and the gateways that a site trusts.

Sealing alone proves nothing about the maker: anyone can seal to a public key, and so
could choose what "restored" pixels look like. The signature is checked first, against a
list that the caller gives.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature

from miadmark_core.errors import DamagedSealError, UntrustedSignerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

SIGNER_ID_SIZE: Final = 16
SIGNATURE_SIZE: Final = 64

_LABEL: Final = b"miadmark/v1/record "


def signer_id(key: Ed25519PublicKey) -> bytes:
    """Return what names a gateway's key in a record; ``SIGNER_ID_SIZE`` bytes."""
    return hashlib.sha256(b"miadmark/v1/ed25519" + key.public_bytes_raw()).digest()[
        :SIGNER_ID_SIZE
    ]


@dataclass(frozen=True, slots=True)
class Signer:
    """The gateway that makes records."""

    private_key: Ed25519PrivateKey

    @property
    def id(self) -> bytes:
        """Return :func:`signer_id` of the public half."""
        return signer_id(self.private_key.public_key())

    def sign(self, message: bytes) -> bytes:
        """Return the signature over ``message``; ``SIGNATURE_SIZE`` bytes."""
        return self.private_key.sign(_LABEL + message)


@dataclass(frozen=True, slots=True)
class TrustedSigners:
    """The gateways whose records a site opens."""

    keys: Mapping[bytes, Ed25519PublicKey]
    """By :func:`signer_id`."""

    def verify(self, signer: bytes, signature: bytes, message: bytes) -> None:
        """Return if ``signer`` is trusted and did sign ``message``.

        Raises:
            UntrustedSignerError: It is not on the list.
            DamagedSealError: It is, and did not sign this.
        """
        key = self.keys.get(signer)
        if key is None:
            raise UntrustedSignerError(
                f"sealed by the gateway {signer.hex()}, which is not trusted here",
                hint="Compare that number with the sending site by telephone, then: "
                "miadmark keys trust FILE",
            )
        try:
            key.verify(signature, _LABEL + message)
        except InvalidSignature:
            raise DamagedSealError(
                "the record is not what its gateway signed",
                hint="It was changed after marking. Ask for the object again, and tell "
                "whoever looks after security.",
            ) from None
