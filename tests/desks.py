"""A site with a release desk, receivers with certificates: what tests of both need."""

from __future__ import annotations

import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest
import urllib3

from dicom_node.asking import PATH, Asked, answer_info, sealed_in
from dicom_node.audit import Audit
from dicom_node.authorising import GrantMode, Terms
from dicom_node.config import ReleaseDesk, RemoteDesk
from dicom_node.desk import PER_MINUTE, Desk, DeskRefusedError
from dicom_node.grants import Grants
from dicom_node.keys.desk import DeskClient
from dicom_node.keys.keyring import Keyring
from dicom_node.keys.sealer import Sealer
from dicom_node.ledger import Ledger
from dicom_node.web.desk import serve_desk
from miadmark_core.sealing.recipients import Identity
from miadmark_core.sealing.record import SealedRecord, parse
from miadmark_core.sealing.seal import unseal
from miadmark_core.sealing.signing import TrustedSigners
from tests.certificates import DAY, Authority, Credential

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
CT = "1.2.840.10008.5.1.4.1.1.2"
STUDY = "1.2.826.0.1.3680043.8.498.4711"
OBJECT = "1.2.826.0.1.3680043.8.498.4712"
PAYLOAD = b"what undoes the mark"
RECEIVER = Identity.of_seed(bytes(range(32)))
KEY, OTHER_KEY = "ab" * 32, "cd" * 32
"""Fingerprints of certificates, where none has to be shown."""


def a_context(instance: str = OBJECT, sop_class: str = CT) -> bytes:
    lines = ("miadmark object 1", f"sop class {sop_class}", f"sop instance {instance}")
    return "\n".join(lines).encode("ascii")


@dataclass
class MarkingSite:
    """Marks, and releases: everything but the images."""

    folder: Path
    clock: Callable[[], datetime] = lambda: NOW
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.keyring = Keyring.make(self.folder / "keys", NOW)
        self.ledger, self.grants, self.audit = self.opened(self.keyring)

    def opened(self, keyring: Keyring) -> tuple[Ledger, Grants, Audit]:
        return (
            Ledger(self.folder / "ledger.sqlite"),
            Grants(self.folder / "grants.sqlite", keyring),
            Audit(self.folder / "audit", keyring.derive(b"audit"), self.clock),
        )

    def close(self) -> None:
        self.ledger.__exit__(None, None, None)
        self.grants.__exit__(None, None, None)

    def desk(self, per_minute: int = PER_MINUTE) -> Desk:
        return Desk(
            self.keyring, self.ledger, self.grants, self.audit, self.clock, per_minute
        )

    def seal(self, context: bytes | None = None) -> SealedRecord:
        return Sealer(self.keyring, self.ledger.number).seal(
            PAYLOAD, context or a_context(), method="test", now=NOW
        )

    def mark(self, context: bytes | None = None, study: str = STUDY) -> SealedRecord:
        record = self.seal(context)
        self.ledger.add(next(self.numbers).to_bytes(32), record, NOW, study)
        return record

    def propose(self, certificate_key: str, identity: Identity, **more: object) -> int:
        values: dict[str, object] = {
            "mode": GrantMode.MEDIATED,
            "ae_titles": ("ARCHIVE",),
            "purposes": ("treatment",),
            "not_before": NOW - DAY,
            "not_after": NOW + DAY,
            "fingerprint": certificate_key,
            "recipient": b64encode(identity.recipient.encoded).decode("ascii"),
        }
        terms = Terms(**values | more)  # type: ignore[arg-type]
        return self.grants.propose(terms, by="one", now=NOW)

    def grant(self, certificate_key: str, identity: Identity, **more: object) -> int:
        number = self.propose(certificate_key, identity, **more)
        self.grants.approve(number, by="another", now=NOW)
        return number

    def last(self) -> dict[str, object]:
        return list(self.audit.entries())[-1]


def asking(record: SealedRecord, **more: object) -> Asked:
    values: dict[str, object] = {
        "header": record.header,
        "context": a_context(),
        "ae_title": "ARCHIVE",
        "purpose": "treatment",
        "study_instance_uid": STUDY,
        "nonce": bytes(16),
    }
    return Asked(**values | more)  # type: ignore[arg-type]


def key_in(answered: bytes, record: SealedRecord, nonce: bytes = bytes(16)) -> bytes:
    header = parse(record.header)
    info = answer_info(header, nonce)
    return RECEIVER.unwrap(header.suite, sealed_in(answered), info)


def refused(desk: Desk, request: bytes, shown: str = KEY) -> str:
    """Ask what is to be refused; return the words."""
    with pytest.raises(DeskRefusedError) as caught:
        desk.answer(request, shown)
    return str(caught.value)


@contextmanager
def serving(
    site: MarkingSite,
    credential: Credential,
    authority: Authority,
    *,
    crl: Path | None = None,
    audit: Path | None = None,
    per_minute: int = PER_MINUTE,
) -> Iterator[str]:
    """Run a desk in a thread, with its own handles of all files; yield its address."""
    settings = ReleaseDesk(
        certificate=credential.file,
        key=credential.key_file,
        client_ca=authority.own.file,
        crl=crl,
        port=0,
    )
    ports: list[int] = []
    is_ready, stopping = threading.Event(), threading.Event()

    def ready(port: int) -> None:
        ports.append(port)
        is_ready.set()

    def run() -> None:
        keyring = Keyring(site.folder / "keys")
        ledger, grants, kept = site.opened(keyring)
        if audit is not None:
            kept = Audit(audit, keyring.derive(b"audit"), site.clock)
        desk = Desk(keyring, ledger, grants, kept, site.clock, per_minute)
        with ledger, grants:
            serve_desk(desk, settings, ready=ready, stopping=stopping.is_set)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert is_ready.wait(30)
        yield f"https://127.0.0.1:{ports[0]}"
    finally:
        stopping.set()
        thread.join(30)
        assert not thread.is_alive()


@dataclass
class World:
    """A marking site with its desk, and the authority that certifies both sides."""

    site: MarkingSite
    authority: Authority
    desk: Credential
    archive: Credential
    """A receiver's; it holds a grant from the start."""
    address: str = ""

    def client(
        self,
        credential: Credential | None = None,
        *,
        ae_title: str = "ARCHIVE",
        purpose: str = "treatment",
        gateway: str = "",
        ca: Path | None = None,
        identity: Identity = RECEIVER,
        sleep: Callable[[float], None] = time.sleep,
    ) -> DeskClient:
        shown = credential or self.archive
        remote = RemoteDesk(
            address=self.address,
            gateway=gateway or self.site.keyring.site("site").fingerprint,
            ca=ca or self.authority.own.file,
            certificate=shown.file,
            key=shown.key_file,
            purpose=purpose,
        )
        return DeskClient(remote, ae_title, [Identity(bytes(32)), identity], sleep)

    def open(
        self, record: SealedRecord, client: DeskClient | None = None, study: str = STUDY
    ) -> bytes:
        trust = self.site.keyring.site("site").trust
        return unseal(
            record,
            parse(record.header).context,
            openers=[(client or self.client()).opener(study)],
            trusted=TrustedSigners({trust.verifier.id: trust}),
        )

    def post(
        self, body: bytes, credential: Credential | None = None, path: str = PATH
    ) -> tuple[int, bytes]:
        shown = credential or self.archive
        with urllib3.PoolManager(
            ca_certs=str(self.authority.own.file),
            cert_file=str(shown.file),
            key_file=str(shown.key_file),
            retries=False,
        ) as pool:
            response = pool.request("POST", self.address + path, body=body)
            assert "aiohttp" not in response.headers["Server"]
            return response.status, response.data


@contextmanager
def a_world(folder: Path) -> Iterator[World]:
    """Make it, and run its desk."""
    authority = Authority(folder, "authority")
    desk, archive = authority.certify("desk"), authority.certify("archive")
    site = MarkingSite(folder / "site")
    site.grant(archive.fingerprint, RECEIVER)
    made = World(site, authority, desk, archive)
    with serving(site, desk, authority) as made.address:
        yield made
    site.close()
