"""One record never gives two payloads, whatever its maker put into it.

AES-GCM does not commit to a key: one ciphertext with one tag can open under two keys, to
two different things (Dodis et al., 2018, "Fast Message Franking", section 3). A trusted
gateway that was broken into could show the recovery key one image and a recipient
another. The record's commitment is to one object key, so it cannot.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from miadmark_core.errors import Layer, SealError
from miadmark_core.sealing import seal as sealing
from miadmark_core.sealing.seal import unseal
from miadmark_core.sealing.stanza import Opener
from miadmark_core.sealing.suites import SUITES, Suite
from tests.record_writer import (
    ALL,
    CONTEXT,
    EPOCH,
    RECIPIENT,
    RECOVERY,
    TRUSTED,
    Draft,
    always,
    at,
    nonce,
)

HOLDERS: tuple[Opener, ...] = (EPOCH, RECOVERY, RECIPIENT)
KEY, OTHER_KEY = b"\x0b" * 32, b"\x0c" * 32
PAIRS = [(i, j) for i in range(3) for j in range(3) if i != j]

suites = pytest.mark.parametrize("suite", SUITES.values(), ids=["classical", "hybrid"])
pairs = pytest.mark.parametrize(("right", "wrong"), PAIRS)


def times(x: int, y: int) -> int:
    """Return the product in GCM's field (NIST SP 800-38D, 6.3)."""
    product = 0
    for bit in range(127, -1, -1):
        if y >> bit & 1:
            product ^= x
        x = x >> 1 ^ (0xE1 << 120 if x & 1 else 0)
    return product


def inverse(x: int) -> int:
    """Return ``x`` to the power of 2^128 - 2."""
    result = 1 << 127
    for _ in range(127):
        x = times(x, x)
        result = times(result, x)
    return result


def block(key: bytes, counter: bytes) -> int:
    cipher = Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor()
    return int.from_bytes(cipher.update(bytes(16)))


def opens_under_both(one: bytes, other: bytes, iv: bytes) -> bytes:
    """Return a block of ciphertext and its tag, valid under two keys.

    A tag is ``C H^2 + L H + E(iv)``. Equal under both keys, that is one linear equation
    for the block ``C``.
    """
    h, g = block(one, bytes(16)), block(other, bytes(16))
    first, second = (block(key, iv + b"\0\0\0\1") for key in (one, other))
    length = times(128, h ^ g)
    crafted = times(length ^ first ^ second, inverse(times(h, h) ^ times(g, g)))
    tag = times(crafted, times(h, h)) ^ times(128, h) ^ first
    return crafted.to_bytes(16) + tag.to_bytes(16)


def two_faced(suite: Suite, wrong: int) -> Draft:
    """Return a record of one object key, whose stanza ``wrong`` holds another one.

    The payload opens under both, and everything else is as the gateway should make it.
    """
    draft = Draft(suite=suite, object_key=KEY)
    other = replace(draft, object_key=OTHER_KEY)
    (stanza,) = other.wrapped(ALL[wrong])
    crafted = opens_under_both(
        draft.true_keys.encryption,
        other.true_keys.encryption,
        nonce(0, is_last=True),
    )
    return replace(draft, stanzas=at(wrong, always(stanza)), cut=always([crafted]))


def opened(draft: Draft, *openers: Opener) -> bytes:
    return unseal(draft.record, CONTEXT, openers=openers, trusted=TRUSTED)


@suites
def test_a_ciphertext_can_open_under_two_keys(suite: Suite) -> None:
    sealed = two_faced(suite, 2).record.payload
    plain = {
        AESGCM(Draft(suite=suite, object_key=key).true_keys.encryption).decrypt(
            nonce(0, is_last=True), sealed, None
        )
        for key in (KEY, OTHER_KEY)
    }
    assert len(plain) == 2


@suites
@pairs
def test_a_record_of_two_object_keys_opens_to_one_payload(
    suite: Suite, right: int, wrong: int
) -> None:
    draft = two_faced(suite, wrong)
    payload = opened(draft, HOLDERS[right])
    with pytest.raises(SealError) as caught:
        opened(draft, HOLDERS[wrong])
    assert caught.value.layer is Layer.COMMITMENT
    # Whoever holds both keys has them tried one after another, and gets the same.
    assert opened(draft, HOLDERS[right], HOLDERS[wrong]) == payload
    with pytest.raises(SealError) as caught:
        opened(draft, HOLDERS[wrong], HOLDERS[right])
    assert caught.value.layer is Layer.COMMITMENT


@suites
@pytest.mark.parametrize("wrong", range(3))
def test_without_the_commitment_the_authentication_still_refuses(
    suite: Suite, wrong: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "require_commitment", lambda *_: None)
    with pytest.raises(SealError) as caught:
        opened(two_faced(suite, wrong), HOLDERS[wrong])
    assert caught.value.layer is Layer.AUTHENTICATION


@suites
@pairs
def test_without_both_the_record_would_show_two_faces(
    suite: Suite, right: int, wrong: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "require_commitment", lambda *_: None)
    monkeypatch.setattr(sealing, "require_authentication", lambda *_: None)
    draft = two_faced(suite, wrong)
    assert opened(draft, HOLDERS[right]) != opened(draft, HOLDERS[wrong])
