"""HPKE against vectors that nobody here made, in the opening direction.

RFC 9180's, and those of the hybrid key encapsulations, come with cryptography-vectors;
age's kit for its hybrid recipient opens with our own expansion of a seed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cryptography_vectors
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from miadmark_core.sealing.recipients import Identity

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
    0x647A: hpke.KEM.MLKEM768_X25519,
    0x0051: hpke.KEM.MLKEM1024_P384,
}
KDFS = {
    1: hpke.KDF.HKDF_SHA256,
    2: hpke.KDF.HKDF_SHA384,
    3: hpke.KDF.HKDF_SHA512,
    0x10: hpke.KDF.SHAKE128,
    0x11: hpke.KDF.SHAKE256,
}
AEADS = {
    1: hpke.AEAD.AES_128_GCM,
    2: hpke.AEAD.AES_256_GCM,
    3: hpke.AEAD.CHACHA20_POLY1305,
}
CURVES = {0x0010: ec.SECP256R1(), 0x0011: ec.SECP384R1(), 0x0012: ec.SECP521R1()}


def vectors(name: str) -> list[Vector]:
    """Return those whose algorithms the library has, in the mode that it has."""
    found: list[Vector] = json.loads((FOLDER / name).read_text("utf-8"))
    return [
        v
        for v in found
        if v["mode"] == BASE_MODE
        and v["kem_id"] in KEMS
        and v["kdf_id"] in KDFS
        and v["aead_id"] in AEADS
        and v["kem_id"] != 0x0051  # needs P-384 out of a seed: not ours to write
    ]


def private_key(vector: Vector) -> Any:
    kem, encoded = vector["kem_id"], bytes.fromhex(vector["skRm"])
    if kem in CURVES:
        return ec.derive_private_key(int.from_bytes(encoded), CURVES[kem])
    match kem:
        case 0x0020:
            return x25519.X25519PrivateKey.from_private_bytes(encoded)
        case 0x0041:
            return mlkem.MLKEM768PrivateKey.from_seed_bytes(encoded)
        case 0x0042:
            return mlkem.MLKEM1024PrivateKey.from_seed_bytes(encoded)
    return Identity.of_seed(encoded).hybrid_private_key


@pytest.mark.parametrize(
    ("name", "count"),
    [("test-vectors.json", 18), ("hpke-pq-test-vectors.json", 6)],
    ids=["RFC 9180", "post-quantum"],
)
def test_what_others_have_sealed_opens_and_nothing_else(name: str, count: int) -> None:
    found = vectors(name)
    assert len(found) == count
    for vector in found:
        suite = hpke.Suite(
            KEMS[vector["kem_id"]], KDFS[vector["kdf_id"]], AEADS[vector["aead_id"]]
        )
        key, info = private_key(vector), bytes.fromhex(vector["info"])
        first = {k: bytes.fromhex(v) for k, v in vector["encryptions"][0].items()}
        sealed = bytes.fromhex(vector["enc"]) + first["ct"]
        # The public interface has no associated data, and every vector has some.
        opened = openssl.hpke._decrypt_with_aad(suite, sealed, key, info, first["aad"])
        assert opened == first["pt"]
        changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
        for wrong in ((changed, info), (sealed, info + b"\0")):
            with pytest.raises(InvalidTag):
                openssl.hpke._decrypt_with_aad(
                    suite, wrong[0], key, wrong[1], first["aad"]
                )


AGE = hpke.Suite(
    hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305
)
AGE_INFO = b"age-encryption.org/mlkem768x25519"
ENCAPSULATED = 1120


REFUSED_AS = {"hybrid_identity": "no match", "hybrid_low_order": "no match"}
"""Shares that agree on nothing: the library does not tell them from a wrong key."""


class HeaderError(Exception):
    """The header is not as it has to be."""


class NoMatchError(Exception):
    """No stanza opens for the identity."""


@pytest.mark.data
def test_ages_hybrid_kit_comes_out_as_it_says(shared: Path) -> None:
    files = sorted((shared / "vectors" / "age-hybrid").iterdir())
    assert len(files) == 19
    for file in files:
        told, content = _kit(file.read_bytes())
        try:
            payload = _opened(
                content, [_seed(i) for i in told["identity"] if "-PQ-" in i]
            )
            came_out = "success"
            assert hashlib.sha256(payload).hexdigest() == told["payload"][0], file.name
        except HeaderError:
            came_out = "header failure"
        except NoMatchError:
            came_out = "no match"
        assert came_out == REFUSED_AS.get(file.name, told["expect"][0]), file.name


def _kit(content: bytes) -> tuple[dict[str, list[str]], bytes]:
    head, _, rest = content.partition(b"\n\n")
    told: dict[str, list[str]] = {}
    for line in head.decode("utf-8").splitlines():
        name, _, value = line.partition(": ")
        told.setdefault(name, []).append(value)
    if "compressed" in told:
        rest = zlib.decompress(rest)
    if "armored" in told:
        lines = rest.decode("ascii").strip().splitlines()
        rest = base64.b64decode("".join(lines[1:-1]))
    return told, rest


def _opened(content: bytes, seeds: list[bytes]) -> bytes:
    """Return the payload of an age file (C2SP, age.md)."""
    header, mac, payload = _parted(content)
    stanzas = list(_stanzas(header))
    hybrid = [s for s in stanzas if s[0][0] == "mlkem768x25519"]
    for arguments, _ in stanzas:
        if arguments[0] == "X25519" and len(_base64(arguments[1])) != 32:
            raise HeaderError
    keys = [key for s in hybrid for key in _file_keys(s, seeds)]
    if not keys:
        raise NoMatchError
    mac_key = HKDF(SHA256(), 32, salt=None, info=b"header").derive(keys[0])
    if not hmac.compare_digest(hmac.digest(mac_key, header, "sha256"), mac):
        raise HeaderError
    payload_key = HKDF(SHA256(), 32, salt=payload[:16], info=b"payload").derive(keys[0])
    sealed = payload[16:]
    assert len(sealed) <= 64 * 1024 + 16
    return ChaCha20Poly1305(payload_key).decrypt(bytes(11) + b"\1", sealed, None)


def _parted(content: bytes) -> tuple[bytes, bytes, bytes]:
    end = content.index(b"\n--- ") + 4
    line, _, payload = content[end:].partition(b"\n")
    return content[:end], _base64(line[1:].decode("ascii")), payload


def _stanzas(header: bytes) -> Iterator[tuple[list[str], bytes]]:
    lines = header.decode("ascii").split("\n")[1:-1]
    while lines:
        arguments = lines.pop(0).removeprefix("-> ").split(" ")
        body = ""
        while True:
            line = lines.pop(0)
            body += line
            if len(line) < 64:
                break
        yield arguments, _base64(body)


def _file_keys(stanza: tuple[list[str], bytes], seeds: list[bytes]) -> Iterator[bytes]:
    arguments, body = stanza
    if len(arguments) != 2 or len(body) != 32:
        raise HeaderError
    encapsulated = _base64(arguments[1])
    if len(encapsulated) != ENCAPSULATED:
        raise HeaderError
    for seed in seeds:
        key = Identity.of_seed(seed).hybrid_private_key
        try:
            yield AGE.decrypt(encapsulated + body, key, AGE_INFO)
        except InvalidTag:
            continue


def _base64(text: str) -> bytes:
    """Return what unpadded, canonical Base64 stands for."""
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise HeaderError from None
    if base64.b64encode(decoded).rstrip(b"=").decode("ascii") != text:
        raise HeaderError
    return decoded


def _seed(identity: str) -> bytes:
    """Return the seed in a Bech32 identity; its checksum is not looked at."""
    alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    data = identity.lower().rpartition("1")[2][:-6]
    bits = "".join(f"{alphabet.index(letter):05b}" for letter in data)
    whole = bits[: len(bits) // 8 * 8]
    return bytes(int(whole[i : i + 8], 2) for i in range(0, len(whole), 8))
