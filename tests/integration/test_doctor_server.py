"""What stands in a database on a server is looked at there, and left as it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicom_node.authorising import GrantMode, Terms
from dicom_node.doctor.case import Case
from dicom_node.doctor.examination import examined
from dicom_node.postgres import Server
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queueing import Queueing
from dicom_node.state import State
from tests.postgres_server import PostgresServer
from tests.sites import MONTHS

CHECKS = ("state", "keys", "databases", "queue", "grants", "audit")


@pytest.fixture
def place(postgres: PostgresServer, tmp_path: Path) -> Iterator[Queueing]:
    (tmp_path / "shared").mkdir(mode=0o700)
    made = replace(postgres.database(), shared=tmp_path / "shared")
    yield made
    postgres.drop(made)


@pytest.fixture
def state(place: Queueing, tmp_path: Path) -> State:
    """One whose queue and grants are on a server, and keys and spool in a folder."""
    made, now = State(tmp_path / "state"), datetime.now(UTC)
    made.attach(place)
    keyring = made.keys()
    keyring.spool.rotate_if_due(now, MONTHS)
    queue, name = made.queue(), made.spool(keyring.spool).write([b"an object"])
    queue.add(
        Arrival("1.2.3", b"digest", name, "1.2"), [Owed("marked", "research")], now
    )
    queue.close()
    terms = Terms(
        mode=GrantMode.MEDIATED,
        ae_titles=("ARCHIVE",),
        purposes=("treatment",),
        not_before=now,
        not_after=now + MONTHS,
        fingerprint="00" * 32,
    )
    with made.grants(keyring) as grants:
        grants.approve(grants.propose(terms, by="one", now=now), by="two", now=now)
    return made


def found(state: State) -> list[str]:
    case = Case(state=state.folder, now=datetime.now(UTC))
    return [
        f"{one.finding.level} {one.about}: {one.finding.says}"
        for one in examined(case, CHECKS)
    ]


def test_what_is_on_a_server_is_looked_at(state: State, place: Queueing) -> None:
    said = found(state)
    assert not [one for one in said if one.startswith("wrong")], said
    assert "ok queue: 1 jobs on their way, 0 sent" in said
    assert "ok grants: 1 grants in force, as signed" in said
    assert any(one.startswith("ok databases: the database at") for one in said)

    (spooled,) = (state.files / "spool").glob("*.sealed")
    spooled.unlink()
    with Server(place) as server:
        server.execute("UPDATE entry SET body = ? WHERE number = 2", [b"{}"])
    said = found(state)
    assert "wrong queue: 1 files that are owed are not in the spool" in said
    assert any(one.startswith("wrong grants: entry 2 of") for one in said), said


def test_a_server_that_is_gone_is_named(
    state: State, place: Queueing, postgres: PostgresServer
) -> None:
    postgres.drop(place)
    assert any(one.startswith("wrong databases: queue: ") for one in found(state))
