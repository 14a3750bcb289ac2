"""Two nodes work off one queue: what one was at when it was killed, the other does."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from dicom_node.demo.loopback import await_that
from dicom_node.queue.job import JobState
from dicom_node.queueing import Queueing
from tests.conftest import miadmark
from tests.nodes import Node, a_node
from tests.postgres_server import PostgresServer
from tests.receivers import storescp

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("peers")]

PLAIN, MARKED = 24, 2

TABLES = """
[queue]
database = "{database}"
shared = "{shared}"

[retry]
first_wait_s = 0.5

[[destination]]
name = "archive"
ae_title = "ARCHIVE"
host = "127.0.0.1"
port = {archive}
max_bytes_per_s = 200000

[[destination]]
name = "research"
ae_title = "RESEARCH"
host = "127.0.0.1"
port = {research}

[[route]]
name = "plain"
destination = "archive"
action = "pass"
called_ae_titles = ["PLAIN"]

[[route]]
name = "marked"
destination = "research"
action = "mark"
called_ae_titles = ["GATEWAY"]
"""


def copies(image: Path, folder: Path, count: int) -> list[Path]:
    """Objects of some 50 kB: at the agreed rate a quarter of a second each."""
    folder.mkdir()
    one = dcmread(image)
    paths = []
    for number in range(count):
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        paths.append(folder / f"{number}.dcm")
        one.save_as(paths[-1])
    return paths


def uids(files: list[Path]) -> list[str]:
    return sorted(
        str(dcmread(f, stop_before_pixels=True).SOPInstanceUID) for f in files
    )


def processes_of(node: Node) -> list[int]:
    """Return a node's processes, the first of them first."""
    assert node.process is not None
    found = [node.process.pid]
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it is gone meanwhile
        if parent == node.process.pid:
            found.append(int(stat.parent.name))
    return found


def working(place: Queueing, node: Node) -> int:
    attached = node.state.attached
    assert attached is not None
    with psycopg.connect(place.database) as connection:
        row = connection.execute(
            "SELECT count(*) FROM job WHERE state = 'working' AND node = %s",
            (attached.node,),
        ).fetchone()
    return int(row[0]) if row else 0


def being_settled(place: Queueing) -> set[str]:
    """Return the files of what is in hand, or done and not forgotten yet."""
    with psycopg.connect(place.database) as connection:
        rows = connection.execute(
            "SELECT instance.file, job.filtered FROM job"
            " JOIN instance ON instance.id = job.instance_id"
            " WHERE job.state IN ('working', 'sent')"
        ).fetchall()
    return {name for row in rows for name in row if name}


def kill(node: Node, place: Queueing) -> set[str]:
    """Kill all of a node at once, while it has something in hand.

    Returns:
        The files that nobody may forget until it is back: it was killed when they had
        been sent, before it forgot them. (What somebody else has in hand is among them.)
    """

    def is_caught() -> bool:
        processes = processes_of(node)
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        if working(place, node):
            return True
        for process in processes:
            os.kill(process, signal.SIGCONT)
        return False

    await_that(is_caught, "a node that is at work")
    left = being_settled(place)
    for process in processes_of(node):
        os.kill(process, signal.SIGKILL)
    assert node.process is not None
    node.process.wait()
    node.process = None
    return left


@pytest.fixture
def nodes(place: Queueing, tmp_path: Path) -> Iterator[tuple[Node, Node, Path, Path]]:
    """Two nodes, and the folders of those that they send to."""
    archive, research = tmp_path / "archive", tmp_path / "research"
    (tmp_path / "shared").mkdir()
    with ExitStack() as stack:
        tables = TABLES.format(
            database=place.database,
            shared=tmp_path / "shared",
            archive=stack.enter_context(storescp(archive)),
            research=stack.enter_context(storescp(research)),
        )
        one, other = (
            stack.enter_context(a_node(tmp_path / name, tables))
            for name in ("one", "other")
        )
        yield one, other, archive, research


def test_what_a_killed_node_was_at_is_done_by_the_other(
    nodes: tuple[Node, Node, Path, Path], place: Queueing, images: Path, tmp_path: Path
) -> None:
    one, other, archive, research = nodes
    plain = copies(images / "ct.dcm", tmp_path / "plain", PLAIN)
    marked = copies(images / "ct.dcm", tmp_path / "marked", MARKED)
    assert one.send(*marked[:1], called="GATEWAY") == 0
    assert other.send(*marked[1:], called="GATEWAY") == 0
    assert one.send(*plain[::2], called="PLAIN") == 0
    assert other.send(*plain[1::2], called="PLAIN") == 0
    left = kill(one, place)
    counts = other.counts()
    assert counts[JobState.SENT] < PLAIN + MARKED
    other.await_count(JobState.SENT, PLAIN + MARKED)
    # What it had sent and not settled yet may have come twice, as the same object.
    assert sorted(set(uids([*archive.iterdir()]))) == uids(plain)
    arrived = uids([*research.iterdir()])  # marked by either, under other names
    assert len(set(arrived)) == MARKED
    assert not set(arrived) & set(uids(marked))
    now = datetime.now(UTC)
    with closing(other.state.queue()) as queue:
        assert all(tally.is_exact for tally in queue.tallies(now))
        assert sum(tally.received for tally in queue.tallies(now)) == PLAIN + MARKED
        await_that(
            lambda: queue.files() <= left, "a node that forgets what it has sent"
        )
    with other.state.ledger() as ledger:
        assert ledger.count() >= MARKED
    # Either gives the originals back, by the keys and the ledger that both have.
    back = tmp_path / "back"
    for node in (one, other):
        restored = miadmark(
            *("restore", *research.iterdir(), "--out", back / node.folder.name),
            *("--state", node.state.folder),
        )
        assert restored.returncode == 0, restored.stderr
        files = [f for f in (back / node.folder.name).rglob("*") if f.is_file()]
        assert uids(files) == uids(marked)
    # It comes back, and is one of them again.
    (one.folder / "node.log").unlink()  # it says that it listens, of the time before
    one.start()
    more = copies(images / "ct.dcm", tmp_path / "more", 2)
    assert one.send(*more, called="PLAIN") == 0
    one.await_count(JobState.SENT, PLAIN + MARKED + 2)
    with closing(one.state.queue()) as queue:
        await_that(lambda: queue.files() == set(), "nodes that have forgotten it all")


def test_a_node_goes_on_once_its_server_is_back(
    postgres: PostgresServer, place: Queueing, images: Path, tmp_path: Path
) -> None:
    first, second = copies(images / "ct.dcm", tmp_path / "plain", 2)
    (tmp_path / "shared").mkdir()
    with storescp(tmp_path / "archive") as port:
        tables = TABLES.format(
            database=place.database,
            shared=tmp_path / "shared",
            archive=port,
            research=port,
        )
        with a_node(tmp_path / "node", tables) as node:
            assert node.send(first, called="PLAIN") == 0
            postgres.stop()
            try:
                assert node.send(second, called="PLAIN") != 0  # nobody keeps it
            finally:
                postgres.start()
            await_that(
                lambda: node.send(second, called="PLAIN") == 0,
                "a node that takes something in",
                within=timedelta(minutes=2),
            )
            node.await_count(JobState.SENT, 2)
            arrived = uids([*(tmp_path / "archive").iterdir()])
            assert sorted(set(arrived)) == uids([first, second])
            # Another one, with a folder of its own, is turned away.
            (tmp_path / "elsewhere").mkdir()
            path = tmp_path / "other.toml"
            path.write_text(
                '[node]\nstate = "other"\nport = 0\n[queue]\n'
                f'database = "{place.database}"\nshared = "elsewhere"\n'
            )
            refused = miadmark("serve", "--config", path)
            assert refused.returncode != 0
            assert "do not lie in" in refused.stderr
