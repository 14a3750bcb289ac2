"""A site in a folder, sound in every part, to be damaged in one."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dicom_node.audit import Audit, Event
from dicom_node.authorising import GrantMode, Terms
from dicom_node.checkpoints import Checkpoint, keep
from dicom_node.doctor.case import Case
from dicom_node.doctor.examination import examined
from dicom_node.doctor.finding import Level
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.state import State
from tests.certificates import Authority
from tests.receivers import a_free_port

MONTHS = timedelta(days=90)

CONFIG = """\
[node]
ae_title = "GATEWAY"
state = "state"
fingerprint = "{fingerprint}"

[[listener]]
bind = "127.0.0.1"
port = {port}
certificate = "pki/gateway-cert.pem"
key = "pki/gateway-key.pem"
client_ca = "pki/hospital-cert.pem"
crl = "pki/hospital-crl.pem"

[[peer]]
ae_title = "CT1"
names = ["ct1.hospital.example"]

[[destination]]
name = "research"
ae_title = "RESEARCH"
host = "127.0.0.1"
port = {peer}

[[route]]
name = "marked"
destination = "research"
action = "mark"

[[hatch]]
name = "programs"
folder = "hatch"

[audit]
checkpoints = "checkpoints"

[storage]
least_free_mb = 1.0
least_free_inodes = 10
reserve_mb = 0.0
"""


@dataclass
class Site:
    """One of them."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "node.toml"

    @property
    def state(self) -> State:
        return State(self.folder / "state")

    @property
    def pki(self) -> Path:
        return self.folder / "pki"

    def say(self, old: str, new: str) -> None:
        """Have the configuration say something else."""
        text = self.config.read_text("utf-8")
        assert old in text
        self.config.write_text(text.replace(old, new), "utf-8")

    def add(self, tables: str) -> None:
        """Have the configuration say something more."""
        self.config.write_text(self.config.read_text("utf-8") + tables, "utf-8")

    def case(self, *, is_full: bool = False) -> Case:
        return Case.of(self.config, datetime.now(UTC), is_full=is_full)

    def wrong(self, *names: str, is_full: bool = False) -> list[str]:
        """What is wrong, each with the name of its check."""
        return [
            f"{one.about}: {one.finding.says}"
            for one in examined(self.case(is_full=is_full), names)
            if one.finding.level is Level.WRONG
        ]

    def as_it_is(self) -> dict[str, tuple[int, int, bytes]]:
        """Every file with its mode, the time it was written, and what is in it."""
        return {
            str(one.relative_to(self.folder)): (
                one.stat().st_mode,
                one.stat().st_mtime_ns,
                one.read_bytes() if one.is_file() else b"",
            )
            for one in sorted(self.folder.rglob("*"))
        }


def a_site(folder: Path) -> Site:
    """Make one that has been at work."""
    site = Site(folder)
    site.pki.mkdir(parents=True)
    authority = Authority(site.pki, "hospital")
    authority.certify(
        "hospital", until=MONTHS
    )  # takes the place of its short-lived one
    _renew(authority)
    gateway = authority.certify("gateway", until=MONTHS)
    authority.crl()
    gateway.key_file.chmod(0o600)
    keyring = site.state.keys()
    keyring.spool.rotate_if_due(datetime.now(UTC), MONTHS)
    _work(site)
    (folder / "hatch").mkdir(mode=0o700)
    site.config.write_text(
        CONFIG.format(
            fingerprint=keyring.site("").fingerprint,
            port=a_free_port(),
            peer=a_free_port(),
        ),
        "utf-8",
    )
    return site


def _renew(authority: Authority) -> None:
    """Let an authority's own certificate last."""
    authority.own = authority._issue("hospital", ca=True, until=MONTHS)


def _work(site: Site) -> None:
    """Have an instance wait, a grant be given, and an audit in several files."""
    state, keyring, now = site.state, site.state.keys(), datetime.now(UTC)
    with state.ledger() as ledger:
        ledger.number()
    terms = Terms(
        mode=GrantMode.MEDIATED,
        ae_titles=("ARCHIVE",),
        purposes=("treatment",),
        not_before=now,
        not_after=now + MONTHS,
        fingerprint="00" * 32,
    )
    with state.grants(keyring) as grants:
        number = grants.propose(terms, by="one", now=now)
        grants.approve(number, by="another", now=now)
    spool, queue = state.spool(keyring.spool), state.queue()
    name = spool.write([b"an object"])
    queue.add(
        Arrival("1.2.3", b"digest", name, "1.2"), [Owed("marked", "research")], now
    )
    queue.close()
    audit = Audit(
        state.folder / "audit.jsonl",
        keyring.derive(b"audit"),
        lambda: datetime.now(UTC),
        most_bytes=2000,
    )
    first = audit.add(Event.KEYS, did="made", by="test")
    for number in range(20):
        last = audit.add(Event.RECEIVED, peer="CT1", count=number)
    (site.folder / "checkpoints").mkdir()
    at = now.isoformat()
    keep(
        Checkpoint.made(first.digest, last, at, keyring.signer()),
        site.folder / "checkpoints",
    )


def copied(site: Site, folder: Path) -> Site:
    """Return a copy of a site, modes and times included."""
    shutil.copytree(site.folder, folder)
    return Site(folder)
