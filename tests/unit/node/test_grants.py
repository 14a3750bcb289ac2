"""Grants are given by two people, taken back by one, and never changed on the quiet."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from dicom_node.authorising import GrantMode, Release, Request, Terms
from dicom_node.errors import LedgerError, NotGrantedError
from dicom_node.grants import Grants
from dicom_node.keys.keyring import Keyring
from dicom_node.keys.ring import KeyKind
from dicom_node.tables import FileDatabase
from miadmark_core.sealing.suites import HYBRID
from tests.conftest import NOW

DAY = timedelta(days=1)
KEY = "ab" * 32


def terms(**more: object) -> Terms:
    values: dict[str, object] = {
        "mode": GrantMode.MEDIATED,
        "ae_titles": ("ARCHIVE",),
        "purposes": ("treatment",),
        "not_before": NOW,
        "not_after": NOW + DAY,
        "fingerprint": KEY,
    }
    return Terms(**values | more)  # type: ignore[arg-type]


REQUEST = Request(
    release=Release.SENT,
    tenant=b"",
    own_tenant=b"",
    ae_title="ARCHIVE",
    fingerprint=KEY,
    purpose="treatment",
    sop_class_uid="1.2",
    study_instance_uid="3.4",
)


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring.make(tmp_path / "keys", NOW)


@pytest.fixture
def grants(keyring: Keyring, tmp_path: Path) -> Iterator[Grants]:
    with Grants(tmp_path / "grants.sqlite", keyring) as opened:
        yield opened


def given(grants: Grants) -> int:
    number = grants.propose(terms(), by="one", now=NOW)
    grants.approve(number, by="another", now=NOW)
    return number


def test_one_person_proposes_and_another_approves(grants: Grants) -> None:
    number = grants.propose(terms(), by="one", now=NOW)
    with pytest.raises(NotGrantedError, match="waits for approval"):
        grants.require(REQUEST, NOW)
    with pytest.raises(NotGrantedError, match="agrees to grant 1 already"):
        grants.approve(number, by="one", now=NOW)
    grants.approve(number, by="another", now=NOW)
    assert grants.require(REQUEST, NOW).id == number


def test_one_person_takes_it_back_and_it_stays_on_record(grants: Grants) -> None:
    number = given(grants)
    grants.revoke(number, by="third", now=NOW)
    grants.revoke(number, by="fourth", now=NOW)
    with pytest.raises(NotGrantedError, match="was revoked"):
        grants.require(REQUEST, NOW)
    with pytest.raises(NotGrantedError, match="revoked by third"):
        grants.approve(number, by="fifth", now=NOW)
    (grant,) = grants.all()
    assert (grant.revoked_by, grant.approved_by) == ("third", ("another",))


def test_a_rule_is_for_what_is_proposed_after_it(grants: Grants) -> None:
    before = grants.propose(terms(), by="one", now=NOW)
    grants.set_approvals(1, by="one", now=NOW)
    grants.set_approvals(1, by="one", now=NOW)
    assert grants.approvals == 2  # one person does not let one be enough
    grants.set_approvals(1, by="another", now=NOW)
    assert grants.approvals == 1
    after = grants.propose(terms(), by="one", now=NOW)
    assert not grants.grant(before).is_approved
    assert grants.grant(after).is_approved
    with pytest.raises(ValueError, match="at least one"):
        grants.set_approvals(0, by="one", now=NOW)


def test_a_site_of_one_person_says_so_before_it_has_grants(grants: Grants) -> None:
    grants.set_approvals(1, by="one", now=NOW)
    assert grants.grant(grants.propose(terms(), by="one", now=NOW)).is_approved


def test_of_no_number_there_is_no_grant(grants: Grants) -> None:
    for ask in (grants.approve, grants.revoke):
        with pytest.raises(NotGrantedError, match="no grant 7"):
            ask(7, by="one", now=NOW)


@pytest.mark.parametrize(
    "wrong",
    [
        {"fingerprint": ""},
        {"address": "h:1"},
        {"ae_titles": ()},
        {"purposes": ()},
        {"not_after": NOW},
        {"mode": GrantMode.DIRECT},
        {"mode": GrantMode.DIRECT, "fingerprint": "", "address": "h:1"},
    ],
    ids=" ".join,
)
def test_terms_that_prove_nothing_are_no_terms(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="grant"):
        terms(**wrong)


def edited(rows: list[tuple[int, bytes, bytes]]) -> list[tuple[int, bytes, bytes]]:
    number, body, signature = rows[0]
    return [(number, body.replace(b"ARCHIVE", b"THIEVES"), signature), *rows[1:]]


def swapped(rows: list[tuple[int, bytes, bytes]]) -> list[tuple[int, bytes, bytes]]:
    (a, x, y), (b, v, w), *rest = rows
    return [(a, v, w), (b, x, y), *rest]


Tamper = Callable[[list[tuple[int, bytes, bytes]]], list[tuple[int, bytes, bytes]]]


@pytest.mark.parametrize(
    "tamper",
    [
        pytest.param(edited, id="edited"),
        pytest.param(swapped, id="swapped"),
        pytest.param(lambda r: r[1:], id="the first taken out"),
        pytest.param(lambda r: [r[0], *r[2:]], id="one taken out"),
        pytest.param(lambda r: r[:-1], id="the last taken out"),
        pytest.param(lambda r: [*r, (9, r[0][1], r[0][2])], id="one put in again"),
        pytest.param(lambda r: [*r, (4, b"{}", bytes(3373))], id="one made up"),
        pytest.param(
            lambda r: [(n, b, s[:-1] + bytes([s[-1] ^ 1])) for n, b, s in r],
            id="signatures changed",
        ),
        pytest.param(
            lambda r: [(n, b, s[:64] + bytes(3309)) for n, b, s in r],
            id="half of the signatures",
        ),
    ],
)
def test_a_changed_log_grants_nothing(
    grants: Grants, keyring: Keyring, tmp_path: Path, tamper: Tamper
) -> None:
    grants.revoke(given(grants), by="one", now=NOW)
    database = sqlite3.connect(tmp_path / "grants.sqlite", isolation_level=None)
    rows = database.execute("SELECT * FROM entry ORDER BY number").fetchall()
    database.execute("DELETE FROM entry")
    database.executemany("INSERT INTO entry VALUES (?, ?, ?)", tamper(rows))
    database.close()
    with (
        Grants(tmp_path / "grants.sqlite", keyring) as changed,
        pytest.raises(LedgerError),
    ):
        changed.require(REQUEST, NOW)


def test_an_older_copy_is_seen_to_be_older(
    grants: Grants, keyring: Keyring, tmp_path: Path
) -> None:
    number = given(grants)
    with sqlite3.connect(tmp_path / "old.sqlite") as copy:
        assert isinstance(grants._database, FileDatabase)
        grants._database._connection.backup(copy)
    grants.revoke(number, by="one", now=NOW)
    with (
        Grants(tmp_path / "old.sqlite", keyring) as old,
        pytest.raises(LedgerError, match="older copy: 2 of 3"),
    ):
        old.require(REQUEST, NOW)


def test_another_sites_log_is_not_ours(grants: Grants, tmp_path: Path) -> None:
    given(grants)
    other = Keyring.make(tmp_path / "other", NOW)
    with (
        Grants(tmp_path / "grants.sqlite", other) as theirs,
        pytest.raises(LedgerError, match="not what this site signed"),
    ):
        theirs.all()


def test_a_key_that_was_given_up_signs_no_entry_after_its_successors(
    grants: Grants, keyring: Keyring, tmp_path: Path
) -> None:
    shutil.copytree(keyring.folder, tmp_path / "stolen")
    stolen = Keyring(tmp_path / "stolen")
    number = given(grants)
    keyring.rotate(KeyKind.SIGNING, NOW, 1)
    grants.revoke(number, by="one", now=NOW)
    grants.all()
    body = (
        b'{"at": "", "before": "%b", "by": "x", "did": "rule", "approvals": 1, '
        b'"number": 4}' % grants._before.encode()
    )
    signature = stolen.signer().sign(HYBRID, "grant", body)
    grants._database.execute("INSERT INTO entry VALUES (4, ?, ?)", (body, signature))
    with pytest.raises(LedgerError, match="entry 4"):
        grants.all()


def test_two_at_work_see_one_another(
    grants: Grants, keyring: Keyring, tmp_path: Path
) -> None:
    with Grants(tmp_path / "grants.sqlite", Keyring(keyring.folder)) as others:
        number = grants.propose(terms(), by="one", now=NOW)
        others.approve(number, by="another", now=NOW)
        assert grants.require(REQUEST, NOW).id == number
        others.revoke(number, by="one", now=NOW)
        with pytest.raises(NotGrantedError):
            grants.require(REQUEST, NOW)
