"""Records that are refused before any secret is used: suite, maker, object, payload."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

from miadmark_core.errors import Layer
from miadmark_core.sealing.signing import Trust, TrustedSigners
from miadmark_core.sealing.suites import Suite
from tests.record_form_faults import Drafts
from tests.record_signature_faults import signature_faults
from tests.record_writer import (
    CONTEXT,
    GATEWAY,
    OTHER_GATEWAY,
    PAYLOAD,
    TENANT,
    Case,
    Draft,
    Turn,
    always,
    body,
    chunks,
    field,
    flipped,
    put,
)

OTHER_TENANT = b"some other place"
_TRUST = Trust(GATEWAY.verifier, TENANT)
_OTHER_TRUST = Trust(OTHER_GATEWAY.verifier, TENANT)


def public_faults(suite: Suite) -> Iterator[Case]:
    """Yield cases that anyone could tell are to be refused."""
    for layer, drafts in (
        (Layer.SUITE, _suites(suite)),
        (Layer.SIGNER, _makers(suite)),
        (Layer.SIGNATURE, signature_faults(suite)),
        (Layer.PAYLOAD_DIGEST, _digests(suite)),
    ):
        for name, draft in drafts.items():
            yield Case(name=name, draft=draft, layer=layer)
    yield Case(
        name="a suite below the floor",
        draft=Draft(suite=suite),
        layer=Layer.SUITE,
        least_suite=suite.number + 1,
    )
    yield from _trusts(suite)
    yield from _contexts(suite)


def _suites(suite: Suite) -> Drafts:
    return {
        f"{name} {number}": Draft(suite=suite, start=_with_byte(place, number))
        for name, place, numbers in (
            ("version", 8, (0, 2, 255)),
            ("suite", 9, (0, 3, 255)),
        )
        for number in numbers
    }


def _with_byte(place: int, number: int) -> Turn[bytes]:
    return lambda value: value[:place] + bytes([number]) + value[place + 1 :]


def _makers(suite: Suite) -> Drafts:
    base = Draft(suite=suite)
    other = OTHER_GATEWAY.verifier.id
    return {
        "an untrusted gateway": replace(base, signer=OTHER_GATEWAY, signer_id=other),
        "an untrusted gateway named, a trusted one signs": replace(
            base, signer_id=other
        ),
        "a signer id of zeros": replace(base, signer_id=bytes(16)),
        "a signer id with a bit flipped": replace(
            base, signer_id=flipped(0)(base.signer_id)
        ),
        "another tenant": replace(base, tenant=OTHER_TENANT),
        "a tenant with a bit flipped": replace(base, tenant=flipped(-1)(TENANT)),
        "a tenant of zeros": replace(base, tenant=bytes(16)),
        "tenant and signer id exchanged": replace(
            base, tenant=base.signer_id, signer_id=TENANT
        ),
        "tenant and record id exchanged": replace(
            base, tenant=base.record_id, record_id=TENANT
        ),
    }


def _trusts(suite: Suite) -> Iterator[Case]:
    gateway, other = GATEWAY.verifier.id, OTHER_GATEWAY.verifier.id
    base, end = Draft(suite=suite), Draft(suite=suite, sequence=(1 << 64) - 1)
    signer = Layer.SIGNER
    for name, draft, layer, trust in (
        ("nobody trusted", base, signer, {}),
        ("only another gateway trusted", base, signer, {other: _OTHER_TRUST}),
        (
            "a gateway trusted for another tenant",
            base,
            signer,
            {gateway: _TRUST._replace(tenant=OTHER_TENANT)},
        ),
        (
            "a sequence just beyond the last",
            base,
            signer,
            {gateway: _TRUST._replace(last_sequence=base.sequence - 1)},
        ),
        (
            "a gateway given up before its first record",
            base,
            signer,
            {gateway: _TRUST._replace(last_sequence=0)},
        ),
        (
            "the largest sequence, just beyond the last",
            end,
            signer,
            {gateway: _TRUST._replace(last_sequence=end.sequence - 1)},
        ),
        (
            "a trusted gateway named, another trusted one signs",
            replace(base, signer_id=other),
            Layer.SIGNATURE,
            {gateway: _TRUST, other: _OTHER_TRUST},
        ),
        (
            "a gateway whose number stands for another's keys",
            base,
            Layer.SIGNATURE,
            {gateway: _OTHER_TRUST},
        ),
    ):
        trusted = TrustedSigners(trust)
        yield Case(name=name, draft=draft, layer=layer, trusted=trusted)


def _contexts(suite: Suite) -> Iterator[Case]:
    base = Draft(suite=suite)
    for name, asked in (
        ("another object", b"an object, 16 rows by 17 columns"),
        ("no object", b""),
        ("the beginning of its object", CONTEXT[:-1]),
        ("its object and a zero byte", CONTEXT + b"\0"),
        ("a zero byte and its object", b"\0" + CONTEXT),
        ("its object with a bit flipped", flipped(5)(CONTEXT)),
        ("its object in capitals", CONTEXT.upper()),
        ("more than a record could hold", CONTEXT.ljust(4097)),
        ("the digest of its object", hashlib.sha256(CONTEXT).digest()),
    ):
        yield Case(
            name=f"a record asked for {name}",
            draft=base,
            layer=Layer.CONTEXT,
            context=asked,
        )
    for name, context in (
        ("nothing", b""),
        ("another object", b"an object, 17 rows by 16 columns"),
        ("its object and more", CONTEXT + b" "),
    ):
        draft = replace(base, context=context)
        yield Case(name=f"a record of {name}", draft=draft, layer=Layer.CONTEXT)
    moved = CONTEXT.replace(b"16", b"17")
    yield Case(
        name="a record moved to another object after signing",
        draft=replace(base, all=lambda f: put(f, 7, field(0x08, moved))),
        layer=Layer.SIGNATURE,
        context=moved,
    )


def _digests(suite: Suite) -> Drafts:
    base = Draft(suite=suite)
    key, other = base.true_keys.encryption, Draft(suite=suite, record_id=b"\x02" * 16)
    sealed = base.record.payload
    carried = {
        "flipped at its start": flipped(0)(sealed),
        "flipped at its end": flipped(-1, 7)(sealed),
        "cut by a byte": sealed[:-1],
        "cut to its tag": sealed[-16:],
        "with a byte more": sealed + b"\0",
        "twice over": sealed * 2,
        "left out": b"",
        "of another record": other.record.payload,
        "in clear": PAYLOAD,
        "sealed with the same key": chunks(PAYLOAD[::-1], key)[0],
    }
    digests = {
        "flipped": flipped(0)(hashlib.sha256(sealed).digest()),
        "of zeros": bytes(32),
        "of nothing": hashlib.sha256(b"").digest(),
        "of the payload in clear": hashlib.sha256(PAYLOAD).digest(),
        "of another record": body(other.parts[8]),
        "taken twice": hashlib.sha256(hashlib.sha256(sealed).digest()).digest(),
        "of SHA3": hashlib.sha3_256(sealed).digest(),
        "of half a SHA-512": hashlib.sha512(sealed).digest()[:32],
    }
    return {
        f"a sealed payload {name}": replace(base, payload_carried=always(payload))
        for name, payload in carried.items()
    } | {
        f"a payload digest {name}": replace(base, digest=always(digest))
        for name, digest in digests.items()
    }
