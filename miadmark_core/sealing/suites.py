"""What a record is sealed and signed with: two suites, each whole, never mixed.

``0x01`` is classical: X25519 HPKE (RFC 9180), Ed25519 (RFC 8032). ``0x02``, the default,
is a hybrid that stands as long as either half does: ML-KEM-768 (FIPS 203) with X25519 in
HPKE, Ed25519 together with ML-DSA-65 (FIPS 204). Images are kept for decades and copies
of them are outside already, so what is recorded today may be attacked much later.

Both derive with HKDF-SHA-512 and encrypt with AES-256-GCM, which need no successor.
A suite's number goes into every derivation and every signature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives import hpke

from miadmark_core.errors import Layer, UnknownFormatError

OBJECT_KEY_SIZE: Final = 32
_TAG_SIZE: Final = 16


@dataclass(frozen=True, slots=True)
class Suite:
    """One of them."""

    number: int
    """As written in a record: one byte."""
    name: str
    kem: hpke.Suite
    encapsulated_size: int
    """Bytes that the key encapsulation adds to what it seals."""
    signature_size: int

    @property
    def wrapped_size(self) -> int:
        """Return how many bytes an object key sealed to a recipient has."""
        return self.encapsulated_size + OBJECT_KEY_SIZE + _TAG_SIZE

    def label(self, purpose: str) -> bytes:
        """Return what begins every derivation and signature for ``purpose``."""
        return b"miadmark/v1/" + purpose.encode("ascii") + bytes([0, self.number])


CLASSICAL: Final = Suite(
    1,
    "X25519, Ed25519",
    hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM),
    encapsulated_size=32,
    signature_size=64,
)
HYBRID: Final = Suite(
    2,
    "ML-KEM-768 + X25519, Ed25519 + ML-DSA-65",
    hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM),
    encapsulated_size=1088 + 32,
    signature_size=64 + 3309,
)
SUITES: Final = {suite.number: suite for suite in (CLASSICAL, HYBRID)}


def suite_of(number: int) -> Suite:
    """Return the suite of that number.

    Raises:
        UnknownFormatError: There is none here.
    """
    suite = SUITES.get(number)
    if suite is None:
        raise UnknownFormatError(
            f"a sealed record of suite {number:02x}, which is not known here",
            hint="A newer version of this software sealed it: upgrade.",
            layer=Layer.SUITE,
        )
    return suite
