"""What an administrator types: a node joins, follows, is emptied and taken back."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.cli import main
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.state import State
from tests.fleet import NOON

CONFIG = """
[node]
state = "{name}"
[[destination]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = 104
[[route]]
name = "copies"
destination = "pacs"
action = "pass"
[storage]
least_free_mb = 0.0
reserve_mb = 0.0
"""


class Desk:
    """Types commands, and reads what they say."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys

    def __call__(self, line: str, *, fails: bool = False) -> str:
        words = [word.replace("@", f"{self.folder}/") for word in line.split()]
        code = main(words)
        said = self._capsys.readouterr()
        assert code == fails, said
        return said.err if fails else said.out

    def joined(self, name: str) -> None:
        told = self(f"nodes ask --name {name} --out @{name}.json --state @{name}")
        fingerprint = told.split()[-1]
        self(
            f"nodes admit @{name}.json --fingerprint {fingerprint} --state @lead",
        )
        told = self("nodes issue --out @charter.json --state @lead")
        site = told.split()[-1]
        self(f"nodes join @charter.json --fingerprint {site} --state @{name}")


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    for name in ("lead", "n1", "n2"):
        (tmp_path / f"{name}.toml").write_text(CONFIG.replace("{name}", name), "utf-8")
    made = Desk(tmp_path, capsys)
    made("keys init --state @lead")
    return made


def test_a_node_joins_and_follows(desk: Desk) -> None:
    desk.joined("n1")
    assert "n1, which follows; charter 1" in desk("nodes list --state @n1")
    assert "lead, which leads; charter 1" in desk("nodes list --state @lead")
    assert "from its site's charter" in desk(
        "keys rotate signing --state @n1", fails=True
    )
    desk("keys rotate signing --state @lead")
    desk("nodes issue --out @charter.json --state @lead")
    assert "charter 2 is taken" in desk("nodes take @charter.json --state @n1")
    assert "taken already" in desk("nodes take @charter.json --state @n1")
    fingerprints = {
        desk(f"keys list --state @{n}").splitlines()[0] for n in ("lead", "n1")
    }
    assert len(fingerprints) == 1
    desk("nodes dismiss n1 --state @lead")
    desk("nodes issue --out @charter.json --state @lead")
    assert "holds no keys" in desk("nodes take @charter.json --state @n1", fails=True)
    desk("nodes lead --why gone --state @n1")
    assert "n1, which leads; charter 2" in desk("nodes list --state @n1")


def test_a_request_that_was_exchanged_is_not_admitted(desk: Desk) -> None:
    desk("nodes ask --name n1 --out @n1.json --state @n1")
    told = desk("nodes ask --name n1 --out @other.json --state @other")
    line = f"nodes admit @n1.json --fingerprint {told.split()[-1]} --state @lead"
    assert "has the fingerprint" in desk(line, fails=True)
    assert "waits for the keys" in desk("keys list --state @n1", fails=True)


def test_a_node_is_emptied_and_taken_back(desk: Desk) -> None:
    desk.joined("n1")
    desk.joined("n2")
    state = State(desk.folder / "n1")
    spool, queue = state.spool(state.keys().spool), state.queue({"copies"})
    arrival = Arrival("1.2.3", bytes(32), spool.write([b"content"]))
    queue.add(arrival, [Owed("copies", "pacs")], NOON)
    queue.close()
    assert "is not being emptied" in desk(
        "drain pack --to n2 --out @over --config @n1.toml", fails=True
    )
    desk("nodes take @charter.json --state @n1")
    desk("drain start --by anna --why disk --config @n1.toml")
    main(["drain", "status", "--config", str(desk.folder / "n1.toml")])
    assert "no other node" in desk(
        "drain pack --to n3 --out @over --config @n1.toml", fails=True
    )
    told = desk("drain pack --to n2 --out @over --config @n1.toml")
    assert "1 instances, 1 jobs, 0 requests; for n2 alone" in told
    told = desk("drain take @over --receipt @receipt --config @n2.toml")
    assert "1 instances, 1 jobs: 1 are owed" in told
    assert "1 jobs are the other node's" in desk(
        "drain finish @receipt --config @n1.toml"
    )
    assert "handed to n2" in desk("drain status --config @n1.toml")
    desk("drain cancel --by anna --why done --config @n1.toml")
    assert "in service" in desk("drain status --config @n1.toml")
    desk("audit verify --state @n1")


def test_one_ledger_is_brought_into_another(desk: Desk) -> None:
    desk.joined("n1")
    desk("ledger copy @copy.sqlite --state @lead")
    assert "0 records" in desk("ledger merge @copy.sqlite --state @n1")
    assert "is there already" in desk(
        "ledger copy @copy.sqlite --state @n1", fails=True
    )
