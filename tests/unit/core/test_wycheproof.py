"""The primitives of the seal against vectors of C2SP/wycheproof, which nobody here made.

Every vector is run. What the library does not do at all is left out by name, and counted.
Only an error that the library itself raises is a refusal; another value than the
vector's is a failure, whatever was expected.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, mlkem, x25519
from cryptography.hazmat.primitives.ciphers import aead
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

pytestmark = pytest.mark.data

Vector = dict[str, Any]
OCTETS = re.compile("(?:[0-9a-f]{2})*")


class Check(NamedTuple):
    """Does what a vector says, of a group and one of its vectors."""

    does: Callable[[Vector, Vector], None]
    refuses_with: tuple[type[Exception], ...]


class LeftOut(Exception):  # noqa: N818 it is no error
    """The library has nothing that does this; the message says what."""


def sealed(cipher: type[Any]) -> Check:
    def does(group: Vector, v: Vector) -> None:
        assert group["tagSize"] == 128
        key, nonce, aad = cipher(raw(v, "key")), raw(v, "iv"), raw(v, "aad")
        ct = raw(v, "ct") + raw(v, "tag")
        if v["result"] == "valid" and len(nonce) not in range(8, 129):
            with pytest.raises(ValueError, match="Nonce"):
                key.decrypt(nonce, ct, aad)
            raise LeftOut("nonces below 64 or beyond 1024 bits")
        assert key.decrypt(nonce, ct, aad) == raw(v, "msg")
        assert key.encrypt(nonce, raw(v, "msg"), aad) == ct

    return Check(does, (InvalidTag, ValueError))


def wrapped(
    wrap: Callable[[bytes, bytes], bytes], unwrap: Callable[[bytes, bytes], bytes]
) -> Check:
    def does(_: Vector, v: Vector) -> None:
        key, msg = raw(v, "key"), raw(v, "msg")
        if {"EmptyKey", "WrongDataSize"} & set(v["flags"]):
            with pytest.raises(ValueError, match="to wrap"):
                wrap(key, msg)
        assert unwrap(key, raw(v, "ct")) == msg
        assert wrap(key, msg) == raw(v, "ct")

    return Check(does, (keywrap.InvalidUnwrap,))


def derived(algorithm: hashes.HashAlgorithm) -> Check:
    def does(_: Vector, v: Vector) -> None:
        hkdf = HKDF(algorithm, v["size"], salt=raw(v, "salt"), info=raw(v, "info"))
        assert hkdf.derive(raw(v, "ikm")) == raw(v, "okm")

    return Check(does, (ValueError,))


def authenticated(algorithm: hashes.HashAlgorithm) -> Check:
    def does(group: Vector, v: Vector) -> None:
        mac = HMAC(raw(v, "key"), algorithm)
        mac.update(raw(v, "msg"))
        size = group["tagSize"] // 8
        if size == algorithm.digest_size:
            mac.verify(raw(v, "tag"))
        elif mac.finalize()[:size] != raw(v, "tag"):  # cutting is left to the caller
            raise InvalidSignature

    return Check(does, (InvalidSignature,))


def x25519_agreed(_: Vector, v: Vector) -> None:
    private = x25519.X25519PrivateKey.from_private_bytes(raw(v, "private"))
    public = x25519.X25519PublicKey.from_public_bytes(raw(v, "public"))
    assert private.exchange(public) == raw(v, "shared")


def p256_agreed(_: Vector, v: Vector) -> None:
    private = ec.derive_private_key(int(v["private"], 16), ec.SECP256R1())
    public = serialization.load_der_public_key(raw(v, "public"))
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert private.exchange(ec.ECDH(), public) == raw(v, "shared")


def ecdsa_signed(algorithm: hashes.HashAlgorithm) -> Check:
    def does(group: Vector, v: Vector) -> None:
        key = serialization.load_der_public_key(raw(group, "publicKeyDer"))
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(raw(v, "sig"), raw(v, "msg"), ec.ECDSA(algorithm))

    return Check(does, (InvalidSignature,))


def ed25519_signed(group: Vector, v: Vector) -> None:
    key = raw(group["publicKey"], "pk")
    public = ed25519.Ed25519PublicKey.from_public_bytes(key)
    public.verify(raw(v, "sig"), raw(v, "msg"))


def mldsa_verified(group: Vector, v: Vector) -> None:
    public = mldsa.MLDSA65PublicKey.from_public_bytes(raw(group, "publicKey"))
    if "msg" in v:
        context = raw(v, "ctx") if "ctx" in v else None
        public.verify(raw(v, "sig"), raw(v, "msg"), context)
    if "mu" in v:
        public.verify_mu(raw(v, "sig"), raw(v, "mu"))


def mldsa_signed(group: Vector, v: Vector) -> None:
    """Signing is hedged, so the vector's signature is verified, and one of our own."""
    private = mldsa.MLDSA65PrivateKey.from_seed_bytes(raw(group, "privateSeed"))
    assert private.public_key().public_bytes_raw() == raw(group, "publicKey")
    if "msg" in v:
        context = raw(v, "ctx") if "ctx" in v else None
        ours = private.sign(raw(v, "msg"), context)
        private.public_key().verify(ours, raw(v, "msg"), context)
    if "mu" in v:
        private.public_key().verify_mu(private.sign_mu(raw(v, "mu")), raw(v, "mu"))
    mldsa_verified(group, v)


def mldsa_expanded(group: Vector, v: Vector) -> None:
    """With such a key nothing is signed here; that the signature is one is seen."""
    if v["result"] == "valid":
        mldsa_verified(group, v)
    raise LeftOut("private keys without their seed")


def mlkem_encapsulated(_: Vector, v: Vector) -> None:
    """With chosen chance nothing is encapsulated here; whether the key is one is seen."""
    public = mlkem.MLKEM768PublicKey.from_public_bytes(raw(v, "ek"))
    assert v["result"] == "valid"
    assert [len(part) for part in public.encapsulate()] == [32, 1088]
    raise LeftOut("encapsulating with chosen chance")


def mlkem_made(_: Vector, v: Vector) -> None:
    private = mlkem.MLKEM768PrivateKey.from_seed_bytes(raw(v, "seed"))
    assert private.public_key().public_bytes_raw() == raw(v, "ek")


def mlkem_decapsulated(_: Vector, v: Vector) -> None:
    private = mlkem.MLKEM768PrivateKey.from_seed_bytes(raw(v, "seed"))
    assert private.public_key().public_bytes_raw() == raw(v, "ek")
    assert private.decapsulate(raw(v, "c")) == raw(v, "K")


def mlkem_expanded(_: Vector, __: Vector) -> None:
    raise LeftOut("private keys without their seed")


CHECKS: dict[str, Check] = {
    "aes_gcm": sealed(aead.AESGCM),
    "aes_gcm_siv": sealed(aead.AESGCMSIV),
    "chacha20_poly1305": sealed(aead.ChaCha20Poly1305),
    "aes_wrap": wrapped(keywrap.aes_key_wrap, keywrap.aes_key_unwrap),
    "aes_kwp": wrapped(
        keywrap.aes_key_wrap_with_padding, keywrap.aes_key_unwrap_with_padding
    ),
    "hkdf_sha256": derived(hashes.SHA256()),
    "hkdf_sha512": derived(hashes.SHA512()),
    "hmac_sha256": authenticated(hashes.SHA256()),
    "hmac_sha512": authenticated(hashes.SHA512()),
    "x25519": Check(x25519_agreed, (ValueError,)),
    "ecdh_secp256r1": Check(p256_agreed, (ValueError, UnsupportedAlgorithm)),
    "ecdsa_secp256r1_sha256": ecdsa_signed(hashes.SHA256()),
    "ecdsa_secp384r1_sha384": ecdsa_signed(hashes.SHA384()),
    "ed25519": Check(ed25519_signed, (InvalidSignature,)),
    "mldsa_65_verify": Check(mldsa_verified, (InvalidSignature, ValueError)),
    "mldsa_65_sign_seed": Check(mldsa_signed, (ValueError,)),
    "mldsa_65_sign_noseed": Check(mldsa_expanded, ()),
    "mlkem_768": Check(mlkem_decapsulated, (ValueError,)),
    "mlkem_768_encaps": Check(mlkem_encapsulated, (ValueError,)),
    "mlkem_768_keygen_seed": Check(mlkem_made, ()),
    "mlkem_768_semi_expanded_decaps": Check(mlkem_expanded, ()),
}
LEFT_OUT: dict[str, dict[str, int]] = {
    "aes_gcm": {"nonces below 64 or beyond 1024 bits": 27},
    "mldsa_65_sign_noseed": {"private keys without their seed": 78},
    "mlkem_768_encaps": {"encapsulating with chosen chance": 133},
    "mlkem_768_semi_expanded_decaps": {"private keys without their seed": 9},
}
"""How many vectors of each file, and why."""
ACCEPTABLE: dict[str, set[str]] = {
    "aes_wrap": {"ShortKey"},
    "ecdh_secp256r1": {
        "CompressedPoint",
        "CompressedPublic",
        "InvalidAsn",
        "ModifiedCofactor",
        "ModifiedCurveParameter",
        "ModifiedGenerator",
        "NoCofactor",
        "UnnamedCurve",
        "UnusedParam",
        "WrongOrder",
    },
    "x25519": {
        "EdgeCaseMultiplication",
        "EdgeCaseShared",
        "Ktv",
        "LowOrderPublic",
        "NonCanonicalPublic",
        "SmallPublicKey",
        "SpecialPublicKey",
        "Twist",
        "ZeroSharedSecret",
    },
}
"""Flags of the vectors that may work or be refused, but not come to another value."""
MAY_WORK = {"valid": {True}, "invalid": {False}, "acceptable": {True, False}}


@pytest.mark.parametrize("name", CHECKS)
def test_every_vector_of_a_file_comes_out_as_it_says(name: str, shared: Path) -> None:
    left_out: Counter[str] = Counter()
    flags: set[str] = set()
    for group in vectors(shared, name):
        for vector in group["tests"]:
            told = f"{vector['tcId']}: {vector.get('comment')}"
            if vector["result"] == "acceptable":
                flags |= set(vector["flags"])
            try:
                worked = works(CHECKS[name], group, vector)
            except LeftOut as reason:
                left_out[str(reason)] += 1
            except AssertionError as wrong:
                wrong.add_note(told)
                raise
            else:
                assert worked in MAY_WORK[vector["result"]], told
    assert dict(left_out) == LEFT_OUT.get(name, {})
    assert flags == ACCEPTABLE.get(name, set())


def test_x25519_agrees_on_no_zeros(shared: Path) -> None:
    """Wycheproof lets that pass; HPKE does not (RFC 9180, 7.1.4)."""
    zeros = [
        vector
        for group in vectors(shared, "x25519")
        for vector in group["tests"]
        if not any(raw(vector, "shared"))
    ]
    assert len(zeros) == 31
    assert not any(works(CHECKS["x25519"], {}, vector) for vector in zeros)


def test_at_least_four_thousand_vectors_were_run(shared: Path) -> None:
    there = {f.stem.removesuffix("_test") for f in folder(shared).glob("*.json")}
    assert set(CHECKS) == there
    groups = [group for name in there for group in vectors(shared, name)]
    left_out = sum(sum(why.values()) for why in LEFT_OUT.values())
    assert sum(len(group["tests"]) for group in groups) - left_out >= 4000


def works(check: Check, group: Vector, vector: Vector) -> bool:
    try:
        check.does(group, vector)
    except check.refuses_with:
        return False
    return True


def vectors(shared: Path, name: str) -> list[Vector]:
    values = json.loads((folder(shared) / f"{name}_test.json").read_text("utf-8"))
    groups: list[Vector] = values["testGroups"]
    assert sum(len(group["tests"]) for group in groups) == values["numberOfTests"]
    return groups


def folder(shared: Path) -> Path:
    return shared / "vectors" / "wycheproof"


def raw(vector: Vector, name: str) -> bytes:
    """A vector that cannot be read is a failure, and no refusal."""
    assert OCTETS.fullmatch(vector[name]), name
    return bytes.fromhex(vector[name])
