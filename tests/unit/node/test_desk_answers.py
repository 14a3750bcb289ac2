"""The desk without a socket: what it gives out, and what has to be done before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from dicom_node.asking import NoRequestError
from dicom_node.audit import Audit
from dicom_node.desk import DeskUnavailableError
from dicom_node.errors import KeyFolderError, KeyServiceError, LedgerError, NodeError
from dicom_node.keys.epochs import EpochRing
from dicom_node.keys.ring import KeyKind
from dicom_node.rewrapping import end_epochs
from miadmark_core.errors import DamagedSealError
from miadmark_core.sealing.record import SealedRecord, parse
from miadmark_core.sealing.seal import opened
from tests.desks import (
    KEY,
    NOW,
    OTHER_KEY,
    PAYLOAD,
    RECEIVER,
    MarkingSite,
    asking,
    key_in,
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


def test_the_answer_opens_the_record_and_is_written_down(
    site: MarkingSite, record: SealedRecord
) -> None:
    key = key_in(site.desk().answer(asking(record).to_bytes(), KEY), record)
    header = parse(record.header)
    assert opened(header, record.payload, key) == PAYLOAD
    said = site.last()
    assert (said["event"], said["record"]) == ("released", header.record_id.hex())
    assert (said["grant"], said["certificate_key"]) == (1, KEY[:16])
    assert (said["ae_title"], said["purpose"]) == ("ARCHIVE", "treatment")


def test_an_answer_opens_for_its_own_request_only(
    site: MarkingSite, record: SealedRecord
) -> None:
    answered = site.desk().answer(asking(record).to_bytes(), KEY)
    with pytest.raises(DamagedSealError):
        key_in(answered, record, nonce=b"another, later..")
    with pytest.raises(DamagedSealError):
        key_in(answered, site.mark())


def test_a_record_of_an_ended_epoch_is_released_through_the_ledger(
    site: MarkingSite, record: SealedRecord
) -> None:
    end_epochs(site.keyring, site.ledger, NOW)
    assert site.keyring.epochs.object_key(parse(record.header)) is None
    answered = site.desk().answer(asking(record).to_bytes(), KEY)
    assert opened(parse(record.header), record.payload, key_in(answered, record))


def test_a_signing_key_that_was_given_up_still_vouches_for_what_it_signed(
    site: MarkingSite, record: SealedRecord
) -> None:
    site.keyring.rotate(KeyKind.SIGNING, NOW, site.ledger.last_number() + 1)
    assert site.desk().answer(asking(record).to_bytes(), KEY)


def test_nothing_is_released_that_cannot_be_written_down(
    site: MarkingSite, record: SealedRecord
) -> None:
    site.audit = Audit(Path("/dev/full"), b"key", site.clock)
    with pytest.raises(DeskUnavailableError):
        site.desk().answer(asking(record).to_bytes(), KEY)


def test_a_refusal_that_cannot_be_written_down_is_one(
    site: MarkingSite, record: SealedRecord
) -> None:
    site.audit = Audit(Path("/dev/full"), b"key", site.clock)
    refused(site.desk(), asking(record, purpose="research").to_bytes())


def test_an_entry_is_on_disk_before_the_answer(
    site: MarkingSite, record: SealedRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    site.desk().answer(asking(record).to_bytes(), KEY)
    assert synced


@pytest.mark.parametrize("error", [KeyServiceError, LedgerError, KeyFolderError])
def test_trouble_that_passes_is_no_refusal(
    site: MarkingSite,
    record: SealedRecord,
    monkeypatch: pytest.MonkeyPatch,
    error: type[NodeError],
) -> None:
    def fails(*_: object, **__: object) -> NoReturn:
        raise error("for now")

    monkeypatch.setattr(EpochRing, "of", fails)
    with pytest.raises(DeskUnavailableError, match="the desk cannot answer now"):
        site.desk().answer(asking(record).to_bytes(), KEY)


def test_who_asks_too_often_waits_and_nobody_else_does(
    site: MarkingSite, record: SealedRecord
) -> None:
    desk, request = site.desk(per_minute=2), asking(record).to_bytes()
    for _ in range(2):
        assert desk.answer(request, KEY)
    with pytest.raises(DeskUnavailableError):
        desk.answer(request, KEY)
    refused(desk, request, OTHER_KEY)


def test_what_is_no_json_is_told_so_and_not_written_down(site: MarkingSite) -> None:
    with pytest.raises(NoRequestError):
        site.desk().answer(b"GET", KEY)
    assert site.audit.head().number == 0
