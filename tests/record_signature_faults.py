"""Signatures that are not the trusted gateway's over this record, or only by half."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

from miadmark_core.sealing.suites import CLASSICAL, HYBRID, Suite
from tests.record_form_faults import Drafts
from tests.record_writer import (
    GATEWAY,
    OTHER_GATEWAY,
    OTHER_RECIPIENT,
    PAYLOAD,
    Draft,
    at,
    body,
    field,
    flipped,
    label,
    stanza_field,
    without,
)

Signing = Callable[[bytes, bytes], bytes]
"""From the right signature, and what it covers, to the one that is written."""

_ED25519_ORDER = (1 << 252) + 27742317777372353535851937790883648493


def signature_faults(suite: Suite) -> Drafts:
    """Return drafts of which only the signature can be refused."""
    whole = _signings(suite)
    drafts = {name: Draft(suite=suite, signature=turn) for name, turn in whole.items()}
    drafts["another gateway in a trusted one's name"] = Draft(
        suite=suite, signer=OTHER_GATEWAY
    )
    halves = _halves(whole) if suite is HYBRID else {}
    return drafts | halves | _unsigned(suite)


def _raw(suite: Suite, message: bytes) -> bytes:
    """Return the trusted gateway's signature, with no label put before ``message``."""
    ed25519, mldsa = GATEWAY._keys
    return ed25519.sign(message) + (mldsa.sign(message) if suite is HYBRID else b"")


def _beyond_the_order(signature: bytes, _: bytes) -> bytes:
    """Return the other way to write an Ed25519 signature, which RFC 8032 forbids."""
    s = int.from_bytes(signature[32:64], "little") + _ED25519_ORDER
    return signature[:32] + s.to_bytes(32, "little") + signature[64:]


def _signings(suite: Suite) -> dict[str, Signing]:
    other = CLASSICAL if suite is HYBRID else HYBRID
    twin = Draft(suite=suite, sequence=11)
    whole: dict[str, Signing] = {
        "a signature of zeros": lambda s, _: bytes(len(s)),
        "a signature of ones": lambda s, _: b"\xff" * len(s),
        "a signature of another gateway": lambda _, m: OTHER_GATEWAY.sign(
            suite, "record", m
        ),
        "a signature of another record": lambda *_: body(twin.parts[-1]),
        "a signature without a label": lambda _, m: _raw(suite, m),
        "a signature with the other suite's label": lambda _, m: _raw(
            suite, label(other.number, "record") + m
        ),
        "a signature over all but the authentication": lambda _, m: GATEWAY.sign(
            suite, "record", m[:-37]
        ),
        "a signature over its own head too": lambda s, m: GATEWAY.sign(
            suite, "record", m + field(0x0D, s)[:5]
        ),
        "a signature over a digest": lambda _, m: GATEWAY.sign(
            suite, "record", hashlib.sha256(m).digest()
        ),
        "a signature over nothing": lambda *_: GATEWAY.sign(suite, "record", b""),
        "an Ed25519 signature written the other way": _beyond_the_order,
    }
    for purpose in ("", "Record", "recor", "records", "grant", "ledger", "seal"):
        whole[f"a signature for '{purpose}'"] = _signed_for(suite, purpose)
    for place in (0, 31, 32, 63, *((64, 1700, -1) if suite is HYBRID else ())):
        whole[f"a signature with byte {place} flipped"] = _flipped(place)
    return whole


def _signed_for(suite: Suite, purpose: str) -> Signing:
    return lambda _, message: GATEWAY.sign(suite, purpose, message)


def _flipped(place: int) -> Signing:
    return lambda signature, _: flipped(place)(signature)


def _half(turn: Signing, half: slice) -> Signing:
    """Return what takes one half from ``turn``, and leaves the other right."""

    def signed(signature: bytes, message: bytes) -> bytes:
        changed = bytearray(signature)
        changed[half] = turn(signature, message)[half]
        return bytes(changed)

    return signed


def _halves(whole: dict[str, Signing]) -> Drafts:
    """Return drafts in which only one half of a hybrid signature is right."""
    base = Draft(suite=HYBRID)
    drafts = {
        "the halves of a signature exchanged": replace(
            base, signature=lambda s, _: s[64:] + s[:64]
        ),
        "half a classical signature": replace(
            base,
            signature=lambda s, m: GATEWAY.sign(CLASSICAL, "record", m) + s[64:],
        ),
    }
    for name, turn in whole.items():
        if "flipped" in name or "Ed25519" in name:
            continue
        drafts[f"{name}: only its ML-DSA half right"] = replace(
            base, signature=_half(turn, slice(64))
        )
        drafts[f"{name}: only its Ed25519 half right"] = replace(
            base, signature=_half(turn, slice(64, None))
        )
    return drafts


def _unsigned(suite: Suite) -> Drafts:
    """Return drafts changed after signing, by someone who may have the object key."""
    base = Draft(suite=suite)
    stranger = stanza_field(base.wrapped(OTHER_RECIPIENT.recipient)[0])
    drafts = {
        f"field {place + 1:02x} changed after signing": replace(
            base, all=at(place, flipped(-1))
        )
        for place in (0, 3, 4, 5, 6, 8, 9)
    }
    for place, name in ((10, "epoch's"), (11, "recovery"), (12, "recipient's")):
        drafts[f"the {name} stanza changed after signing"] = replace(
            base, all=at(place, flipped(-1))
        )
        drafts[f"the {name} stanza taken out after signing"] = replace(
            base, all=without(place)
        )

    def signed_before(changed: Draft) -> Draft:
        """Return ``changed``, with all made again but the signature."""
        return replace(changed, signature=lambda *_: body(base.parts[-1]))

    return drafts | {
        "the authentication changed after signing": replace(
            base, all=at(13, flipped(-1))
        ),
        "a stanza put in after signing": replace(
            base, all=lambda f: [*f[:13], stranger, *f[13:]]
        ),
        "a recipient writes another payload": signed_before(
            replace(base, payload=PAYLOAD.swapcase())
        ),
        "a recipient writes another time": signed_before(replace(base, created=1)),
        "a recipient writes another method": signed_before(
            replace(base, method=b"mark/2")
        ),
        "a recipient takes the gateway out": signed_before(
            replace(base, to=base.to[1:])
        ),
        "a recipient seals to a stranger": signed_before(
            replace(base, to=[*base.to, OTHER_RECIPIENT.recipient])
        ),
    }
