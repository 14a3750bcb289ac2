"""An AE title alone proves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicom_node.errors import NotGrantedError
from dicom_node.grants import Grants, Receiver

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
KEY, OTHER_KEY = "ab" * 32, "cd" * 32


@pytest.fixture
def grants(tmp_path: Path) -> Iterator[Grants]:
    with Grants(tmp_path / "grants.sqlite") as opened:
        yield opened


def give(grants: Grants, *, key: str = "", address: str = "") -> int:
    return grants.add(
        ae_title="ARCHIVE",
        fingerprint=key,
        address=address,
        not_after=NOON + timedelta(days=1),
        granted_by="test",
        now=NOON,
    )


def receiver(title: str = "ARCHIVE", address: str = "h:1", key: str = "") -> Receiver:
    return Receiver(ae_title=title, address=address, fingerprint=key)


def test_the_granted_key_is_let_in(grants: Grants) -> None:
    number = give(grants, key=KEY)
    assert grants.require(receiver(key=KEY), NOON).id == number


@pytest.mark.parametrize(
    "who",
    [
        pytest.param(receiver(), id="the title alone"),
        pytest.param(receiver(key=OTHER_KEY), id="another key"),
        pytest.param(receiver("OTHER", key=KEY), id="another title"),
    ],
)
def test_nobody_else_is(grants: Grants, who: Receiver) -> None:
    give(grants, key=KEY)
    with pytest.raises(NotGrantedError):
        grants.require(who, NOON)


def test_a_grant_ends(grants: Grants) -> None:
    give(grants, key=KEY)
    with pytest.raises(NotGrantedError):
        grants.require(receiver(key=KEY), NOON + timedelta(days=2))


def test_a_revoked_grant_is_none_and_stays_on_record(grants: Grants) -> None:
    number = give(grants, key=KEY)
    assert grants.revoke(number, revoked_by="test", now=NOON)
    with pytest.raises(NotGrantedError):
        grants.require(receiver(key=KEY), NOON)
    assert [grant.is_revoked for grant in grants.all()] == [True]


def test_an_insecure_grant_is_for_one_address_without_tls(grants: Grants) -> None:
    give(grants, address="h:1")
    grants.require(receiver(), NOON)
    for who in (receiver(address="h:2"), receiver(key=KEY)):
        with pytest.raises(NotGrantedError):
            grants.require(who, NOON)


def test_a_grant_names_one_of_both(grants: Grants) -> None:
    for key, address in (("", ""), (KEY, "h:1")):
        with pytest.raises(ValueError, match="one of them"):
            give(grants, key=key, address=address)
