"""Keys that change under those who use them, and folders that others can write to."""

from __future__ import annotations

import os
import shutil
import sqlite3
from itertools import count
from pathlib import Path

import pytest

from dicom_node.audit import Audit, Event
from dicom_node.errors import AuditError, KeyFolderError, KeyServiceError, LedgerError
from dicom_node.grants import Grants
from dicom_node.keys.keyring import Keyring
from dicom_node.keys.ring import KeyKind
from dicom_node.keys.sealer import Sealer
from dicom_node.ledger import Ledger, Rewrapped
from dicom_node.rewrapping import LedgerOpener, end_epochs, keep
from miadmark_core.sealing.record import SealedRecord, parse
from miadmark_core.sealing.seal import unseal
from miadmark_core.sealing.stanza import Opener
from tests.conftest import NOW
from tests.unit.node.test_grants import REQUEST, given, terms


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring.make(tmp_path / "keys", NOW)


def sealed(keyring: Keyring, number: int = 1) -> SealedRecord:
    sealer = Sealer(keyring, lambda: number)
    return sealer.seal(b"secret", b"", method="test", now=NOW)


def opens(record: SealedRecord, keyring: Keyring, *more: Opener) -> bool:
    openers = [*more, keyring.epochs]
    opened = unseal(record, b"", openers=openers, trusted=keyring.trusted())
    return opened == b"secret"


def test_a_node_that_runs_follows_the_root(keyring: Keyring) -> None:
    worker = Keyring(keyring.folder)
    keyring.rotate_root()
    keyring.rotate_root()
    worker.rotate(KeyKind.EPOCH, NOW, 1)
    record = sealed(worker)
    assert opens(record, Keyring(keyring.folder))
    assert worker.root.version == 3
    assert opens(sealed(keyring), worker)


def test_what_was_signed_while_the_key_was_given_up_is_made_again(
    keyring: Keyring, tmp_path: Path
) -> None:
    worker = Keyring(keyring.folder)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        number = ledger.number()
        early, late = sealed(worker, number), sealed(worker, number + 1)
        keyring.rotate(KeyKind.SIGNING, NOW, number + 1)
        keyring.end_signing(ledger.last_number())
        keep(bytes(32), early, "", keyring=worker, ledger=ledger, now=NOW)
        with pytest.raises(KeyServiceError, match="marked again"):
            keep(bytes(32), late, "", keyring=worker, ledger=ledger, now=NOW)
        assert ledger.count() == 1
        end_epochs(keyring, ledger, NOW)  # no orphan is in its way
        assert opens(early, keyring, LedgerOpener(keyring, ledger))


def test_an_epoch_key_that_outlived_a_power_cut_goes_the_next_time(
    keyring: Keyring, tmp_path: Path
) -> None:
    saved = (keyring.folder / "epoch-1.key").read_bytes()
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        end_epochs(keyring, ledger, NOW)
        (keyring.folder / "epoch-1.key").write_bytes(saved)
        end_epochs(keyring, ledger, NOW)
    assert not (keyring.folder / "epoch-1.key").exists()


@pytest.mark.parametrize("part", ["recipients", "trusted"])
def test_a_site_file_that_was_slipped_in_is_refused(
    keyring: Keyring, tmp_path: Path, part: str
) -> None:
    thief = Keyring.make(tmp_path / "thief", NOW).site("thief")
    keyring.add_site(thief, as_recipient=True, as_trusted=True)
    assert len(keyring.sites(part)) == 1
    file = keyring.folder / part / "other.site"
    file.write_text(thief.to_text())
    with pytest.raises(KeyFolderError, match="was put there, or changed"):
        keyring.sites(part)
    file.unlink()
    (known,) = (keyring.folder / part).iterdir()
    known.write_text(thief.to_text() + "last_sequence = 1\n")
    with pytest.raises(KeyFolderError, match="was put there, or changed"):
        keyring.sites(part)


def test_another_history_of_grants_is_not_ours_however_well_signed(
    keyring: Keyring, tmp_path: Path
) -> None:
    shutil.copytree(keyring.folder, tmp_path / "stolen")
    with Grants(tmp_path / "grants.sqlite", keyring) as grants:
        grants.revoke(given(grants), by="one", now=NOW)
    keyring.rotate(KeyKind.SIGNING, NOW, 1)
    thief = Keyring(tmp_path / "stolen")
    with Grants(tmp_path / "fork.sqlite", thief) as fork:
        given(fork)
        fork.propose(terms(), by="one", now=NOW)
    with (
        Grants(tmp_path / "fork.sqlite", Keyring(keyring.folder)) as forged,
        pytest.raises(LedgerError, match="another history"),
    ):
        forged.require(REQUEST, NOW)


def test_a_disk_that_takes_a_part_of_an_entry_has_not_taken_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = Audit(tmp_path / "audit.jsonl", bytes(32), lambda: NOW)
    audit.add(Event.KEYS, did="first")
    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda stream, line: write(stream, line[:40]))
        with pytest.raises(AuditError, match="No space left"):
            audit.add(Event.RELEASED, how="x")
    with pytest.raises(AuditError, match="too long"):
        audit.add(Event.GRANT, ae_titles="A" * 17_000)
    audit.add(Event.KEYS, did="second")
    assert [entry["did"] for entry in audit.entries()] == ["first", "second"]


def test_a_ledger_knows_of_which_study_a_record_is(
    keyring: Keyring, tmp_path: Path
) -> None:
    numbers = count(1)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        record = sealed(keyring, next(numbers))
        keep(bytes(32), record, "1.2.3", keyring=keyring, ledger=ledger, now=NOW)
        rows = sqlite3.connect(tmp_path / "ledger.sqlite")
        ((record_id,),) = rows.execute("SELECT record_id FROM record").fetchall()
        rows.close()
        assert ledger.study_of(record_id) == "1.2.3"
        assert ledger.study_of(bytes(16)) == ""


def test_a_forged_ring_is_refused_however_often_it_is_looked_at(
    keyring: Keyring,
) -> None:
    file = keyring.folder / "ring.json"
    true = file.read_text()
    file.write_text(true.replace('"least_suite": 1', '"least_suite": 0'))
    for _ in range(3):
        with pytest.raises(KeyFolderError):
            keyring.refresh()
        assert keyring.ring.least_suite == 1
    file.write_text(true)
    keyring.refresh()


def test_what_people_brought_back_outlives_the_next_epoch(
    keyring: Keyring, tmp_path: Path
) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        record = sealed(keyring)
        header = parse(record.header)
        key = keyring.epochs.object_key(header)
        assert key is not None
        end_epochs(keyring, ledger, NOW)
        ledger.add(bytes(32), record, NOW, is_closed=True)
        end_epochs(keyring, ledger, NOW)  # what is closed is in nobody's way
        present = keyring.epochs.newest()
        body = present.wrap(header.suite, key, header.stanza_info).body
        ledger.rewrap([Rewrapped(header.record_id, present.version, body)])
        end_epochs(keyring, ledger, NOW)
        assert opens(record, keyring, LedgerOpener(keyring, ledger))
