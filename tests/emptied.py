"""Two nodes of a site, one of which is emptied into the other."""

from __future__ import annotations

from pathlib import Path

from dicom_node.config import Config
from dicom_node.config_file import load
from dicom_node.draining import Drain, Phase
from dicom_node.emptying import finish, pack
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.state import State
from dicom_node.taking_over import take
from tests.fleet import NOON, Site

TABLES = """
[node]
ae_title = "GATEWAY"
state = "{state}"
[[destination]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = 104
[[route]]
name = "research"
destination = "pacs"
action = "mark"
[[route]]
name = "copies"
destination = "pacs"
action = "pass"
[storage]
least_free_mb = 0.0
reserve_mb = 0.0
"""


class Nodes:
    """Two of a site, and what one of them owes."""

    tables = TABLES
    """How either is configured, from the next time on that it is asked."""

    def __init__(self, folder: Path) -> None:
        self.site = Site(folder)
        self.first, self.second = self.site.joined("n1", "n2")
        self.folder = folder / "handover"

    def config(self, state: State) -> Config:
        file = state.folder.with_suffix(".toml")
        tables = self.tables.replace("{state}", str(state.folder))
        file.write_text(tables, "utf-8")
        return load(file)

    def owe(self, number: int, *routes: str, state: State | None = None) -> str:
        """Have an instance come in; return its UID."""
        at, uid = state or self.first, f"1.2.3.{number}"
        spool, queue = at.spool(at.keys().spool), at.queue({"copies"})
        name = spool.write([f"content of {number}".encode()])
        arrival = Arrival(uid, number.to_bytes(32), name, "1.2", "CT1", "1.2.840")
        queue.add(arrival, [Owed(r, "pacs") for r in routes], NOON)
        queue.close()
        return uid

    def pack(self, to: str = "n2") -> tuple[int, int]:
        keys = self.first.keys()
        given = pack(self.first, self.config(self.first), keys, to, self.folder)
        assert not given.lost
        return given.instances, given.jobs

    def take(self) -> tuple[tuple[int, int, int], bytes]:
        config = self.config(self.second)
        got, receipt = take(self.second, config, self.second.keys(), self.folder)
        return (got.instances, got.added, got.known), receipt

    def finish(self, receipt: bytes) -> int:
        config = self.config(self.first)
        return finish(self.first, config, self.first.keys(), receipt).jobs

    def begin(self) -> None:
        Drain(
            phase=Phase.SENDING,
            handover="ab" * 16,
            by="anna",
            why="disk",
            since="today",
        ).keep(self.first.folder)

    def counts(self, state: State) -> dict[str, int]:
        queue = state.queue()
        counts = {s.value: n for s, n in queue.counts().items() if n}
        assert all(tally.is_exact for tally in queue.tallies(NOON))
        queue.close()
        return counts

    def contents(self, state: State) -> list[bytes]:
        """What the spool holds that the queue needs."""
        spool, queue = state.spool(state.keys().spool), state.queue()
        files = sorted(queue.files())
        queue.close()
        found = []
        for name in files:
            with spool.file(name).open("rb") as stream:
                found.append(stream.read())
        lying = [f for f in spool._files() if f.parent == state.folder / "spool"]
        assert {file.name for file in lying} == set(files)
        return sorted(found)
