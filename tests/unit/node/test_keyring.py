"""A site's keys: sealed under a root, rotated without loss, and told to nobody."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest

from dicom_node.errors import KeyFolderError, KeyServiceError
from dicom_node.keys.epochs import MAX_EPOCH_RECORDS
from dicom_node.keys.keyring import Keyring
from dicom_node.keys.passphrase import PassphraseRoot
from dicom_node.keys.ring import KeyKind
from dicom_node.keys.sealer import Sealer
from dicom_node.keys.site import Site, read_site
from dicom_node.keys.store import CACHE_S, KeyStore
from miadmark_core.sealing.record import SealedRecord
from miadmark_core.sealing.seal import unseal
from tests.conftest import NOW


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring.make(tmp_path / "keys", NOW)


def sealed(keyring: Keyring) -> SealedRecord:
    return Sealer(keyring, lambda: 1).seal(b"secret", b"", method="test", now=NOW)


def assert_opens(record: SealedRecord, keyring: Keyring) -> None:
    trusted = keyring.trusted()
    assert unseal(record, b"", openers=[keyring.epochs], trusted=trusted) == b"secret"


def all_secrets(keyring: Keyring) -> list[bytes]:
    store = KeyStore(keyring.folder)
    return [store.secret(entry.kind, entry.version) for entry in store.ring.keys]


def test_nothing_secret_is_in_the_open(keyring: Keyring) -> None:
    told = repr(keyring.ring) + repr(keyring) + repr(keyring.signer())
    told += repr(keyring.identities()) + repr(keyring.epochs.newest())
    content = b"".join(f.read_bytes() for f in keyring.folder.iterdir() if f.is_file())
    for secret in all_secrets(keyring):
        assert secret not in content
        assert secret.hex() not in told
        assert repr(secret) not in told
    for file in keyring.folder.iterdir():
        assert file.is_dir() or file.stat().st_mode & 0o077 == 0, file


def changed(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(values: dict[str, Any]) -> None:
        values[name] = value

    return change


def revived(values: dict[str, Any]) -> None:
    values["keys"][3]["is_destroyed"] = True


@pytest.mark.parametrize(
    "change",
    [
        changed("least_epoch", 0),
        changed("least_suite", 0),
        changed("suite", 1),
        changed("policy", 7),
        changed("tenant", "00" * 16),
        changed("grant_entries", 99),
        changed("public", {"recovery": ""}),
        changed("hmac", "00" * 32),
        changed("hmac", "\u00e9"),
        revived,
        lambda values: values["keys"].pop(),
    ],
)
def test_who_cannot_open_the_keys_changes_no_rule(
    keyring: Keyring, change: Callable[[dict[str, Any]], object]
) -> None:
    file = keyring.folder / "ring.json"
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))
    with pytest.raises(KeyFolderError):
        Keyring(keyring.folder)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"\xff"])
def test_a_ring_that_is_none_is_said_to_be_damaged(
    keyring: Keyring, content: bytes
) -> None:
    (keyring.folder / "ring.json").write_bytes(content)
    with pytest.raises(KeyFolderError):
        Keyring(keyring.folder)


def test_a_sealed_key_is_good_for_its_own_place_only(
    keyring: Keyring, tmp_path: Path
) -> None:
    other = Keyring.make(tmp_path / "other", NOW)
    epoch, identity = (keyring.folder / f"{k}-1.key" for k in ("epoch", "identity"))
    for stolen in (identity, other.folder / "epoch-1.key"):
        epoch.write_bytes(stolen.read_bytes())
        with pytest.raises(KeyFolderError):
            Keyring(keyring.folder).epochs.newest()


def test_a_root_that_closes_closes_the_site_within_ten_minutes(
    keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    store = KeyStore(keyring.folder, monotonic=lambda: now[0])
    store.secret(KeyKind.EPOCH, 1)

    def down(*_: object) -> NoReturn:
        raise KeyServiceError("down")

    monkeypatch.setattr(PassphraseRoot, "unwrap", down)
    now[0] = CACHE_S - 1
    assert store.secret(KeyKind.EPOCH, 1)
    now[0] = CACHE_S + 1
    with pytest.raises(KeyServiceError):
        store.secret(KeyKind.EPOCH, 1)


def test_rotation_opens_what_was_sealed_before(keyring: Keyring) -> None:
    records, sites = [sealed(keyring)], [keyring.site("").fingerprint]
    for kind in (KeyKind.EPOCH, KeyKind.SIGNING, KeyKind.IDENTITY):
        assert keyring.rotate(kind, NOW, 2) == 2
        records.append(sealed(keyring))
        sites.append(keyring.site("").fingerprint)
    assert len(set(sites)) == 2
    again = Keyring(keyring.folder)
    for record in records:
        assert_opens(record, again)
    assert len(again.identities()) == 2
    with pytest.raises(KeyFolderError, match="cannot be another"):
        keyring.rotate(KeyKind.DERIVATION, NOW, 2)


def test_a_new_root_version_seals_every_key(keyring: Keyring) -> None:
    record, secrets = sealed(keyring), all_secrets(keyring)
    assert keyring.rotate_root() == 2
    assert all_secrets(keyring) == secrets
    assert_opens(record, Keyring(keyring.folder))
    wrapped = [f.read_bytes() for f in keyring.folder.glob("*.key")]
    assert {keyring.root.version_of(one) for one in wrapped} == {2}


def test_a_root_rotation_that_is_cut_off_loses_nothing(
    keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, secrets = sealed(keyring), all_secrets(keyring)
    wrap = PassphraseRoot.wrap
    for fails_at in range(len(secrets)):
        calls = iter(range(100))

        def limited(
            self: PassphraseRoot, secret: bytes, context: bytes, last: int = fails_at
        ) -> bytes:
            if next(calls) == last:  # noqa: B023 of this very turn
                raise KeyServiceError("the power went")
            return wrap(self, secret, context)

        with monkeypatch.context() as patched:
            patched.setattr(PassphraseRoot, "wrap", limited)
            with pytest.raises(KeyServiceError):
                Keyring(keyring.folder).rotate_root()
        assert all_secrets(keyring) == secrets
        assert_opens(record, Keyring(keyring.folder))
    Keyring(keyring.folder).rotate_root()
    assert all_secrets(keyring) == secrets


def test_an_epoch_ends_by_age_and_by_number(keyring: Keyring) -> None:
    assert not keyring.epochs.rotate_if_due(NOW + timedelta(days=89), 5)
    assert keyring.epochs.rotate_if_due(NOW + timedelta(days=90), 5)
    assert not keyring.epochs.rotate_if_due(
        NOW + timedelta(days=90), 4 + MAX_EPOCH_RECORDS
    )
    assert keyring.epochs.rotate_if_due(NOW + timedelta(days=90), 5 + MAX_EPOCH_RECORDS)
    assert keyring.epochs.newest().version == 3


def test_ended_epochs_open_nothing_and_the_present_one_does_not_end(
    keyring: Keyring,
) -> None:
    record = sealed(keyring)
    with pytest.raises(KeyFolderError, match="has not begun"):
        keyring.epochs.raise_floor(2)
    keyring.rotate(KeyKind.EPOCH, NOW, 2)
    keyring.epochs.raise_floor(2)
    assert keyring.epochs.of(1) is None
    assert keyring.epochs.of(1, is_ended=True) is not None
    keyring.epochs.destroy_ended()
    assert keyring.epochs.of(1, is_ended=True) is None
    assert not (keyring.folder / "epoch-1.key").exists()
    with pytest.raises(Exception, match="not sealed to this identity"):
        assert_opens(record, Keyring(keyring.folder))
    assert_opens(sealed(keyring), Keyring(keyring.folder))


def test_rules_are_counted_and_make_sense(keyring: Keyring) -> None:
    keyring.set_rules(suite=1)
    assert (keyring.suite.number, keyring.ring.policy) == (1, 2)
    with pytest.raises(KeyFolderError, match="below what is opened"):
        keyring.set_rules(least_suite=2)
    keyring.set_rules(suite=2, least_suite=2)
    assert Keyring(keyring.folder).ring.policy == 3


def test_keys_of_an_earlier_version_are_named(tmp_path: Path) -> None:
    (tmp_path / "identity.pem").write_text("-----BEGIN PRIVATE KEY-----")
    with pytest.raises(KeyFolderError, match=r"version 0\.1"):
        Keyring(tmp_path)
    with pytest.raises(KeyFolderError, match="holds keys already"):
        Keyring.make(tmp_path, NOW)


def test_a_site_file_comes_back_as_it_was(keyring: Keyring, tmp_path: Path) -> None:
    site = keyring.site('A "quoted"\nname')
    file = tmp_path / "a.site"
    file.write_text(site.to_text())
    read = read_site(file)
    assert (read.tenant, read.recipient, read.verifier) == (
        (site.tenant, site.recipient, site.verifier)
    )
    assert read.fingerprint in file.read_text()
    for secret in all_secrets(keyring):
        assert secret.hex() not in file.read_text()


def test_a_site_that_claims_to_be_ours_is_not_taken_in(
    keyring: Keyring, tmp_path: Path
) -> None:
    theirs = Keyring.make(tmp_path / "theirs", NOW).site("theirs")
    posing = replace(theirs, tenant=keyring.ring.tenant)
    with pytest.raises(KeyFolderError, match="says that it is this site"):
        keyring.add_site(posing, as_recipient=False, as_trusted=True)
    assert keyring.sites("trusted") == []


def test_junk_is_no_site_file(keyring: Keyring, tmp_path: Path) -> None:
    text = keyring.site("a").to_text()
    for junk in (
        "",
        text + "last_sequence = inf\n",
        text + "deep = " + "[" * 5000,
        "name = 1",
        text.replace("tenant", "tenants"),
        text.replace('tenant = "', 'tenant = "00'),
        text.replace('verifier = "', 'verifier = "AAAA'),
        text.replace('recipient = "', 'recipient = "!'),
    ):
        with pytest.raises(KeyFolderError, match="no site file"):
            Site.from_text(junk, "x")
    (tmp_path / "x").write_bytes(os.urandom(100))
    with pytest.raises(KeyFolderError):
        read_site(tmp_path / "x")
