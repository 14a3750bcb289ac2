"""Ten thousand records through five rotations: each opens, or not, as predicted."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from dicom_node.keys.keyring import Keyring
from dicom_node.keys.ring import KeyKind
from dicom_node.keys.sealer import Sealer
from dicom_node.ledger import Ledger, Rewrapped
from dicom_node.rewrapping import LedgerOpener, end_epochs
from miadmark_core.errors import NoStanzaError
from miadmark_core.sealing.recipients import Identity
from miadmark_core.sealing.record import SealedRecord, parse
from miadmark_core.sealing.seal import believe_key, object_key, opened, require_suite
from miadmark_core.sealing.stanza import Opener, StanzaType
from tests.conftest import NOW

COUNT, ROTATIONS, SHREDDED = 10_000, 5, 20
EVERY = COUNT // ROTATIONS
REVOKED_AT = COUNT // 2
SUITE_CHANGED_AT = COUNT // 5


@dataclass
class Site:
    """A site that marks for a long time, and what comes of it."""

    folder: Path
    records: list[SealedRecord] = field(default_factory=list)
    receiver: Identity = field(default_factory=lambda: Identity(os.urandom(32)))

    def __post_init__(self) -> None:
        self.keyring = Keyring.make(self.folder / "keys", NOW)
        self.people = Identity(os.urandom(32), StanzaType.RECOVERY)
        self.keyring.set_rules(suite=1, recovery=self.people.recipient)
        self.ledger = Ledger(self.folder / "ledger.sqlite")

    def live(self) -> None:
        for number in range(COUNT):
            if number == SUITE_CHANGED_AT:
                self.keyring.set_rules(suite=2)
            if number % EVERY == EVERY // 2:
                self.keyring.rotate(KeyKind.EPOCH, NOW, self.ledger.last_number())
            to = (self.receiver.recipient,) if number < REVOKED_AT else ()
            sealer = Sealer(self.keyring, self.ledger.number, to)
            self.records.append(
                sealer.seal(payload(number), b"", method="test", now=NOW)
            )
        self.fill()

    def fill(self, start: int = 0) -> None:
        """Put the records from ``start`` on into the ledger."""
        # One by one is a disk's sync each; what is measured here is another thing.
        self.ledger._database.execute("PRAGMA synchronous = OFF")
        for number in range(start, len(self.records)):
            self.ledger.add(number.to_bytes(32), self.records[number], NOW)

    def opens(self, *openers: Opener) -> set[int]:
        """Return which records open, and to what they should."""
        found = set()
        for number, record in enumerate(self.records):
            header = parse(record.header)
            require_suite(header, 1)
            try:
                key = object_key(header, openers)
            except NoStanzaError:
                continue
            assert opened(header, record.payload, key) == payload(number)
            found.add(number)
        return found


def payload(number: int) -> bytes:
    return b"what undoes mark %d" % number


def test_nothing_is_lost_and_nothing_opens_that_should_not(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.live()
    everything = set(range(COUNT))
    assert site.keyring.epochs.newest().version == 1 + ROTATIONS
    assert {parse(r.header).suite.number for r in site.records} == {1, 2}
    assert site.opens(site.keyring.epochs) == everything
    assert site.opens(site.receiver) == set(range(REVOKED_AT))

    gone = set(range(SHREDDED))
    for number in gone:
        site.ledger.shred(parse(site.records[number].header).record_id, "test", NOW)
    end_epochs(site.keyring, site.ledger, NOW)
    again = Keyring(site.keyring.folder)
    ledger_opener = LedgerOpener(again, site.ledger)
    assert site.opens(again.epochs) == set()
    assert site.opens(ledger_opener) == everything - gone

    late = Sealer(again, site.ledger.number).seal(
        payload(COUNT), b"", method="test", now=NOW
    )
    site.records.append(late)
    site.ledger.add(COUNT.to_bytes(32), late, NOW)
    assert site.opens(again.epochs) == {COUNT}

    site.ledger.__exit__(None, None, None)
    for file in tmp_path.glob("ledger.sqlite*"):
        file.unlink()
    site.ledger = Ledger(tmp_path / "ledger.sqlite")
    site.fill(SHREDDED)
    rebuilt = LedgerOpener(again, site.ledger)
    assert site.opens(rebuilt, again.epochs) == {COUNT}
    assert site.ledger.last_number() == COUNT + 1

    present = again.epochs.newest()
    for record in site.records[SHREDDED:]:
        header = parse(record.header)
        key = object_key(header, [site.people])
        believe_key(header, key)
        body = present.wrap(header.suite, key, header.stanza_info).body
        site.ledger.rewrap([Rewrapped(header.record_id, present.version, body)])
    assert site.opens(rebuilt, again.epochs) == (everything | {COUNT}) - gone
