"""A site with several nodes, each with a state folder of its own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dicom_node.following import take_from
from dicom_node.keys.joining import ask, join
from dicom_node.keys.keyring import Keyring
from dicom_node.keys.roots import generated_passphrase
from dicom_node.state import State

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@dataclass
class Site:
    """One that leads, and others that follow."""

    folder: Path
    moment: datetime = NOON

    @property
    def lead(self) -> State:
        return State(self.folder / "lead", lambda: self.moment)

    def node(self, name: str) -> State:
        return State(self.folder / name, lambda: self.moment)

    def issue(self, search: str = "") -> bytes:
        self.moment += timedelta(minutes=1)
        keys = self.lead.keys()
        with self.lead.grants(keys) as grants:
            return keys.nodes.issue(grants.entries(), self.moment, search)

    def joined(self, *names: str, search: str = "") -> list[State]:
        """Have nodes ask, be admitted, and join."""
        lead = self.lead.keys()
        for name in names:
            asking = ask(self.folder / name, name, generated_passphrase)
            lead.nodes.admit(name, asking.recipient)
        charter = self.issue(search)
        for name in names:
            pin = lead.site("").fingerprint
            join(self.folder / name, charter, pin, self.moment, "charter")
            self.take(name, charter)
        return [self.node(name) for name in names]

    def take(self, name: str, charter: bytes) -> bool:
        """Say whether it was new."""
        state = self.node(name)
        return (
            take_from(state, state.keys(), charter, "charter", self.moment) is not None
        )

    def keys(self, name: str) -> Keyring:
        return self.node(name).keys()
