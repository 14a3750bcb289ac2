"""Epochs end, keys change and grants are counted while other processes are at work."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.desk import DeskRefusedError
from dicom_node.errors import KeyServiceError
from dicom_node.keys.epochs import EpochRing
from dicom_node.keys.keyring import Keyring
from dicom_node.keys.ring import KeyKind
from dicom_node.keys.sealer import Sealer
from dicom_node.ledger import Ledger
from dicom_node.rewrapping import LedgerOpener, end_epochs, keep, rewrap_before
from miadmark_core.sealing.record import SealedRecord
from miadmark_core.sealing.seal import unseal
from miadmark_core.sealing.stanza import Opener
from tests.conftest import NOW
from tests.desks import KEY, RECEIVER, MarkingSite, asking


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring.make(tmp_path / "keys", NOW)


def sealed(keyring: Keyring, ledger: Ledger) -> SealedRecord:
    return Sealer(keyring, ledger.number).seal(b"secret", b"", method="test", now=NOW)


def opens(record: SealedRecord, keyring: Keyring, ledger: Ledger) -> bool:
    openers: list[Opener] = [LedgerOpener(keyring, ledger), keyring.epochs]
    opened = unseal(record, b"", openers=openers, trusted=keyring.trusted())
    return opened == b"secret"


def test_a_change_is_not_undone_by_who_read_the_ring_before(keyring: Keyring) -> None:
    other = Keyring(keyring.folder)
    assert keyring.rotate(KeyKind.EPOCH, NOW, 1) == 2
    other.set_rules(least_suite=2)
    other.keep_grant_entries(7, "head")
    again = Keyring(keyring.folder)
    assert again.epochs.newest().version == 2
    assert (again.ring.least_suite, again.ring.grant_entries) == (2, 7)
    assert other.rotate(KeyKind.EPOCH, NOW, 2) == 3


def test_changes_within_one_tick_of_the_clock_are_seen(keyring: Keyring) -> None:
    other = Keyring(keyring.folder)
    for version in range(2, 12):
        keyring.rotate(KeyKind.EPOCH, NOW, version)
        other.refresh()
        assert other.epochs.newest().version == version


def test_a_record_that_was_on_its_way_when_its_epoch_ended_is_made_again(
    keyring: Keyring, tmp_path: Path
) -> None:
    worker = Keyring(keyring.folder)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        record = sealed(worker, ledger)
        end_epochs(keyring, ledger, NOW)
        with pytest.raises(KeyServiceError, match="marked again"):
            keep(bytes(32), record, "", keyring=worker, ledger=ledger, now=NOW)
        again = sealed(worker, ledger)
        keep(bytes(32), again, "", keyring=worker, ledger=ledger, now=NOW)
        assert opens(again, worker, ledger)


def test_a_record_kept_between_the_passes_opens(
    keyring: Keyring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Keyring(keyring.folder)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        record = sealed(worker, ledger)

        def kept_meanwhile(*given: object) -> int:
            done = rewrap_before(*given)  # type: ignore[arg-type]
            keep(bytes(32), record, "", keyring=worker, ledger=ledger, now=NOW)
            monkeypatch.undo()
            return done

        monkeypatch.setattr("dicom_node.rewrapping.rewrap_before", kept_meanwhile)
        end_epochs(keyring, ledger, NOW)
        worker.refresh()
        assert opens(record, worker, ledger)
        assert keyring.epochs.of(1, is_ended=True) is None


def test_an_end_that_was_cut_off_is_repaired_by_another(
    keyring: Keyring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        record = sealed(keyring, ledger)
        keep(bytes(32), record, "", keyring=keyring, ledger=ledger, now=NOW)
        for name in ("raise_floor", "destroy_ended"):
            with monkeypatch.context() as patched:

                def dies(*_: object) -> None:
                    raise KeyboardInterrupt

                patched.setattr(EpochRing, name, dies)
                with pytest.raises(KeyboardInterrupt):
                    end_epochs(keyring, ledger, NOW)
            assert opens(record, Keyring(keyring.folder), ledger)
        end_epochs(keyring, ledger, NOW)
        assert opens(record, Keyring(keyring.folder), ledger)


def test_a_desk_asks_the_ledger_which_study_it_was(tmp_path: Path) -> None:
    """What the receiver says of its study opens nothing."""
    site = MarkingSite(tmp_path)
    try:
        site.grant(KEY, RECEIVER, studies=("1.2.3",))
        theirs, another = site.mark(study="1.2.3"), site.mark(study="4.5.6")
        desk = site.desk()
        claim = asking(another, study_instance_uid="1.2.3")
        with pytest.raises(DeskRefusedError):
            desk.answer(claim.to_bytes(), KEY)
        assert desk.answer(asking(theirs, study_instance_uid="").to_bytes(), KEY)
    finally:
        site.close()
