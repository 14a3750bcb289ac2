"""Whoever may open a record can, in both suites; nobody else can."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miadmark_core.errors import (
    DamagedSealError,
    Layer,
    NoStanzaError,
    UnknownFormatError,
    UntrustedSignerError,
)
from miadmark_core.sealing.epoch_key import EpochKey
from miadmark_core.sealing.recipients import RECIPIENT_SIZE, Identity, Recipient
from miadmark_core.sealing.record import MAX_CONTEXT, SealedRecord, parse, spans
from miadmark_core.sealing.seal import believe_key, object_key, seal, unseal
from miadmark_core.sealing.signing import (
    VERIFIER_SIZE,
    Signer,
    Trust,
    TrustedSigners,
    Verifier,
)
from miadmark_core.sealing.stanza import Opener, StanzaType, Wrapper
from miadmark_core.sealing.suites import CLASSICAL, HYBRID, SUITES, Suite

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CONTEXT = b"an object"

suites = pytest.mark.parametrize("suite", SUITES.values(), ids=["classical", "hybrid"])


@dataclass
class Site:
    """A gateway, and every kind of key that can open what it makes."""

    signer: Signer = field(default_factory=lambda: Signer(os.urandom(64)))
    tenant: bytes = field(default_factory=lambda: os.urandom(16))
    epoch: EpochKey = field(default_factory=lambda: EpochKey(1, os.urandom(32)))
    recovery: Identity = field(
        default_factory=lambda: Identity(os.urandom(32), StanzaType.RECOVERY)
    )
    identity: Identity = field(default_factory=lambda: Identity(os.urandom(32)))

    @property
    def wrappers(self) -> list[Wrapper]:
        return [self.epoch, self.recovery.recipient, self.identity.recipient]

    @property
    def openers(self) -> list[Opener]:
        return [self.epoch, self.recovery, self.identity]

    def trusted(self, last_sequence: int | None = None) -> TrustedSigners:
        verifier = self.signer.verifier
        return TrustedSigners(
            {verifier.id: Trust(verifier, self.tenant, last_sequence)}
        )

    def seal(self, payload: bytes, suite: Suite, **more: Any) -> SealedRecord:
        arguments: dict[str, Any] = {
            "context": CONTEXT,
            "to": self.wrappers,
            "signer": self.signer,
            "tenant": self.tenant,
            "sequence": 1,
            "policy": 1,
            "method": "mark/1",
            "now": NOON,
            "random": os.urandom,
        }
        return seal(payload, suite=suite, **(arguments | more))

    def open(self, record: SealedRecord, *openers: Opener, **more: Any) -> bytes:
        arguments: dict[str, Any] = {
            "context": CONTEXT,
            "trusted": self.trusted(),
        } | more
        return unseal(record, openers=openers or [self.epoch], **arguments)


SITE = Site()


@suites
@pytest.mark.parametrize(
    "size",
    [0, 1, 65_535, 65_536, 65_537, 200_000],
    ids=["empty", "a byte", "short of a chunk", "a chunk", "beyond a chunk", "four"],
)
def test_unseal_undoes_seal(suite: Suite, size: int) -> None:
    payload = os.urandom(size)
    assert SITE.open(SITE.seal(payload, suite)) == payload


@given(
    st.sampled_from(list(SUITES.values())),
    st.binary(max_size=300),
    st.binary(max_size=MAX_CONTEXT),
    st.integers(0, (1 << 64) - 1),
    st.integers(0, (1 << 32) - 1),
    st.text(
        st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=64
    ),
    st.datetimes(datetime(1970, 1, 2), datetime(2999, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.sets(st.integers(0, 2), min_size=1),
)
def test_unseal_undoes_seal_whatever_is_sealed(
    suite: Suite,
    payload: bytes,
    context: bytes,
    sequence: int,
    policy: int,
    method: str,
    now: datetime,
    kinds: set[int],
) -> None:
    record = SITE.seal(
        payload,
        suite,
        context=context,
        sequence=sequence,
        policy=policy,
        method=method,
        now=now,
        to=[SITE.wrappers[kind] for kind in kinds],
    )
    for kind in kinds:
        assert SITE.open(record, SITE.openers[kind], context=context) == payload
    header = parse(record.header)
    assert header.suite is suite
    assert (header.sequence, header.policy, header.method) == (sequence, policy, method)
    assert header.created == int(now.timestamp())
    assert record.header.startswith(header.encoded)
    assert sum(5 + end - start for _, start, end in spans(record.header)) + 10 == len(
        record.header
    )


@suites
def test_stanzas_stand_in_order_whatever_order_was_asked_for(suite: Suite) -> None:
    record = SITE.seal(b"secret", suite, to=SITE.wrappers[::-1])
    assert [s.type for s in parse(record.header).stanzas] == list(StanzaType)


@suites
def test_each_kind_of_holder_can_open(suite: Suite) -> None:
    guests = [Identity(os.urandom(32)) for _ in range(5)]
    public = [guest.recipient for guest in guests]
    record = SITE.seal(b"secret", suite, to=[*SITE.wrappers, *public])
    for opener in (*SITE.openers, *guests):
        assert SITE.open(record, opener) == b"secret"


@suites
def test_no_stranger_can_open(suite: Suite) -> None:
    record = SITE.seal(b"secret", suite)
    for stranger in Site().openers:
        with pytest.raises(NoStanzaError) as caught:
            SITE.open(record, stranger)
        assert "add this site as a recipient" in caught.value.hint


@suites
def test_an_unknown_gateway_is_refused_and_named(suite: Suite) -> None:
    with pytest.raises(UntrustedSignerError, match=SITE.signer.verifier.id.hex()):
        SITE.open(SITE.seal(b"secret", suite), trusted=Site().trusted())


@suites
def test_another_gateway_cannot_sign_for_a_trusted_one(suite: Suite) -> None:
    forger = Site()
    record = forger.seal(b"forged", suite, to=SITE.wrappers, tenant=SITE.tenant)
    header = record.header.replace(forger.signer.verifier.id, SITE.signer.verifier.id)
    with pytest.raises(DamagedSealError) as caught:
        SITE.open(SealedRecord(header, record.payload))
    assert caught.value.layer is Layer.SIGNATURE


@suites
def test_a_gateway_cannot_speak_for_another_tenant(suite: Suite) -> None:
    record = SITE.seal(b"secret", suite, tenant=bytes(16))
    with pytest.raises(UntrustedSignerError, match="another tenant"):
        SITE.open(record)


@suites
def test_a_key_that_was_given_up_is_believed_up_to_its_last_record(
    suite: Suite,
) -> None:
    last = SITE.seal(b"secret", suite, sequence=7)
    assert SITE.open(last, trusted=SITE.trusted(last_sequence=7)) == b"secret"
    with pytest.raises(UntrustedSignerError, match="given up"):
        SITE.open(last, trusted=SITE.trusted(last_sequence=6))


def test_a_site_can_refuse_the_older_suite() -> None:
    older, newer = SITE.seal(b"old", CLASSICAL), SITE.seal(b"new", HYBRID)
    assert SITE.open(newer, least_suite=2) == b"new"
    with pytest.raises(UnknownFormatError) as caught:
        SITE.open(older, least_suite=2)
    assert "newer one" in caught.value.hint


@suites
def test_a_record_does_not_open_for_another_object(suite: Suite) -> None:
    with pytest.raises(DamagedSealError, match="another object"):
        SITE.open(SITE.seal(b"secret", suite), context=b"another object")


@suites
@pytest.mark.parametrize("position", [8, 9], ids=["version", "suite"])
def test_an_unknown_format_says_upgrade(suite: Suite, position: int) -> None:
    record = SITE.seal(b"secret", suite)
    header = bytearray(record.header)
    header[position] = 9
    with pytest.raises(UnknownFormatError) as caught:
        SITE.open(SealedRecord(bytes(header), record.payload))
    assert "upgrade" in caught.value.hint


@suites
@pytest.mark.parametrize("count", [0, 33])
def test_nobody_and_more_than_32_are_no_recipients(suite: Suite, count: int) -> None:
    to = [Identity(bytes([n]) * 32).recipient for n in range(count)]
    with pytest.raises(ValueError, match=f"{count} recipients"):
        SITE.seal(b"secret", suite, to=to)


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"context": bytes(MAX_CONTEXT + 1)}, id="long context"),
        pytest.param({"method": ""}, id="no method"),
        pytest.param({"method": "m" * 65}, id="long method"),
        pytest.param({"method": "m\n"}, id="method of two lines"),
        pytest.param({"method": "märk"}, id="method beyond ASCII"),
        pytest.param({"tenant": b"short"}, id="short tenant"),
        pytest.param({"sequence": -1}, id="negative sequence"),
        pytest.param({"policy": 1 << 32}, id="policy of 33 bits"),
        pytest.param({"to": [SITE.epoch] * 2}, id="one epoch twice"),
        pytest.param({"to": SITE.wrappers[2:] * 2}, id="one recipient twice"),
    ],
)
def test_what_could_not_be_read_again_is_not_written(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        SITE.seal(b"secret", CLASSICAL, **more)


def test_keys_of_a_wrong_size_are_refused_where_they_are_made() -> None:
    with pytest.raises(ValueError, match="seed of 31"):
        Identity.of_seed(bytes(31))
    with pytest.raises(ValueError, match="no recipient"):
        Recipient(bytes(RECIPIENT_SIZE - 1))
    with pytest.raises(ValueError, match="no verifier"):
        Verifier(bytes(VERIFIER_SIZE + 1))


def test_no_secret_is_shown_by_what_holds_it() -> None:
    for secret, holder in (
        (SITE.signer.seed, SITE.signer),
        (SITE.epoch.secret, SITE.epoch),
        (SITE.identity.seed, SITE.identity),
    ):
        assert str(secret)[2:-1] not in repr(holder)


@suites
def test_a_key_can_be_believed_without_the_payload(suite: Suite) -> None:
    header = parse(SITE.seal(b"secret", suite).header)
    key = object_key(header, [SITE.identity])
    believe_key(header, key)
    with pytest.raises(DamagedSealError) as caught:
        believe_key(header, bytes(32))
    assert caught.value.layer is Layer.COMMITMENT
