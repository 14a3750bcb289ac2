"""The desk without a socket: to whom it says no, in which order, and in which words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from dicom_node.authorising import GrantMode
from dicom_node.desk import Desk
from dicom_node.keys.epochs import EpochRing
from dicom_node.keys.keyring import Keyring
from dicom_node.keys.ring import KeyKind
from dicom_node.keys.store import KeyStore
from dicom_node.ledger import Rewrapped
from miadmark_core.sealing.epoch_key import EpochKey
from miadmark_core.sealing.record import Header, SealedRecord, field, parse
from miadmark_core.sealing.seal import believe_key
from tests.certificates import DAY
from tests.desks import (
    KEY,
    NOW,
    OTHER_KEY,
    RECEIVER,
    MarkingSite,
    a_context,
    asking,
    refused,
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[MarkingSite]:
    made = MarkingSite(tmp_path / "site")
    yield made
    made.close()


@pytest.fixture
def record(site: MarkingSite) -> SealedRecord:
    site.grant(KEY, RECEIVER)
    return site.mark()


class ClosedEpochs(EpochRing):
    """Opens nothing: whoever needs a secret fails loudly."""

    def object_key(
        self,
        header: object,  # noqa: ARG002
        *,
        is_ended: bool = False,  # noqa: ARG002
    ) -> NoReturn:
        raise AssertionError("a secret was used")

    def of(
        self,
        version: int,  # noqa: ARG002
        *,
        is_ended: bool = False,  # noqa: ARG002
    ) -> NoReturn:
        raise AssertionError("a secret was used")


def closed_desk(site: MarkingSite) -> Desk:
    folder = site.folder / "keys"
    keyring = Keyring(folder)
    keyring.epochs = ClosedEpochs(KeyStore(folder), keyring.nodes)
    return Desk(keyring, site.ledger, site.grants, site.audit, site.clock)


def test_a_secret_is_used_where_nothing_public_speaks_against(
    site: MarkingSite, record: SealedRecord
) -> None:
    with pytest.raises(AssertionError, match="a secret was used"):
        closed_desk(site).answer(asking(record).to_bytes(), KEY)


def _shredded(site: MarkingSite, record: SealedRecord) -> bytes:
    site.ledger.shred(parse(record.header).record_id, "test", NOW)
    return asking(record).to_bytes()


def _below_the_floor(site: MarkingSite, _: SealedRecord) -> bytes:
    site.keyring.set_rules(suite=1)
    old = site.mark()
    # Somebody else raises it: the desk has not been told.
    Keyring(site.folder / "keys").set_rules(suite=2, least_suite=2)
    return asking(old).to_bytes()


def _of_another_site(site: MarkingSite, _: SealedRecord) -> bytes:
    other = MarkingSite(site.folder / "other")
    foreign = other.mark()
    other.close()
    told = other.keyring.site("other")
    site.keyring.add_site(told, as_recipient=False, as_trusted=True)
    return asking(foreign).to_bytes()


def _forged(_: MarkingSite, record: SealedRecord) -> bytes:
    forged = record.header[:-1] + bytes([record.header[-1] ^ 1])
    return asking(record, header=forged).to_bytes()


def _cut(_: MarkingSite, record: SealedRecord) -> bytes:
    return asking(record, header=record.header[:-1]).to_bytes()


def _signed_twice(site: MarkingSite, record: SealedRecord) -> bytes:
    """Only who has the signing key can do that."""
    header = parse(record.header)
    signed = header.signed[:-1] + bytes([header.signed[-1] ^ 1])
    signature = site.keyring.signer().sign(header.suite, "record", signed)
    return asking(record, header=signed + field(0x0D, signature)).to_bytes()


def _swapped(_: MarkingSite, record: SealedRecord) -> bytes:
    return asking(record, context=a_context("1.2.3")).to_bytes()


PUBLIC = [
    pytest.param("form", "version", lambda *_: b"{}", id="other fields"),
    pytest.param("form", "cut short", _cut, id="a header cut short"),
    pytest.param("suite", "below 02", _below_the_floor, id="a suite below the floor"),
    pytest.param("signer", "not trusted", _of_another_site, id="a trusted site's"),
    pytest.param("signature", "gateway signed", _forged, id="a forged signature"),
    pytest.param(
        "grant",
        "other AE titles",
        lambda _, r: asking(r, ae_title="OTHER").to_bytes(),
        id="another AE title",
    ),
    pytest.param(
        "grant",
        "other purposes",
        lambda _, r: asking(r, purpose="research").to_bytes(),
        id="another purpose",
    ),
    pytest.param(
        "ledger",
        "does not know it",
        lambda s, _: asking(s.seal()).to_bytes(),
        id="not known",
    ),
    pytest.param("ledger", "destroyed", _shredded, id="shredded"),
    pytest.param("ledger", "the ledger holds", _signed_twice, id="signed twice"),
    pytest.param("context", "another object", _swapped, id="another object"),
]


@pytest.mark.parametrize(("layer", "reason", "ask"), PUBLIC)
def test_what_is_public_is_checked_before_a_secret_is_used(
    site: MarkingSite,
    record: SealedRecord,
    layer: str,
    reason: str,
    ask: Callable[[MarkingSite, SealedRecord], bytes],
) -> None:
    desk = closed_desk(site)
    request = ask(site, record)
    assert refused(desk, request) == "the desk does not release this"
    said = site.last()
    assert (said["event"], said["layer"]) == ("refused", layer)
    assert reason in str(said["reason"])


@pytest.mark.parametrize(
    ("shown", "terms"),
    [
        pytest.param("", {}, id="no certificate"),
        pytest.param(OTHER_KEY, {}, id="another certificate"),
        pytest.param(KEY, {"not_before": NOW + DAY / 2}, id="not yet"),
        pytest.param(KEY, {"not_after": NOW - DAY / 2}, id="no longer"),
        pytest.param(KEY, {"studies": ("1.2.3",)}, id="another study"),
        pytest.param(KEY, {"sop_classes": ("1.2.3",)}, id="another SOP class"),
        pytest.param(KEY, {"mode": GrantMode.DIRECT}, id="a direct grant"),
        pytest.param(KEY, {"recipient": ""}, id="no site file"),
        pytest.param(KEY, {"recipient": "AAAA"}, id="no keys in its site file"),
        pytest.param("", {"fingerprint": "", "address": "h:1"}, id="an address"),
    ],
)
def test_a_grant_that_is_for_something_else_is_none(
    site: MarkingSite, shown: str, terms: dict[str, object]
) -> None:
    record = site.mark()
    site.grant(KEY, RECEIVER, **terms)
    refused(closed_desk(site), asking(record).to_bytes(), shown)
    assert site.last()["layer"] == "grant"


def test_a_grant_counts_once_approved_and_until_revoked(site: MarkingSite) -> None:
    record, desk = site.mark(), site.desk()
    request = asking(record).to_bytes()
    number = site.propose(KEY, RECEIVER)
    refused(desk, request)
    site.grants.approve(number, by="another", now=NOW)
    assert desk.answer(request, KEY)
    site.grants.revoke(number, by="one", now=NOW)
    refused(desk, request)
    assert "it was revoked" in str(site.last()["reason"])


def _no_stanza(site: MarkingSite, _: SealedRecord) -> None:
    version = site.keyring.rotate(KeyKind.EPOCH, NOW, 100)
    site.keyring.epochs.raise_floor(version)
    site.keyring.epochs.destroy_ended()


def _bad_stanza(site: MarkingSite, record: SealedRecord) -> None:
    record_id = parse(record.header).record_id
    site.ledger.rewrap([Rewrapped(record_id, 1, bytes(48))])


def _another_key(site: MarkingSite, record: SealedRecord) -> None:
    header = parse(record.header)
    stanza = site.keyring.epochs.newest().wrap(
        header.suite, bytes(32), header.stanza_info
    )
    site.ledger.rewrap([Rewrapped(header.record_id, 1, stanza.body)])


@pytest.mark.parametrize(
    ("layer", "spoil"),
    [
        pytest.param("stanza", _no_stanza, id="no stanza"),
        pytest.param("stanza", _bad_stanza, id="a bad stanza"),
        pytest.param("commitment", _another_key, id="another key in it"),
    ],
)
def test_what_is_secret_is_refused_after_the_same_work(
    site: MarkingSite,
    record: SealedRecord,
    monkeypatch: pytest.MonkeyPatch,
    layer: str,
    spoil: Callable[[MarkingSite, SealedRecord], None],
) -> None:
    spoil(site, record)
    done: list[str] = []
    unwrap = EpochKey.unwrap

    def unwrapping(self: EpochKey, *arguments: Any) -> bytes:
        done.append("unwrapped")
        return unwrap(self, *arguments)

    def believing(header: Header, key: bytes) -> None:
        done.append("derived")
        believe_key(header, key)

    monkeypatch.setattr(EpochKey, "unwrap", unwrapping)
    monkeypatch.setattr("dicom_node.desk.believe_key", believing)
    assert refused(site.desk(), asking(record).to_bytes()) == (
        "the desk does not release this"
    )
    assert done == ["unwrapped", "derived"]
    assert site.last()["layer"] == layer
