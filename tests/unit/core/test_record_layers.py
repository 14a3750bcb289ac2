"""With any one check switched off, the others still stand.

Each check is switched off in turn, and then no record with a fault of another kind opens,
and no record with a flipped bit. What is left to the others differs:

- *Suite*: a record below the floor opens; unknown ones are refused by the form.
- *Signer*: a trusted gateway's signature is still needed, though it may name any.
- *Signature*: whoever has no object key is refused by what that key authenticates.
  Whoever has it, and every recipient does, could write anything: against them nothing
  stands behind this check.
- *Context*: a whole record opens for another object. A changed context is still refused:
  it is signed, and the keys derive from it.
- *Payload digest*: the payload's own authentication refuses what is no longer signed.
- *Stanza*: a made-up object key goes on to the commitment.
- *Commitment*: the authentication refuses, since its key comes from the same object key.
- *Authentication*: the signature refuses; and without that too, the other fields are each
  refused by what they are for, but for the stanzas of others.
- *Payload*: the digest refuses, unless the maker himself is wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from miadmark_core.errors import Layer, SealError
from miadmark_core.sealing import record as form
from miadmark_core.sealing import seal as sealing
from miadmark_core.sealing.record import Header, SealedRecord, spans
from miadmark_core.sealing.seal import object_key
from miadmark_core.sealing.signing import Trust, TrustedSigners, Verifier
from miadmark_core.sealing.stanza import Opener
from miadmark_core.sealing.suites import CLASSICAL, HYBRID, SUITES, Suite
from tests.record_kit import faulty
from tests.record_writer import (
    CONTEXT,
    GATEWAY,
    RECIPIENT,
    TENANT,
    TRUSTED,
    Case,
    Draft,
    flipped,
)

Off = Callable[[pytest.MonkeyPatch], None]
"""Switches a check off."""


class Unauthenticated:
    """AES-256-GCM that leaves the tag alone."""

    def __init__(self, key: bytes) -> None:
        self.key = key

    def decrypt(self, iv: bytes, sealed: bytes, _: None) -> bytes:
        counter = modes.CTR(iv + b"\0\0\0\2")
        return (
            Cipher(algorithms.AES(self.key), counter).decryptor().update(sealed[:-16])
        )


def some_object_key(header: Header, openers: Sequence[Opener]) -> bytes:
    try:
        return object_key(header, openers)
    except SealError:
        return bytes(32)


def any_trust(trusted: TrustedSigners, header: Header) -> Trust:
    return trusted.of.get(header.signer_id, Trust(GATEWAY.verifier, TENANT))


def off(owner: object, name: str, put: object = None) -> Off:
    return lambda patch: patch.setattr(owner, name, put or (lambda *_: None))


OFF: dict[Layer, Off] = {
    Layer.FORM: off(form, "_require_order"),
    Layer.SUITE: off(sealing, "require_suite"),
    Layer.SIGNER: off(TrustedSigners, "require", any_trust),
    Layer.SIGNATURE: off(Verifier, "has_signed", lambda *_: True),
    Layer.CONTEXT: off(sealing, "require_context"),
    Layer.PAYLOAD_DIGEST: off(sealing, "require_payload"),
    Layer.STANZA: off(sealing, "object_key", some_object_key),
    Layer.COMMITMENT: off(sealing, "require_commitment"),
    Layer.AUTHENTICATION: off(sealing, "require_authentication"),
    Layer.PAYLOAD: off(sealing, "AESGCM", Unauthenticated),
}
"""How each check is switched off; of the form, it is the order of stanzas."""

LEFT_TO: dict[Layer, set[Layer | None]] = {
    Layer.FORM: {Layer.FORM, Layer.STANZA, None},
    Layer.SUITE: {Layer.SUITE, None},
    Layer.SIGNER: {Layer.SIGNATURE, None},
    Layer.SIGNATURE: {
        Layer.PAYLOAD_DIGEST,
        Layer.STANZA,
        Layer.COMMITMENT,
        Layer.AUTHENTICATION,
        None,
    },
    Layer.CONTEXT: {None},
    Layer.PAYLOAD_DIGEST: {Layer.PAYLOAD, None},
    Layer.STANZA: {Layer.COMMITMENT},
    Layer.COMMITMENT: {Layer.AUTHENTICATION, None},
    Layer.AUTHENTICATION: {None},
    Layer.PAYLOAD: {Layer.PAYLOAD, None},
}
"""What refuses a fault whose check is off, where its maker is trusted and wrong."""


def refusal(unsealing: Callable[[], object]) -> Layer | None:
    """Return which check refuses; none, if it opens."""
    try:
        unsealing()
    except SealError as error:
        return error.layer
    return None


def refusals(case: Case) -> set[Layer | None]:
    return {refusal(partial(case.unseal, openers)) for openers in case.by}


@pytest.mark.parametrize("layer", OFF)
def test_with_one_check_off_every_other_fault_is_refused_as_before(
    layer: Layer, monkeypatch: pytest.MonkeyPatch
) -> None:
    OFF[layer](monkeypatch)
    for case in faulty():
        if case.layer is not layer:
            assert refusals(case) == {case.layer}, case.name


@pytest.mark.parametrize("layer", OFF)
def test_what_a_check_alone_stood_for_is_known(
    layer: Layer, monkeypatch: pytest.MonkeyPatch
) -> None:
    OFF[layer](monkeypatch)
    met = set[Layer | None]()
    for case in faulty():
        if case.layer is layer:
            met |= refusals(case)
    assert met == LEFT_TO[layer]


def places(record: SealedRecord) -> Iterator[tuple[int | str, int, int]]:
    """Yield name, start and end of what a flipped bit can be in."""
    yield "start", 0, 10
    for tag, start, end in spans(record.header):
        yield "frame", start - 5, start
        yield tag, start, end


def flips(record: SealedRecord, step: int) -> Iterator[tuple[int | str, SealedRecord]]:
    """Yield where a bit is flipped, and the record, for every how many-eth bit."""
    where = [place for place, start, end in places(record) for _ in range(start, end)]
    for bit in range(0, 8 * len(record.header), step):
        header = flipped(bit // 8, bit % 8)(record.header)
        yield where[bit // 8], record._replace(header=header)
    for bit in range(0, 8 * len(record.payload), step):
        payload = flipped(bit // 8, bit % 8)(record.payload)
        yield "payload", record._replace(payload=payload)


STEP = {CLASSICAL: 7, HYBRID: 47}
suites = pytest.mark.parametrize("suite", SUITES.values(), ids=["classical", "hybrid"])
unsealed = partial(
    sealing.unseal, context=CONTEXT, openers=[RECIPIENT], trusted=TRUSTED
)


def refused(suite: Suite) -> dict[int | str, set[Layer | None]]:
    """Return by which checks flipped bits are refused, place by place."""
    met = defaultdict[int | str, set[Layer | None]](set)
    for place, record in flips(Draft(suite=suite).record, STEP[suite]):
        met[place].add(refusal(partial(unsealed, record)))
    return dict(met)


@suites
@pytest.mark.parametrize("layer", OFF)
def test_with_one_check_off_no_flipped_bit_outside_its_field_is_accepted(
    suite: Suite, layer: Layer, monkeypatch: pytest.MonkeyPatch
) -> None:
    OFF[layer](monkeypatch)
    met = refused(suite)
    if layer is Layer.SIGNATURE:
        assert met.pop(0x0D) == {None}
    assert all(None not in layers for layers in met.values())


BEHIND_THE_SIGNATURE: dict[int | str, set[Layer | None]] = {
    0x01: {Layer.STANZA},
    0x02: {Layer.SIGNER},
    0x03: {Layer.SIGNER},
    0x04: {Layer.STANZA},
    0x05: {Layer.STANZA},
    0x06: {Layer.STANZA},
    0x07: {Layer.STANZA},
    0x08: {Layer.CONTEXT},
    0x09: {Layer.PAYLOAD_DIGEST},
    0x0A: {Layer.COMMITMENT},
    0x0B: {Layer.STANZA, Layer.AUTHENTICATION},  # our own stanza; those of others
    0x0C: {Layer.AUTHENTICATION},
    0x0D: {None},
    "payload": {Layer.PAYLOAD_DIGEST},
}
"""Which check refuses a change of each field while the signature refuses nothing."""

INSTEAD: dict[Layer, dict[int | str, set[Layer | None]]] = {
    Layer.CONTEXT: {0x08: {Layer.STANZA}},
    Layer.PAYLOAD_DIGEST: {0x09: {Layer.AUTHENTICATION}, "payload": {Layer.PAYLOAD}},
    Layer.STANZA: {
        **{place: {Layer.COMMITMENT} for place in (1, 4, 5, 6, 7)},
        0x0B: {Layer.COMMITMENT, Layer.AUTHENTICATION},
    },
    Layer.COMMITMENT: {0x0A: {Layer.AUTHENTICATION}},
    Layer.AUTHENTICATION: {0x0B: {Layer.STANZA, None}, 0x0C: {None}},
    Layer.PAYLOAD: {},
}
"""What does so in its place if a second check is off."""


@suites
@pytest.mark.parametrize("second", INSTEAD)
def test_behind_the_signature_each_field_has_a_check_and_that_one_a_second(
    suite: Suite, second: Layer, monkeypatch: pytest.MonkeyPatch
) -> None:
    OFF[Layer.SIGNATURE](monkeypatch)
    OFF[second](monkeypatch)
    met = refused(suite)
    assert met.pop("start") <= {Layer.FORM, Layer.SUITE}
    assert met.pop("frame") == {Layer.FORM}
    by_use = {place: layers - {Layer.FORM} for place, layers in met.items()}
    assert by_use == BEHIND_THE_SIGNATURE | INSTEAD[second]
