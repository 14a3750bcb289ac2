"""Records whose maker is trusted and wrong: what only whoever opens them can tell.

A gateway that was broken into signs whatever it is given, so these checks stand behind
its signature: commitment, authentication, payload. Stanzas are in
:mod:`tests.record_stanza_faults`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import replace

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from miadmark_core.errors import Layer
from miadmark_core.sealing.suites import CLASSICAL, HYBRID, Suite
from tests.record_form_faults import Drafts
from tests.record_writer import (
    CHUNK,
    EPOCH,
    OTHER_RECIPIENT,
    PAYLOAD,
    RECOVERY,
    Case,
    Draft,
    Fields,
    Turn,
    always,
    at,
    body,
    chunks,
    field,
    flipped,
    hkdf,
    label,
    nonce,
    put,
    stanza_field,
)

LARGE = bytes(range(256)) * 600
"""A payload of three chunks."""


def secret_faults(suite: Suite) -> Iterator[Case]:
    """Yield cases that look right to everyone who cannot open them."""
    for layer, drafts in (
        (Layer.COMMITMENT, _commitments(suite)),
        (Layer.AUTHENTICATION, _authentications(suite) | _unauthenticated(suite)),
        (Layer.PAYLOAD, _chunks(suite) | _keys(suite)),
    ):
        for name, draft in drafts.items():
            yield Case(name=name, draft=draft, layer=layer)
    base = Draft(suite=suite)
    (stranger,) = base.wrapped(OTHER_RECIPIENT.recipient)
    yield Case(
        name="signed again, the recipient's stanza given to a stranger",
        draft=replace(base, vouched=at(12, always(stanza_field(stranger)))),
        layer=Layer.AUTHENTICATION,
        by=((EPOCH,), (RECOVERY,), (OTHER_RECIPIENT,)),
    )


def _commitments(suite: Suite) -> Drafts:
    base, other = Draft(suite=suite), Draft(suite=suite, object_key=b"\x0c" * 32)
    elsewhere = Draft(suite=suite, record_id=b"\x02" * 16)
    key, salt, binding = base.object_key, base.record_id, base.binding
    seal = label(suite.number, "seal")
    values = {
        "with a bit flipped": flipped(0)(base.true_keys.commitment),
        "with its last bit flipped": flipped(-1, 7)(base.true_keys.commitment),
        "of zeros": bytes(32),
        "to another object key": other.true_keys.commitment,
        "of another record": elsewhere.true_keys.commitment,
        "that is the encryption key": base.true_keys.encryption,
        "that is the authentication key": base.true_keys.authentication,
        "that is a digest of the object key": hashlib.sha256(key).digest(),
        "without a salt": hkdf(key, b"", seal + binding, 96)[64:],
        "without a label": hkdf(key, salt, binding, 96)[64:],
        "bound to nothing": hkdf(key, salt, seal, 96)[64:],
        "with the other suite's label": hkdf(
            key, salt, label(_other(suite).number, "seal") + binding, 96
        )[64:],
        "for another purpose": hkdf(
            key, salt, label(suite.number, "stanza") + binding, 96
        )[64:],
    }
    drafts = {
        f"a commitment {name}": replace(base, commitment=always(value))
        for name, value in values.items()
    }
    drafts["all keys of another object key"] = replace(
        base, keys=always(other.true_keys)
    )
    drafts["all keys of another record"] = replace(
        base, keys=always(elsewhere.true_keys)
    )
    return drafts


def _other(suite: Suite) -> Suite:
    return CLASSICAL if suite is HYBRID else HYBRID


def _authentications(suite: Suite) -> Drafts:
    base, other = Draft(suite=suite), Draft(suite=suite, record_id=b"\x02" * 16)
    header = base.record.header
    keys, signed_from = base.true_keys, len(header) - len(base.parts[-1])
    covered = header[: signed_from - len(base.parts[-2])]
    switched = hkdf(
        base.object_key,
        base.record_id,
        label(_other(suite).number, "seal") + base.binding,
        96,
    )

    def mac(key: bytes, message: bytes) -> bytes:
        return hmac.digest(key, message, "sha256")

    right = mac(keys.authentication, covered)
    values = {
        "with a bit flipped": flipped(0)(right),
        "with its last bit flipped": flipped(-1, 7)(right),
        "of zeros": bytes(32),
        "of another record": body(other.parts[-2]),
        "with the encryption key": mac(keys.encryption, covered),
        "with the commitment": mac(keys.commitment, covered),
        "with the object key": mac(base.object_key, covered),
        "with an empty key": mac(b"", covered),
        "with the other suite's key": mac(switched[32:64], covered),
        "over the binding": mac(keys.authentication, base.binding),
        "over nothing": mac(keys.authentication, b""),
        "over all but the stanzas": mac(
            keys.authentication, base.written_start + b"".join(base.parts[:10])
        ),
        "over all but the last stanza": mac(
            keys.authentication, base.written_start + b"".join(base.parts[:12])
        ),
        "over all but the magic": mac(keys.authentication, covered[8:]),
        "over its own head too": mac(keys.authentication, covered + b"\x0c\0\0\0\x20"),
        "of SHA-512": hmac.digest(keys.authentication, covered, "sha512")[:32],
        "of SHA3": hmac.digest(keys.authentication, covered, "sha3_256"),
        "that is a plain digest": hashlib.sha256(covered).digest(),
    }
    return {
        f"an authentication {name}": replace(base, authentication=always(value))
        for name, value in values.items()
    }


def _unauthenticated(suite: Suite) -> Drafts:
    """Return drafts that a gateway changes and signs, without having the object key."""
    base = Draft(suite=suite)
    stranger = stanza_field(base.wrapped(OTHER_RECIPIENT.recipient)[0])
    sealed = chunks(PAYLOAD[::-1], base.true_keys.encryption)[0]
    digest = field(0x09, hashlib.sha256(sealed).digest())
    turns: dict[str, Turn[Fields]] = {
        "a stanza added": lambda f: [*f[:13], stranger, *f[13:]],
    }
    drafts = {name: replace(base, vouched=turn) for name, turn in turns.items()} | {
        "another payload under the same key": replace(
            base,
            vouched=lambda f: put(f, 8, digest),
            payload_carried=always(sealed),
        )
    }
    return {f"signed again, {name}": draft for name, draft in drafts.items()}


def _chunks(suite: Suite) -> Drafts:
    """Return drafts whose chunks are not those of one payload, in order, to the end."""
    base, large = Draft(suite=suite), Draft(suite=suite, payload=LARGE)
    key = base.true_keys.encryption
    other = Draft(suite=suite, payload=LARGE, record_id=b"\x02" * 16)

    def sealed(number: int, piece: bytes, *, is_last: bool) -> bytes:
        return AESGCM(key).encrypt(nonce(number, is_last=is_last), piece, None)

    whole = CHUNK * b"w"
    small: dict[str, list[bytes]] = {
        "none": [],
        "a tag cut short": [chunks(b"", key)[0][:-1]],
        "a payload without a tag": [chunks(PAYLOAD, key)[0][:-16]],
        "one that is not marked last": [sealed(0, PAYLOAD, is_last=False)],
        "one counted from 1": [sealed(1, PAYLOAD, is_last=True)],
        "one marked last by a 2": [
            AESGCM(key).encrypt(bytes(11) + b"\2", PAYLOAD, None)
        ],
        "one with associated data": [
            AESGCM(key).encrypt(nonce(0, is_last=True), PAYLOAD, b"more")
        ],
        "one under a random nonce": [AESGCM(key).encrypt(b"\x5a" * 12, PAYLOAD, None)],
        "a whole one and an empty one": [
            sealed(0, whole, is_last=False),
            sealed(1, b"", is_last=True),
        ],
        "a whole one, not last, alone": [sealed(0, whole, is_last=False)],
        "two that are both last": [
            sealed(0, whole, is_last=True),
            sealed(1, PAYLOAD, is_last=True),
        ],
        "two of which neither is last": [
            sealed(0, whole, is_last=False),
            sealed(1, PAYLOAD, is_last=False),
        ],
        "two, the second counted from 2": [
            sealed(0, whole, is_last=False),
            sealed(2, PAYLOAD, is_last=True),
        ],
        "two of one number": [
            sealed(0, whole, is_last=False),
            sealed(0, PAYLOAD, is_last=True),
        ],
        "two, the first a byte short": [
            sealed(0, whole[1:], is_last=False),
            sealed(1, PAYLOAD, is_last=True),
        ],
        "two, the first a byte long": [
            sealed(0, whole + b"w", is_last=False),
            sealed(1, PAYLOAD, is_last=True),
        ],
        "many of half the size": chunks(LARGE, key, CHUNK // 2),
        "many of twice the size": chunks(LARGE, key, CHUNK * 2),
    }
    turns: dict[str, Turn[list[bytes]]] = {
        "the first flipped": lambda c: [flipped(0)(c[0]), *c[1:]],
        "the last flipped": lambda c: [*c[:-1], flipped(0)(c[-1])],
        "the first's tag flipped": lambda c: [flipped(-1)(c[0]), *c[1:]],
        "the last's tag flipped": lambda c: [*c[:-1], flipped(-1)(c[-1])],
        "the first dropped": lambda c: c[1:],
        "the middle dropped": lambda c: put(c, 1),
        "the last dropped": lambda c: c[:-1],
        "the first two exchanged": lambda c: [c[1], c[0], c[2]],
        "all the other way round": lambda c: c[::-1],
        "the first twice": lambda c: [c[0], *c],
        "the last twice": lambda c: [*c, c[-1]],
        "the first again at the end": lambda c: [*c, c[0]],
        "another record's first": lambda c: [other_chunks[0], *c[1:]],
        "another record's last": lambda c: [*c[:-1], other_chunks[-1]],
        "a byte behind the last": lambda c: [*c, b"\0"],
        "a byte short at the end": lambda c: [*c[:-1], c[-1][:-1]],
        "a byte short at the start": lambda c: [c[0][1:], *c[1:]],
        "an empty one behind": lambda c: [*c, sealed(3, b"", is_last=True)],
    }
    other_chunks = chunks(LARGE, other.true_keys.encryption)
    return {
        f"of chunks, {name}": replace(base, cut=always(made))
        for name, made in small.items()
    } | {
        f"of three chunks, {name}": replace(large, cut=turn)
        for name, turn in turns.items()
    }


def _keys(suite: Suite) -> Drafts:
    """Return drafts whose payload is sealed under a key that is not the record's."""
    base, other = Draft(suite=suite), Draft(suite=suite, record_id=b"\x02" * 16)
    info = label(_other(suite).number, "seal") + base.binding
    return {
        f"a payload under {name}": replace(base, cut=always(chunks(PAYLOAD, key)))
        for name, key in {
            "the authentication key": base.true_keys.authentication,
            "the commitment": base.true_keys.commitment,
            "the object key": base.object_key,
            "another record's key": other.true_keys.encryption,
            "the other suite's key": hkdf(base.object_key, base.record_id, info, 32),
            "the epoch's key": EPOCH.secret,
        }.items()
    }
