"""A release desk over real HTTPS: who gets a key, and that the others learn nothing."""

from __future__ import annotations

import json
import logging
from base64 import b64encode
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from dicom_node.asking import MAX_BYTES, PATH
from dicom_node.authorising import GrantMode
from dicom_node.errors import KeyServiceError, NotGrantedError
from dicom_node.keys.ring import KeyKind
from dicom_node.rewrapping import end_epochs, shred
from miadmark_core.errors import DamagedSealError
from miadmark_core.sealing.recipients import Identity
from miadmark_core.sealing.record import parse
from tests.desks import (
    NOW,
    OBJECT,
    PAYLOAD,
    RECEIVER,
    STUDY,
    MarkingSite,
    World,
    a_context,
    a_world,
    asking,
    serving,
)

REFUSED = (403, b'{"error": "the desk does not release this"}')


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as made:
        yield made


def test_a_granted_receiver_opens_the_record(world: World) -> None:
    assert world.open(world.site.mark()) == PAYLOAD
    said = world.site.last()
    assert (said["event"], said["how"]) == ("released", "desk")


def test_one_client_opens_many_over_one_connection(world: World) -> None:
    client = world.client()
    for _ in range(3):
        assert world.open(world.site.mark(), client) == PAYLOAD
    assert client._pool.num_connections == 1


def test_a_revoked_grant_is_none_from_the_next_request_on(world: World) -> None:
    record, client = world.site.mark(), world.client()
    world.open(record, client)
    world.site.grants.revoke(1, by="one", now=NOW)
    with pytest.raises(NotGrantedError, match="refuses"):
        world.open(record, client)
    assert "revoked" in str(world.site.last()["reason"])


def test_a_record_opens_whose_epoch_has_ended(world: World) -> None:
    record = world.site.mark()
    end_epochs(world.site.keyring, world.site.ledger, NOW)
    assert world.open(record) == PAYLOAD


def test_records_are_asked_for_by_tenant_as_well(world: World) -> None:
    keyring = world.site.keyring
    client = world.client(gateway=keyring.ring.tenant.hex())
    keyring.rotate(KeyKind.SIGNING, NOW, world.site.ledger.last_number() + 1)
    assert world.open(world.site.mark(), client) == PAYLOAD


def test_other_gateways_records_are_not_asked_for(world: World) -> None:
    client = world.client(gateway="ab" * 16)
    header = parse(world.site.mark().header)
    assert client.opener(STUDY).object_key(header) is None
    assert world.site.audit.head().number == 0


def test_an_answer_for_another_site_does_not_open(world: World) -> None:
    client = world.client(identity=Identity(bytes([7]) * 32))
    with pytest.raises(DamagedSealError, match="none of this site's keys"):
        world.open(world.site.mark(), client)


def test_every_refusal_is_the_same_to_whoever_asks(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    site, record = world.site, world.site.mark()
    stranger = world.authority.certify("stranger")
    pending = world.authority.certify("pending")
    site.propose(pending.fingerprint, RECEIVER)
    scoped = world.authority.certify("scoped")
    site.grant(scoped.fingerprint, RECEIVER, studies=("1.2.3",))
    ended = world.authority.certify("ended")
    site.grant(ended.fingerprint, RECEIVER, not_after=NOW - timedelta(hours=1))
    direct = world.authority.certify("direct")
    site.grant(direct.fingerprint, RECEIVER, mode=GrantMode.DIRECT)
    shredded = site.mark()
    site.ledger.shred(parse(shredded.header).record_id, "test", NOW)
    other = MarkingSite(tmp_path / "other")
    foreign = other.mark()
    other.close()
    flipped = record.header[:-1] + bytes([record.header[-1] ^ 1])
    cases = [
        ("grant", asking(record), stranger),  # and claims the AE title of the archive
        ("grant", asking(record), pending),
        ("grant", asking(record), scoped),
        ("grant", asking(record), ended),
        ("grant", asking(record), direct),
        ("grant", asking(record, ae_title="OTHER"), world.archive),
        ("grant", asking(record, purpose="research"), world.archive),
        ("signer", asking(foreign), world.archive),
        ("signature", asking(record, header=flipped), world.archive),
        ("form", asking(record, header=record.header[:-1]), world.archive),
        ("context", asking(record, context=a_context("1.2.3")), world.archive),
        ("ledger", asking(shredded), world.archive),
        ("ledger", asking(site.seal()), world.archive),
    ]
    for layer, asked, credential in cases:
        assert world.post(asked.to_bytes(), credential) == REFUSED
        said = site.last()
        assert (said["event"], said["layer"]) == ("refused", layer), said["reason"]
        assert said["certificate_key"] == credential.fingerprint[:16]
    assert world.post(json.dumps({"version": 1}).encode()) == REFUSED
    for never in (STUDY, OBJECT, b64encode(record.header).decode("ascii")[:40]):
        assert never not in caplog.text


def test_no_key_is_in_the_logs_or_the_audit(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    record = world.site.mark()
    header = parse(record.header)
    world.open(record)
    key = world.site.keyring.epochs.object_key(header)
    assert key is not None
    written = caplog.text + json.dumps(world.site.last())
    for secret in (key.hex(), repr(key), b64encode(key).decode("ascii")):
        assert secret not in written
    assert STUDY not in caplog.text
    assert OBJECT not in caplog.text


def test_a_shredded_object_stays_shut(world: World) -> None:
    record = world.site.mark()
    record_id = parse(record.header).record_id
    shred(record_id, world.site.keyring, world.site.ledger, by="test", now=NOW)
    with pytest.raises(NotGrantedError):
        world.open(record)


@pytest.mark.parametrize(
    ("status", "body", "path"),
    [
        pytest.param(400, b"no JSON", PATH, id="no JSON"),
        pytest.param(400, b" " * (MAX_BYTES + 1), PATH, id="too much"),
        pytest.param(400, b" " * 5_000_000, PATH, id="far too much"),
        pytest.param(404, b"{}", "/", id="elsewhere"),
        pytest.param(404, b"{}", PATH + "/more", id="below"),
    ],
)
def test_what_is_no_request_is_told_so(
    world: World, status: int, body: bytes, path: str
) -> None:
    assert world.post(body, path=path)[0] == status
    assert world.site.audit.head().number == 0


def test_a_full_disk_of_the_audit_gives_no_key(world: World) -> None:
    record = world.site.mark()
    full = Path("/dev/full")
    with serving(world.site, world.desk, world.authority, audit=full) as world.address:
        answered = world.post(asking(record).to_bytes())
        assert answered == (503, b'{"error": "the desk cannot answer now"}')
        with pytest.raises(KeyServiceError, match="for now"):
            world.open(record)
        asked = asking(record, purpose="research")
        assert world.post(asked.to_bytes()) == REFUSED


def test_who_asks_too_often_is_put_off(world: World) -> None:
    record = world.site.mark()
    with serving(world.site, world.desk, world.authority, per_minute=2) as address:
        world.address = address
        asked = asking(record).to_bytes()
        assert [world.post(asked)[0] for _ in range(3)] == [200, 200, 503]
