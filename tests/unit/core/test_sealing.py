"""Whoever may open a record can; nobody else can, and nothing in it can be changed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from miadmark_core.errors import (
    DamagedSealError,
    NoStanzaError,
    SealError,
    UnknownFormatError,
    UntrustedSignerError,
)
from miadmark_core.sealing.recipients import Identity
from miadmark_core.sealing.record import SealedRecord, parse, seal, unseal
from miadmark_core.sealing.signing import (
    SIGNATURE_SIZE,
    Signer,
    TrustedSigners,
    signer_id,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CONTEXT = b"an object"


@dataclass
class Site:
    identity: Identity = field(
        default_factory=lambda: Identity(X25519PrivateKey.generate())
    )
    signer: Signer = field(default_factory=lambda: Signer(Ed25519PrivateKey.generate()))

    def seal(
        self, payload: bytes, *others: Site, context: bytes = CONTEXT
    ) -> SealedRecord:
        recipients = [site.identity.recipient() for site in (self, *others)]
        return seal(
            payload,
            context,
            recipients=recipients,
            signer=self.signer,
            now=NOON,
            random=os.urandom,
        )

    def open(
        self, record: SealedRecord, *trusted: Site, context: bytes = CONTEXT
    ) -> bytes:
        keys = [site.signer.private_key.public_key() for site in (trusted or (self,))]
        return unseal(
            record,
            context,
            identities=[self.identity],
            trusted=TrustedSigners({signer_id(key): key for key in keys}),
        )


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.mark.parametrize(
    "size",
    [0, 1, 65_535, 65_536, 65_537, 200_000],
    ids=["empty", "a byte", "short of a chunk", "a chunk", "beyond a chunk", "four"],
)
def test_unseal_undoes_seal(site: Site, size: int) -> None:
    payload = os.urandom(size)
    assert site.open(site.seal(payload)) == payload


def test_each_of_several_recipients_can_open(site: Site) -> None:
    others = [Site() for _ in range(5)]
    record = site.seal(b"secret", *others)
    for other in (site, *others):
        assert other.open(record, site) == b"secret"


def test_nobody_else_can_open(site: Site) -> None:
    with pytest.raises(NoStanzaError):
        Site().open(site.seal(b"secret"), site)


def test_an_unknown_gateway_is_refused_and_named(site: Site) -> None:
    with pytest.raises(UntrustedSignerError, match=site.signer.id.hex()):
        site.open(site.seal(b"secret"), Site())


def test_another_gateway_cannot_sign_for_a_trusted_one(site: Site) -> None:
    forger = Site()
    record = forger.seal(b"forged", site)
    header = record.header.replace(forger.signer.id, site.signer.id)
    with pytest.raises(DamagedSealError):
        site.open(SealedRecord(header, record.payload), site)


def test_a_record_does_not_open_for_another_object(site: Site) -> None:
    with pytest.raises(DamagedSealError, match="another object"):
        site.open(site.seal(b"secret"), context=b"another object")


def test_no_flipped_bit_of_a_header_is_accepted(site: Site) -> None:
    record = site.seal(os.urandom(100))
    for position in range(len(record.header) * 8):
        header = bytearray(record.header)
        header[position // 8] ^= 1 << position % 8
        with pytest.raises(SealError):
            site.open(SealedRecord(bytes(header), record.payload))


def test_no_flipped_bit_of_a_payload_is_accepted(site: Site) -> None:
    record = site.seal(os.urandom(100))
    for position in range(len(record.payload) * 8):
        payload = bytearray(record.payload)
        payload[position // 8] ^= 1 << position % 8
        with pytest.raises(DamagedSealError):
            site.open(SealedRecord(record.header, bytes(payload)))


def test_no_cut_and_no_extension_is_accepted(site: Site) -> None:
    record = site.seal(os.urandom(100))
    for length in range(len(record.header)):
        with pytest.raises(SealError):
            parse(record.header[:length])
    for changed in (
        SealedRecord(record.header + b"\0", record.payload),
        SealedRecord(record.header, record.payload + b"\0"),
        SealedRecord(record.header, record.payload[:-1]),
    ):
        with pytest.raises(SealError):
            site.open(changed)


def test_records_cannot_be_swapped(site: Site) -> None:
    contexts = [f"object {n}".encode() for n in range(8)]
    records = [site.seal(b"secret", context=context) for context in contexts]
    for i, header in enumerate(r.header for r in records):
        for j, payload in enumerate(r.payload for r in records):
            for k, context in enumerate(contexts):
                mixed = SealedRecord(header, payload)
                if i == j == k:
                    assert site.open(mixed, context=context) == b"secret"
                    continue
                with pytest.raises(SealError):
                    site.open(mixed, context=context)


@pytest.mark.parametrize("position", [8, 9], ids=["version", "suite"])
def test_an_unknown_format_says_upgrade(site: Site, position: int) -> None:
    record = site.seal(b"secret")
    header = bytearray(record.header)
    header[position] = 2
    with pytest.raises(UnknownFormatError) as caught:
        site.open(SealedRecord(bytes(header), record.payload))
    assert "upgrade" in caught.value.hint


class TrustsAnyone(TrustedSigners):
    """Switches the signature off, to see that what lies below stands alone."""

    def verify(self, signer: bytes, signature: bytes, message: bytes) -> None:
        pass


def test_below_the_signature_nothing_gives_either(site: Site) -> None:
    record = site.seal(os.urandom(60))
    signature = parse(record.header).signature
    for position in range(len(record.header) * 8):
        header = bytearray(record.header)
        header[position // 8] ^= 1 << position % 8
        if bytes(header[:-64]) == record.header[:-64] or _is_unread(position, record):
            continue  # the signature itself, and whom it names: checked by nobody now
        with pytest.raises(SealError):
            unseal(
                SealedRecord(bytes(header), record.payload),
                CONTEXT,
                identities=[site.identity],
                trusted=TrustsAnyone({}),
            )
    assert len(signature) == SIGNATURE_SIZE


def _is_unread(position: int, record: SealedRecord) -> bool:
    """The signature's own frame, which only its parser looks at."""
    return position // 8 >= len(record.header) - SIGNATURE_SIZE
