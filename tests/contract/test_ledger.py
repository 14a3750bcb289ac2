"""What a ledger keeps, and what lies beside it, in files and on a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from dicom_node.authorising import GrantMode, Terms
from dicom_node.errors import AnotherMarkError, LostRecordError, ShreddedError
from dicom_node.found_marks import FoundMarks
from dicom_node.grants import Grants
from dicom_node.keys.keyring import Keyring
from dicom_node.keys.sealer import Sealer
from dicom_node.ledger import Ledger
from dicom_node.listings import Listings, ToList
from dicom_node.queueing import Queueing
from dicom_node.renamings import Renamings
from dicom_node.rewrapping import LedgerOpener, end_epochs, keep
from miadmark_core.errors import DamagedSealError
from miadmark_core.sealing.record import SealedRecord, parse
from miadmark_core.sealing.seal import unseal
from miadmark_core.sealing.stanza import Opener
from miadmark_core.search.finder import FoundMark
from tests.conftest import NOW, opened

Place = Callable[[str], Path | Queueing]
MINUTE = timedelta(minutes=1)


@pytest.fixture(params=["sqlite", "postgres"])
def at(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Says where the tables of a file are."""
    if request.param == "sqlite":
        return lambda name: tmp_path / name
    place: Queueing = request.getfixturevalue("place")
    return lambda _: place


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring.make(tmp_path / "keys", NOW)


@pytest.fixture
def ledger(at: Place) -> Iterator[Ledger]:
    with Ledger(at("ledger.sqlite")) as ledger:
        yield ledger


def sealed(keyring: Keyring, ledger: Ledger, secret: bytes = b"secret") -> SealedRecord:
    return Sealer(keyring, ledger.number).seal(secret, b"", method="test", now=NOW)


def test_a_record_is_found_as_it_was_kept(keyring: Keyring, ledger: Ledger) -> None:
    first, second = sealed(keyring, ledger), sealed(keyring, ledger, b"another")
    for record in (first, first, second):
        ledger.add(b"\0digest" * 4, record, NOW, "1.2")
    assert ledger.count() == 2
    assert ledger.find(b"\0digest" * 4) == second  # the newest
    assert ledger.find(bytes(32)) is None
    header = parse(first.header)
    assert ledger.header_of(header.record_id) == first.header
    assert ledger.study_of(header.record_id) == "1.2"
    ledger.require_standing(header, first.header)
    with pytest.raises(DamagedSealError):
        ledger.require_standing(header, second.header)
    ledger.forget(header.record_id)
    with pytest.raises(LostRecordError):
        ledger.require_standing(header, first.header)


def test_numbers_go_on_behind_those_of_records_from_elsewhere(
    keyring: Keyring, ledger: Ledger, at: Place
) -> None:
    assert ledger.last_number() == 0
    record = Sealer(keyring, lambda: 41).seal(b"s", b"", method="test", now=NOW)
    ledger.add(bytes(32), record, NOW)
    ledger.add(bytes(32), sealed(keyring, ledger), NOW)
    with Ledger(at("ledger.sqlite")) as other:
        assert (ledger.number(), other.number(), ledger.number()) == (43, 44, 45)


def test_nobody_is_given_a_number_twice(at: Place) -> None:
    def numbers(_: int) -> list[int]:
        with Ledger(at("ledger.sqlite")) as ledger:
            return [ledger.number() for _ in range(20)]

    with ThreadPoolExecutor(4) as threads:
        found = [one for each in threads.map(numbers, range(4)) for one in each]
    assert sorted(found) == list(range(1, 81))


def test_records_open_after_their_epoch_has_ended(
    keyring: Keyring, ledger: Ledger
) -> None:
    record = sealed(keyring, ledger)
    keep(bytes(32), record, "", keyring=keyring, ledger=ledger, now=NOW)
    end_epochs(keyring, ledger, NOW)
    again = Keyring(keyring.folder)
    openers: list[Opener] = [LedgerOpener(again, ledger), again.epochs]
    opened = unseal(record, b"", openers=openers, trusted=again.trusted())
    assert opened == b"secret"


def test_what_is_shredded_is_gone_and_known_to_be(
    keyring: Keyring, ledger: Ledger, at: Place
) -> None:
    record, found = sealed(keyring, ledger), some_mark()
    header = parse(record.header)
    with FoundMarks(at("ledger.sqlite"), keyring.derive) as marks:
        marks.keep(b"original", [found], bytes(32))
        ledger.add(bytes(32), record, NOW)
        ledger.shred(header.record_id, "who", NOW)
        assert ledger.find(bytes(32)) is None
        assert marks.find(b"original") is None
        with pytest.raises(AnotherMarkError):
            marks.keep(b"original", [found], b"\1" * 32)
    with pytest.raises(ShreddedError, match="2026"):
        ledger.require_standing(header, record.header)


def some_mark() -> FoundMark:
    grid = np.arange(64, dtype=np.int8).reshape(8, 8, 1)
    return FoundMark(grid, {"one": True})


def test_an_original_goes_out_with_one_mark(keyring: Keyring, at: Place) -> None:
    mark = some_mark()
    with (
        FoundMarks(at("ledger.sqlite"), keyring.derive) as one,
        FoundMarks(at("ledger.sqlite"), keyring.derive) as other,
    ):
        assert one.find(b"original") is None
        one.keep(b"original", [mark], bytes(32))
        other.keep(b"original", [mark], bytes(32))
        found = other.find(b"original")
        assert found is not None
        np.testing.assert_array_equal(found[0].steps, mark.steps)
        with pytest.raises(AnotherMarkError):
            other.keep(b"original", [mark], b"\1" * 32)


def test_the_last_name_of_what_was_renamed_is_found(
    keyring: Keyring, at: Place
) -> None:
    with Renamings(at("ledger.sqlite"), keyring.derive) as renamings:
        for derived in ("9.1", "9.2", "9.2"):
            renamings.add("1.1", derived)
        assert renamings.find("1.1") == "9.2"
        assert renamings.find("1.2") is None


def test_grants_are_seen_by_whoever_has_them_open(keyring: Keyring, at: Place) -> None:
    terms = Terms(
        mode=GrantMode.MEDIATED,
        ae_titles=("ARCHIVE",),
        purposes=("treatment",),
        not_before=NOW,
        not_after=NOW + timedelta(days=1),
        fingerprint="ab" * 32,
    )
    with (
        Grants(at("grants.sqlite"), keyring) as one,
        Grants(at("grants.sqlite"), Keyring(keyring.folder)) as other,
    ):
        number = one.propose(terms, by="one", now=NOW)
        other.approve(number, by="another", now=NOW)
        assert one.grant(number).approved_by == ("another",)
        assert other.propose(terms, by="one", now=NOW) == 3
        one.revoke(number, by="third", now=NOW)
        assert other.grant(number).revoked_by == "third"


def test_what_is_to_be_listed_is_listed_once(
    images: Path, keyring: Keyring, at: Place
) -> None:
    marked = ToList.of(opened(images / "ct.dcm"))
    with (
        closing(Listings(at("listings.sqlite"), keyring.derive)) as one,
        closing(Listings(at("listings.sqlite"), keyring.derive)) as other,
    ):
        one.note("r", marked, NOW)
        other.note("r", marked, NOW + MINUTE)
        assert one.quiet("r", NOW) is None
        study = one.quiet("r", NOW + MINUTE)
        assert study is not None
        assert len(study.objects) == 1
        document = one.document(study)
        assert other.document(study).to_bytes() == document.to_bytes()
        # What was sent again since is listed again.
        other.note("r", marked, NOW + 2 * MINUTE)
        one.forget(study)
        assert other.quiet("r", NOW + 2 * MINUTE) is not None
        one.keep_only([])
        assert other.quiet("r", NOW + 2 * MINUTE) is None
