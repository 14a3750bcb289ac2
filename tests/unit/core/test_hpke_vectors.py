"""HPKE against vectors that nobody here made, in the opening direction.

RFC 9180's, and those of the hybrid key encapsulations, come with cryptography-vectors.
The library seals one message for each encapsulation: of each vector, the first is opened.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cryptography_vectors
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519

from miadmark_core.sealing.recipients import Identity
from tests.record_writer import flipped

Vector = dict[str, Any]
FOLDER = Path(cryptography_vectors.__file__).parent / "HPKE"
BASE_MODE = 0
KEMS = {
    0x0010: hpke.KEM.P256,
    0x0011: hpke.KEM.P384,
    0x0012: hpke.KEM.P521,
    0x0020: hpke.KEM.X25519,
    0x0041: hpke.KEM.MLKEM768,
    0x0042: hpke.KEM.MLKEM1024,
    0x0051: hpke.KEM.MLKEM1024_P384,
    0x647A: hpke.KEM.MLKEM768_X25519,
}
KDFS = {
    0x0001: hpke.KDF.HKDF_SHA256,
    0x0002: hpke.KDF.HKDF_SHA384,
    0x0003: hpke.KDF.HKDF_SHA512,
    0x0010: hpke.KDF.SHAKE128,
    0x0011: hpke.KDF.SHAKE256,
}
AEADS = {
    0x0001: hpke.AEAD.AES_128_GCM,
    0x0002: hpke.AEAD.AES_256_GCM,
    0x0003: hpke.AEAD.CHACHA20_POLY1305,
}
CURVES = {0x0010: ec.SECP256R1(), 0x0011: ec.SECP384R1(), 0x0012: ec.SECP521R1()}
OPENED = "opened"
LACKS_KEMS = {0x21: "X448", 0x40: "ML-KEM-512", 0x50: "ML-KEM-768 with P-256"}
LACKS_KDFS = {0x12: "TurboSHAKE128", 0x13: "TurboSHAKE256"}
LACKS_AEADS = {0xFFFF: "exporting only"}
"""What of the vectors the library does not have."""


class Message(NamedTuple):
    """The first that a vector has sealed."""

    suite: tuple[hpke.KEM, hpke.KDF, hpke.AEAD]
    key: Any
    sealed: bytes
    info: bytes
    aad: bytes
    plain: bytes

    @classmethod
    def of(cls, vector: Vector) -> Message:
        first = {k: bytes.fromhex(v) for k, v in vector["encryptions"][0].items()}
        return cls(
            (KEMS[vector["kem_id"]], KDFS[vector["kdf_id"]], AEADS[vector["aead_id"]]),
            private_key(vector["kem_id"], bytes.fromhex(vector["skRm"])),
            bytes.fromhex(vector["enc"]) + first["ct"],
            bytes.fromhex(vector["info"]),
            first["aad"],
            first["pt"],
        )

    def opened(self) -> bytes:
        # The public interface has no associated data, and every vector has some.
        return openssl.hpke._decrypt_with_aad(
            hpke.Suite(*self.suite), self.sealed, self.key, self.info, self.aad
        )


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        (
            "test-vectors.json",
            {OPENED: 18, "modes other than base": 96, "X448": 8, "exporting only": 6},
        ),
        (
            "hpke-pq-test-vectors.json",
            {
                OPENED: 7,
                "X448": 1,
                "ML-KEM-512": 1,
                "ML-KEM-768 with P-256": 2,
                "TurboSHAKE128": 1,
                "TurboSHAKE256": 1,
            },
        ),
    ],
    ids=["RFC 9180", "post-quantum"],
)
def test_what_others_have_sealed_opens(name: str, counts: dict[str, int]) -> None:
    found: Counter[str] = Counter()
    for vector in vectors(name):
        why = lacking(vector)
        if why is None:
            message = Message.of(vector)
            assert message.opened() == message.plain
        found[why or OPENED] += 1
    assert found == counts


def test_the_key_encapsulations_of_the_seal_are_among_them() -> None:
    """AES-256-GCM is with X25519 only: no vector has it with the hybrid."""
    suites = {message.suite for message in messages()}
    kdf, aead = hpke.KDF.HKDF_SHA256, hpke.AEAD
    assert (hpke.KEM.X25519, kdf, aead.AES_256_GCM) in suites
    assert (hpke.KEM.MLKEM768_X25519, kdf, aead.CHACHA20_POLY1305) in suites
    assert (hpke.KEM.MLKEM768_X25519, kdf, aead.AES_256_GCM) not in suites


def test_with_any_byte_changed_it_is_refused() -> None:
    found = list(messages())
    assert len(found) == 25
    for message in found:
        for i in range(len(message.sealed)):
            refuse(message._replace(sealed=flipped(i, i % 8)(message.sealed)))
        refuse(message._replace(sealed=message.sealed[:-1]))
        refuse(message._replace(sealed=message.sealed + b"\0"))
        refuse(message._replace(info=flipped(0)(message.info)))
        refuse(message._replace(aad=flipped(-1)(message.aad)))


def refuse(message: Message) -> None:
    with pytest.raises(InvalidTag):
        message.opened()


def vectors(name: str) -> list[Vector]:
    found: list[Vector] = json.loads((FOLDER / name).read_text("utf-8"))
    return found


def messages() -> Iterator[Message]:
    for file in sorted(FOLDER.glob("*.json")):
        yield from (Message.of(v) for v in vectors(file.name) if lacking(v) is None)


def lacking(vector: Vector) -> str | None:
    """Return what the library lacks to open a vector."""
    if vector["mode"] != BASE_MODE:
        return "modes other than base"
    if vector["kem_id"] not in KEMS:
        return LACKS_KEMS[vector["kem_id"]]
    if vector["kdf_id"] not in KDFS:
        return LACKS_KDFS[vector["kdf_id"]]
    return None if vector["aead_id"] in AEADS else LACKS_AEADS[vector["aead_id"]]


def private_key(kem: int, encoded: bytes) -> Any:
    if kem in CURVES:
        return ec.derive_private_key(int.from_bytes(encoded), CURVES[kem])
    match kem:
        case 0x0020:
            return x25519.X25519PrivateKey.from_private_bytes(encoded)
        case 0x0041:
            return mlkem.MLKEM768PrivateKey.from_seed_bytes(encoded)
        case 0x0042:
            return mlkem.MLKEM1024PrivateKey.from_seed_bytes(encoded)
        case 0x0051:
            expanded = hashlib.shake_256(encoded).digest(64 + 48)
            return hpke.MLKEM1024P384PrivateKey(
                mlkem.MLKEM1024PrivateKey.from_seed_bytes(expanded[:64]),
                ec.derive_private_key(int.from_bytes(expanded[64:]), ec.SECP384R1()),
            )
    return Identity.of_seed(encoded).hybrid_private_key
