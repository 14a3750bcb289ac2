"""What the nodes of one site have in common: who may change it, and who believes it."""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from dicom_node.authorising import GrantMode, Terms
from dicom_node.errors import KeyFolderError, LedgerError
from dicom_node.keys.epochs import EpochRing
from dicom_node.keys.joining import Asking, ask, join
from dicom_node.keys.keyring import Keyring
from dicom_node.keys.ring import KeyKind
from dicom_node.keys.roots import generated_passphrase
from dicom_node.keys.sealer import Sealer
from dicom_node.rewrapping import LedgerOpener, end_epochs, keep
from dicom_node.state import State
from miadmark_core.sealing.record import SealedRecord, parse
from tests.fleet import NOON, Site

TERMS = Terms(
    ae_titles=("ARCHIVE",),
    fingerprint="ab" * 32,
    not_before=NOON,
    not_after=NOON + timedelta(days=30),
    purposes=("treatment",),
    mode=GrantMode.MEDIATED,
)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def sealed(state: State, keys: Keyring) -> SealedRecord:
    """A record that a node has made and keeps."""
    with state.ledger() as ledger:
        record = Sealer(keys, ledger.number).seal(
            b"payload", b"context", method="test/1", now=NOON
        )
        keep(bytes(32), record, "1.2", keyring=keys, ledger=ledger, now=NOON)
    return record


def test_every_node_derives_the_same_and_seals_its_spool_alone(site: Site) -> None:
    site.joined("n1", "n2")
    rings = [site.lead.keys(), site.keys("n1"), site.keys("n2")]
    assert len({keys.derive(b"anything") for keys in rings}) == 1
    assert len({keys.epochs.newest().secret for keys in rings}) == 1
    assert len({keys.site("").to_text() for keys in rings}) == 1
    assert len({keys.spool.newest().secret for keys in rings}) == 3
    assert len({keys.nodes.identity(NOON).seed for keys in rings}) == 3
    assert len({keys.root.wrap(bytes(32), b"")[:40] for keys in rings}) == 3


def test_a_charter_opens_for_those_it_names_and_says_nothing_secret(site: Site) -> None:
    site.joined("n1")
    ask(site.folder / "n2", "n2", generated_passphrase)
    charter = site.issue()
    pin = site.lead.keys().site("").fingerprint
    with pytest.raises(KeyFolderError, match="holds no keys for the node 'n2'"):
        join(site.folder / "n2", charter, pin, NOON, "charter")
    body = base64.b64decode(json.loads(charter)["body"])
    keys = site.lead.keys()
    for secret in (keys.derive(b""), keys.epochs.newest().secret, keys.signer().seed):
        for form in (secret, secret.hex().encode(), base64.b64encode(secret)):
            assert form not in body


def test_a_node_joins_the_site_that_was_compared_by_telephone(site: Site) -> None:
    other = Site(site.folder / "other")
    asking = ask(site.folder / "n1", "n1", generated_passphrase)
    other.lead.keys().nodes.admit("n1", asking.recipient)
    pin = site.lead.keys().site("").fingerprint
    with pytest.raises(KeyFolderError, match=f"and not by {pin}"):
        join(site.folder / "n1", other.issue(), pin, NOON, "charter")
    with pytest.raises(KeyFolderError, match="waits for the keys of its site"):
        site.node("n1").keys()


def test_a_request_that_was_exchanged_has_another_fingerprint(site: Site) -> None:
    mine = ask(site.folder / "n1", "n1", generated_passphrase)
    file = site.folder / "request"
    file.write_bytes(mine.to_bytes())
    assert Asking.read(file) == mine
    assert ask(site.folder / "n1", "n1", generated_passphrase) == mine
    other = ask(site.folder / "n2", "n2", generated_passphrase)
    assert Asking("n1", other.recipient).fingerprint != mine.fingerprint
    assert Asking("n2", mine.recipient).fingerprint != mine.fingerprint


def test_an_older_charter_is_refused_and_another_of_the_same_number(site: Site) -> None:
    site.joined("n1")
    older, newer = site.issue(), site.issue()
    assert site.take("n1", newer)
    assert not site.take("n1", newer)
    with pytest.raises(KeyFolderError, match="is charter 2, and 3 was taken"):
        site.take("n1", older)
    backup = site.folder / "lead"
    public = dict(site.lead.keys().ring.public) | {"charter/issued": "2"}
    store = site.lead.keys()._store
    with store.changing():
        store.write(replace(store.ring, public=public))
    assert backup.exists()
    with pytest.raises(KeyFolderError, match="is another charter 3"):
        site.take("n1", site.issue())


@pytest.mark.parametrize("part", ["body", "signatures"])
def test_a_charter_that_was_changed_is_refused(site: Site, part: str) -> None:
    site.joined("n1")
    values = json.loads(site.issue())
    if part == "body":
        body = json.loads(base64.b64decode(values["body"]))
        body["number"] += 1
        values["body"] = base64.b64encode(json.dumps(body).encode()).decode()
    else:
        values["signatures"] = {}
    with pytest.raises(KeyFolderError, match="is not signed by"):
        site.take("n1", json.dumps(values).encode())
    assert site.keys("n1").nodes.number == 1


def test_what_the_lead_grants_and_revokes_reaches_the_nodes(site: Site) -> None:
    (node,) = site.joined("n1")
    lead = site.lead.keys()
    with site.lead.grants(lead) as grants:
        number = grants.propose(TERMS, by="anna", now=NOON)
        grants.approve(number, by="otto", now=NOON)
    assert site.take("n1", site.issue())
    with node.grants(node.keys()) as mine:
        assert mine.grant(number).is_approved
        with site.lead.grants(lead) as grants:
            grants.revoke(number, by="anna", now=NOON)
        charter = site.issue()
        assert mine.grant(number).revoked_by == ""
        assert site.take("n1", charter)
        assert mine.grant(number).revoked_by == "anna"


def test_a_node_that_follows_changes_nothing_of_the_site(site: Site) -> None:
    (node,) = site.joined("n1")
    keys = node.keys()
    site_file = replace(Site(site.folder / "other").lead.keys().site("o"), name="o")
    with node.grants(keys) as grants, node.ledger() as ledger:
        for change in (
            lambda: grants.propose(TERMS, by="anna", now=NOON),
            lambda: keys.rotate(KeyKind.EPOCH, NOON, 1),
            lambda: keys.rotate(KeyKind.SIGNING, NOON, 1),
            lambda: keys.set_rules(least_suite=2),
            lambda: keys.add_site(site_file, as_recipient=True, as_trusted=False),
            lambda: keys.nodes.issue([], NOON),
            lambda: end_epochs(keys, ledger, NOON),
        ):
            with pytest.raises(KeyFolderError, match="from its site's charter"):
                change()
    assert not keys.epochs.rotate_if_due(NOON + timedelta(days=400), 1)
    assert keys.rotate_root() == 2  # that is its own


def test_sites_and_rules_come_with_the_charter(site: Site) -> None:
    (node,) = site.joined("n1")
    other = Site(site.folder / "other").lead.keys().site("partner")
    lead = site.lead.keys()
    lead.add_site(other, as_recipient=True, as_trusted=True)
    lead.set_rules(least_suite=2)
    assert site.take("n1", site.issue())
    keys = node.keys()
    assert [one.name for one in keys.sites("recipients")] == ["partner"]
    assert [one.name for one in keys.sites("trusted")] == ["partner"]
    assert (keys.ring.least_suite, keys.ring.policy) == (2, lead.ring.policy)


def test_an_epoch_ends_on_a_node_once_its_own_records_open_without(site: Site) -> None:
    (node,) = site.joined("n1")
    keys = node.keys()
    header = parse(sealed(node, keys).header)
    key = keys.epochs.object_key(header)
    lead = site.lead.keys()
    with site.lead.ledger() as ledger:
        assert end_epochs(lead, ledger, NOON) == 2
    assert site.take("n1", site.issue())
    keys.refresh()
    assert keys.epochs.object_key(header) is None
    with pytest.raises(StopIteration):
        keys.ring.entry(KeyKind.EPOCH, 3)
    assert keys.ring.entry(KeyKind.EPOCH, 1).is_destroyed
    assert not (node.folder / "keys" / "epoch-1.key").exists()
    with node.ledger() as ledger:
        assert LedgerOpener(keys, ledger).object_key(header) == key


def test_what_one_node_seals_another_opens(site: Site) -> None:
    first, second = site.joined("n1", "n2")
    record = sealed(first, first.keys())
    header = parse(record.header)
    keys = second.keys()
    keys.trusted().verify(header)
    assert keys.epochs.object_key(header) == first.keys().epochs.object_key(header)


def test_a_node_that_missed_a_rotation_believes_the_key_that_it_knows(
    site: Site,
) -> None:
    (node,) = site.joined("n1")
    for _ in range(2):
        lead = site.lead.keys()
        lead.rotate(KeyKind.SIGNING, NOON, 1)
        lead.end_signing(0)
    assert site.take("n1", site.issue())
    assert node.keys().signer().verifier == site.lead.keys().signer().verifier
    # Other nodes number their records by themselves, so that none is beyond the last.
    assert all(
        entry.last_sequence is None
        for entry in node.keys().ring.keys
        if entry.kind is KeyKind.SIGNING
    )


def test_a_charter_that_was_taken_by_half_is_taken_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    (node,) = site.joined("n1")
    lead = site.lead.keys()
    sealed(node, node.keys())
    with site.lead.ledger() as ledger:
        end_epochs(lead, ledger, NOON)
    charter = site.issue()
    with monkeypatch.context() as patched:
        patched.setattr(EpochRing, "raise_floor", _power_cut)
        with pytest.raises(OSError, match="the power went"):
            site.take("n1", charter)
    assert (node.folder / "keys" / "epoch-1.key").exists()
    assert node.keys().nodes.number == 1
    assert site.take("n1", charter)
    assert node.keys().ring.entry(KeyKind.EPOCH, 1).is_destroyed


def _power_cut(*_: object) -> None:
    raise OSError("the power went")


def test_another_history_of_grants_is_refused(site: Site) -> None:
    (node,) = site.joined("n1")
    backup = (site.folder / "lead" / "grants.sqlite").read_bytes()
    with site.lead.grants(site.lead.keys()) as grants:
        grants.propose(TERMS, by="anna", now=NOON)
    assert site.take("n1", site.issue())
    for file in (site.folder / "lead").glob("grants.sqlite*"):
        file.unlink()
    (site.folder / "lead" / "grants.sqlite").write_bytes(backup)
    lead = site.lead.keys()
    with lead._store.changing():
        ring = replace(lead.ring, grant_entries=0, grant_head="")
        lead._store.write(ring)
    with site.lead.grants(lead) as grants:
        grants.propose(TERMS, by="eve", now=NOON)
    with pytest.raises(LedgerError, match="another history"):
        site.take("n1", site.issue())
    with node.grants(node.keys()) as mine:
        assert [one.proposed_by for one in mine.all()] == ["anna"]


@pytest.mark.parametrize("is_rotated", [False, True])
def test_a_lead_from_an_old_backup_takes_no_key_away(
    site: Site, *, is_rotated: bool
) -> None:
    (node,) = site.joined("n1")
    keys = site.lead.folder / "keys"
    shutil.copytree(keys, site.folder / "backup")
    site.lead.keys().rotate(KeyKind.EPOCH, NOON, 1)
    assert site.take("n1", site.issue())
    epoch = node.keys().epochs.newest()
    assert epoch.version == 2
    shutil.rmtree(keys)
    shutil.copytree(site.folder / "backup", keys)
    if is_rotated:
        site.lead.keys().rotate(KeyKind.EPOCH, NOON, 1)
    site.issue()
    with pytest.raises(KeyFolderError, match="has another epoch key 2"):
        site.take("n1", site.issue())
    assert node.keys().epochs.newest() == epoch


def test_a_node_leads_on_with_numbers_above(site: Site) -> None:
    first, _ = site.joined("n1", "n2")
    keys = first.keys()
    keys.nodes.become_lead()
    with first.grants(keys) as grants:
        charter = keys.nodes.issue(grants.entries(), NOON)
    assert site.take("n2", charter)
    assert site.keys("n2").nodes.number == 2
    with pytest.raises(KeyFolderError, match="takes no charter"):
        site.take("n1", charter)


def test_a_dismissed_node_gets_no_later_keys(site: Site) -> None:
    site.joined("n1")
    site.lead.keys().nodes.dismiss("n1")
    with pytest.raises(KeyFolderError, match="holds no keys for the node 'n1'"):
        site.take("n1", site.issue())
