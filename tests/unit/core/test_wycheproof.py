"""The primitives of the seal against vectors of C2SP/wycheproof, which nobody here made.

Every vector is run. What the library does not do at all is left out by name, and counted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, mlkem, x25519
from cryptography.hazmat.primitives.ciphers import aead
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

pytestmark = pytest.mark.data

Vector = dict[str, Any]
REFUSALS = (
    InvalidTag,
    InvalidSignature,
    UnsupportedAlgorithm,
    ValueError,
    keywrap.InvalidUnwrap,
)


class LeftOut(Exception):  # noqa: N818 it is no error
    """The library has nothing that does this; the message says what."""


def sealed(cipher: type[Any]) -> Callable[[Vector, Vector], object]:
    def check(group: Vector, v: Vector) -> object:
        nonce, tag = raw(v, "iv"), raw(v, "tag")
        if group["tagSize"] != 128:
            raise LeftOut("tags of other lengths")
        if v["result"] == "valid" and len(nonce) not in range(8, 129):
            raise LeftOut("nonces below 64 or beyond 1024 bits")
        key = cipher(raw(v, "key"))
        assert key.decrypt(nonce, raw(v, "ct") + tag, raw(v, "aad")) == raw(v, "msg")
        return key.encrypt(nonce, raw(v, "msg"), raw(v, "aad")) == raw(v, "ct") + tag

    return check


def wrapped(
    wrap: Callable[[bytes, bytes], bytes], unwrap: Callable[[bytes, bytes], bytes]
) -> Callable[[Vector, Vector], object]:
    def check(_: Vector, v: Vector) -> object:
        key, ct = raw(v, "key"), raw(v, "ct")
        assert unwrap(key, ct) == raw(v, "msg")
        return wrap(key, raw(v, "msg")) == ct

    return check


def derived(algorithm: hashes.HashAlgorithm) -> Callable[[Vector, Vector], object]:
    def check(_: Vector, v: Vector) -> object:
        hkdf = HKDF(algorithm, v["size"], salt=raw(v, "salt"), info=raw(v, "info"))
        return hkdf.derive(raw(v, "ikm")) == raw(v, "okm")

    return check


def authenticated(
    algorithm: hashes.HashAlgorithm,
) -> Callable[[Vector, Vector], object]:
    def check(group: Vector, v: Vector) -> object:
        mac = HMAC(raw(v, "key"), algorithm)
        mac.update(raw(v, "msg"))
        return mac.finalize()[: group["tagSize"] // 8] == raw(v, "tag")

    return check


def x25519_agreed(_: Vector, v: Vector) -> object:
    private = x25519.X25519PrivateKey.from_private_bytes(raw(v, "private"))
    public = x25519.X25519PublicKey.from_public_bytes(raw(v, "public"))
    return private.exchange(public) == raw(v, "shared")


def p256_agreed(_: Vector, v: Vector) -> object:
    private = ec.derive_private_key(int(v["private"], 16), ec.SECP256R1())
    public = serialization.load_der_public_key(raw(v, "public"))
    assert isinstance(public, ec.EllipticCurvePublicKey)
    return private.exchange(ec.ECDH(), public) == raw(v, "shared")


def ecdsa_signed(algorithm: hashes.HashAlgorithm) -> Callable[[Vector, Vector], object]:
    def check(group: Vector, v: Vector) -> object:
        key = serialization.load_der_public_key(raw(group, "publicKeyDer"))
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(raw(v, "sig"), raw(v, "msg"), ec.ECDSA(algorithm))
        return True

    return check


def ed25519_signed(group: Vector, v: Vector) -> object:
    key = bytes.fromhex(group["publicKey"]["pk"])
    public = ed25519.Ed25519PublicKey.from_public_bytes(key)
    public.verify(raw(v, "sig"), raw(v, "msg"))
    return True


def mldsa_verified(group: Vector, v: Vector) -> object:
    public = mldsa.MLDSA65PublicKey.from_public_bytes(raw(group, "publicKey"))
    context = raw(v, "ctx") if "ctx" in v else None
    public.verify(raw(v, "sig"), raw(v, "msg"), context)
    return True


def mldsa_signed(group: Vector, v: Vector) -> object:
    """Signing is hedged, so the vector's signature is verified, and one of our own."""
    if "msg" not in v:
        raise LeftOut("signing without the message, by its mu alone")
    private = mldsa.MLDSA65PrivateKey.from_seed_bytes(raw(group, "privateSeed"))
    public, context = private.public_key(), raw(v, "ctx") if "ctx" in v else None
    assert public.public_bytes_raw() == raw(group, "publicKey")
    public.verify(private.sign(raw(v, "msg"), context), raw(v, "msg"), context)
    public.verify(raw(v, "sig"), raw(v, "msg"), context)
    return True


def mldsa_expanded(_: Vector, __: Vector) -> object:
    raise LeftOut("private keys without their seed")


def mlkem_encapsulated(_: Vector, v: Vector) -> object:
    """With chosen chance nothing is encapsulated here; whether the key is one is seen."""
    mlkem.MLKEM768PublicKey.from_public_bytes(raw(v, "ek"))
    if v["result"] == "valid":
        raise LeftOut("encapsulating with chosen chance")
    return True


def mlkem_made(_: Vector, v: Vector) -> object:
    private = mlkem.MLKEM768PrivateKey.from_seed_bytes(raw(v, "seed"))
    return private.public_key().public_bytes_raw() == raw(v, "ek")


def mlkem_decapsulated(_: Vector, v: Vector) -> object:
    private = mlkem.MLKEM768PrivateKey.from_seed_bytes(raw(v, "seed"))
    assert private.public_key().public_bytes_raw() == raw(v, "ek")
    return private.decapsulate(raw(v, "c")) == raw(v, "K")


def mlkem_expanded(_: Vector, __: Vector) -> object:
    raise LeftOut("private keys without their seed")


CHECKS: dict[str, Callable[[Vector, Vector], object]] = {
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
    "x25519": x25519_agreed,
    "ecdh_secp256r1": p256_agreed,
    "ecdsa_secp256r1_sha256": ecdsa_signed(hashes.SHA256()),
    "ecdsa_secp384r1_sha384": ecdsa_signed(hashes.SHA384()),
    "ed25519": ed25519_signed,
    "mldsa_65_verify": mldsa_verified,
    "mldsa_65_sign_seed": mldsa_signed,
    "mldsa_65_sign_noseed": mldsa_expanded,
    "mlkem_768": mlkem_decapsulated,
    "mlkem_768_encaps": mlkem_encapsulated,
    "mlkem_768_keygen_seed": mlkem_made,
    "mlkem_768_semi_expanded_decaps": mlkem_expanded,
}
LEFT_OUT: dict[str, dict[str, int]] = {
    "aes_gcm": {"nonces below 64 or beyond 1024 bits": 27},
    "mldsa_65_sign_seed": {"signing without the message, by its mu alone": 17},
    "mldsa_65_sign_noseed": {"private keys without their seed": 78},
    "mlkem_768_encaps": {"encapsulating with chosen chance": 133},
    "mlkem_768_semi_expanded_decaps": {"private keys without their seed": 9},
}
"""How many vectors of each file, and why."""


@pytest.mark.parametrize("name", CHECKS)
def test_every_vector_of_a_file_comes_out_as_it_says(name: str, shared: Path) -> None:
    groups = vectors(shared, name)
    left_out: Counter[str] = Counter()
    for group in groups:
        for vector in group["tests"]:
            try:
                holds = came_out(CHECKS[name], group, vector)
            except LeftOut as reason:
                left_out[str(reason)] += 1
                continue
            wanted = {"valid": {True}, "invalid": {False}}.get(
                vector["result"], {True, False}
            )
            assert holds in wanted, (vector["tcId"], vector.get("comment"))
    assert dict(left_out) == LEFT_OUT.get(name, {})


def test_at_least_four_thousand_vectors_were_run(shared: Path) -> None:
    counted = {
        name: sum(len(group["tests"]) for group in vectors(shared, name))
        for name in CHECKS
    }
    there = {f.stem.removesuffix("_test") for f in folder(shared).glob("*.json")}
    assert set(CHECKS) == there
    left_out = sum(count for why in LEFT_OUT.values() for count in why.values())
    assert sum(counted.values()) - left_out >= 4000


def came_out(
    check: Callable[[Vector, Vector], object], group: Vector, vector: Vector
) -> bool:
    try:
        return bool(check(group, vector))
    except (*REFUSALS, AssertionError):
        return False


def vectors(shared: Path, name: str) -> list[Vector]:
    values = json.loads((folder(shared) / f"{name}_test.json").read_text("utf-8"))
    groups: list[Vector] = values["testGroups"]
    assert sum(len(group["tests"]) for group in groups) == values["numberOfTests"]
    return groups


def folder(shared: Path) -> Path:
    return shared / "vectors" / "wycheproof"


def raw(vector: Vector, name: str) -> bytes:
    return bytes.fromhex(vector[name])
