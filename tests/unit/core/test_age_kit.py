"""Our expansion of a seed against age's kit for its hybrid recipient (C2SP, CCTV).

What reads an age file here follows C2SP's age.md as far as the kit goes: no passphrases,
and X25519 stanzas are looked at but not opened. The hybrid stanza opens with the private
key of :class:`~miadmark_core.sealing.recipients.Identity`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import zlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from miadmark_core.sealing.recipients import Identity
from tests.record_writer import flipped

pytestmark = pytest.mark.data

HYBRID = hpke.Suite(
    hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305
)
INFO = b"age-encryption.org/mlkem768x25519"
MLKEM_CIPHERTEXT, SHARE, FILE_KEY, TAG = 1088, 32, 16, 16
CHUNK = 64 * 1024
PREFIX = "age-secret-key-pq-"
BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


class HeaderError(Exception):
    """The header is not as it has to be."""


class NoMatchError(Exception):
    """No stanza opens for the identity."""


class MacError(Exception):
    """The header is not what the file key authenticates."""


class PayloadError(Exception):
    """The payload is not what the file key opens."""


class ArmorError(Exception):
    """The text around the file is not as it has to be."""


OUTCOMES: dict[type[Exception], str] = {
    HeaderError: "header failure",
    NoMatchError: "no match",
    MacError: "HMAC failure",
    PayloadError: "payload failure",
    ArmorError: "armor failure",
}
"""In the words of the kit."""


class Told(NamedTuple):
    """What a file of the kit says, and the age file in it."""

    expect: str
    seeds: list[bytes]
    file_key: bytes
    payload: str
    """SHA-256, in hexadecimal."""
    has_x25519: bool
    content: bytes


class Stanza(NamedTuple):
    """One of a header."""

    arguments: list[str]
    body: bytes


class AgeFile(NamedTuple):
    """Header up to its authentication, what authenticates it, stanzas, payload."""

    authenticated: bytes
    mac: bytes
    stanzas: list[Stanza]
    payload: bytes


def test_every_file_of_the_kit_comes_out_as_it_says(shared: Path) -> None:
    came_out: Counter[str] = Counter()
    for file in files(shared):
        told = read(file)
        outcome = came_to(told, told.content)
        assert outcome == told.expect, file.name
        came_out[outcome] += 1
    assert came_out == {"success": 5, "header failure": 9, "no match": 5}


def test_shares_that_agree_on_zeros_do_not_open(shared: Path) -> None:
    """Both stanzas are sealed to the zeros, so nothing else stands against them."""
    for name in ("hybrid_identity", "hybrid_low_order"):
        told = read(folder(shared) / name)
        (stanza,) = parsed(told.content).stanzas
        key = Identity.of_seed(told.seeds[0]).hybrid_private_key
        with pytest.raises(InvalidTag):
            HYBRID.decrypt(unpadded(stanza.arguments[1]) + stanza.body, key, INFO)


def test_another_seed_matches_nothing(shared: Path) -> None:
    told = read(folder(shared) / "hybrid")
    other = told._replace(seeds=[flipped(-1)(told.seeds[0])])
    assert came_to(other, other.content) == "no match"


def test_what_a_file_key_authenticates_cannot_be_changed(shared: Path) -> None:
    """The kit bends neither; a reader that looked at neither would pass it."""
    told = read(folder(shared) / "hybrid_grease")
    grease = told.content.index(b"grease")
    assert came_to(told, flipped(grease)(told.content)) == "HMAC failure"
    assert came_to(told, flipped(-1)(told.content)) == "payload failure"


def came_to(told: Told, content: bytes) -> str:
    try:
        age = parsed(content)
        file_key = file_key_of(age, told)
        assert file_key == told.file_key
        payload = opened(age, file_key)
    except tuple(OUTCOMES) as failure:
        return OUTCOMES[type(failure)]
    assert hashlib.sha256(payload).hexdigest() == told.payload
    return "success"


def folder(shared: Path) -> Path:
    return shared / "vectors" / "age-hybrid"


def files(shared: Path) -> list[Path]:
    found = sorted(folder(shared).iterdir())
    assert len(found) == 19
    return found


def read(file: Path) -> Told:
    head, _, content = file.read_bytes().partition(b"\n\n")
    lines = [line.split(": ", 1) for line in head.decode("utf-8").splitlines()]
    says = dict(lines)
    identities = [value.lower() for name, value in lines if name == "identity"]
    if "compressed" in says:
        content = zlib.decompress(content)
    if "armored" in says:
        content = dearmored(content.decode("ascii"))
    hybrid = [i for i in identities if i.startswith(PREFIX)]
    return Told(
        says["expect"],
        [seed(identity) for identity in hybrid],
        bytes.fromhex(says["file key"]),
        says.get("payload", ""),
        hybrid != identities,
        content,
    )


def seed(identity: str) -> bytes:
    """Return what a Bech32 identity stands for (BIP 173)."""
    prefix, _, data = identity.rpartition("1")
    assert prefix + "1" == PREFIX + "1"
    values = [BECH32.index(letter) for letter in data]
    checksum = 1
    spread = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    for value in spread + values:
        top, checksum = checksum >> 25, (checksum & 0x1FFFFFF) << 5 ^ value
        for i, term in enumerate(
            (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
        ):
            checksum ^= term * (top >> i & 1)
    assert checksum == 1
    bits = "".join(f"{value:05b}" for value in values[:-6])
    return bytes(int(bits[i : i + 8], 2) for i in range(0, 256, 8))


def dearmored(text: str) -> bytes:
    found = re.fullmatch(
        r"-----BEGIN AGE ENCRYPTED FILE-----\n"
        r"((?:[A-Za-z0-9+/]{64}\n)*(?:[A-Za-z0-9+/=]{1,64}\n))"
        r"-----END AGE ENCRYPTED FILE-----\n?",
        text,
    )
    if found is None:
        raise ArmorError
    return base64.b64decode(found[1].replace("\n", ""), validate=True)


def parsed(content: bytes) -> AgeFile:
    header = re.match(
        rb"age-encryption\.org/v1\n"
        rb"((?:-> [\x21-\x7e]+(?: [\x21-\x7e]+)*\n"
        rb"(?:[A-Za-z0-9+/]{64}\n)*[A-Za-z0-9+/]{0,63}\n)+)"
        rb"--- ([A-Za-z0-9+/]{43})\n",
        content,
    )
    if header is None:
        raise HeaderError
    stanzas = []
    for one in re.split(r"^-> ", header[1].decode("ascii"), flags=re.MULTILINE)[1:]:
        arguments, _, body = one.partition("\n")
        stanzas.append(Stanza(arguments.split(" "), unpadded(body.replace("\n", ""))))
    return AgeFile(
        content[: header.start(2) - 1],
        unpadded(header[2].decode("ascii")),
        stanzas,
        content[header.end() :],
    )


def unpadded(text: str) -> bytes:
    """Return what unpadded, canonical Base64 stands for."""
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise HeaderError from None
    if base64.b64encode(decoded).rstrip(b"=").decode("ascii") != text:
        raise HeaderError
    return decoded


def file_key_of(age: AgeFile, told: Told) -> bytes:
    found = []
    for stanza in age.stanzas:
        match stanza.arguments:
            case ["mlkem768x25519", *more]:
                sealed = encapsulated(stanza, more, MLKEM_CIPHERTEXT + SHARE)
                found += [key for s in told.seeds if (key := unwrapped(sealed, s))]
            case ["X25519", *more] if told.has_x25519:
                encapsulated(stanza, more, SHARE)
    if not found:
        raise NoMatchError
    return found[0]


def encapsulated(stanza: Stanza, more: list[str], size: int) -> bytes:
    """Return a stanza's share and body, once both are what they have to be."""
    if len(more) != 1 or len(stanza.body) != FILE_KEY + TAG:
        raise HeaderError
    share = unpadded(more[0])
    if len(share) != size:
        raise HeaderError
    try:  # a share of low order agrees on zeros with every key
        X25519PrivateKey.generate().exchange(
            X25519PublicKey.from_public_bytes(share[-SHARE:])
        )
    except ValueError:
        raise HeaderError from None
    return share + stanza.body


def unwrapped(sealed: bytes, seed: bytes) -> bytes | None:
    try:
        return HYBRID.decrypt(sealed, Identity.of_seed(seed).hybrid_private_key, INFO)
    except InvalidTag:
        return None


def opened(age: AgeFile, file_key: bytes) -> bytes:
    mac_key = HKDF(SHA256(), 32, salt=None, info=b"header").derive(file_key)
    if not hmac.compare_digest(
        hmac.digest(mac_key, age.authenticated, "sha256"), age.mac
    ):
        raise MacError
    nonce, sealed = age.payload[:16], age.payload[16:]
    key = HKDF(SHA256(), 32, salt=nonce, info=b"payload").derive(file_key)
    assert len(sealed) <= CHUNK + TAG  # the kit's are all of one chunk
    try:
        return ChaCha20Poly1305(key).decrypt(bytes(11) + b"\1", sealed, None)
    except InvalidTag:
        raise PayloadError from None
