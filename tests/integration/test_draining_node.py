"""A node that runs is drained, packed, and taken by another that is killed meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import urllib3
from pydicom import Dataset, dcmread, uid
from pynetdicom import AE
from pynetdicom.association import Association

from dicom_node.demo.loopback import LOOPBACK, await_that, free_ports
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.job import JobState
from tests.conftest import miadmark
from tests.fleet import Site
from tests.nodes import Node, a_node

TABLES = """
[charter]
source = "charter.json"
[metrics]
port = {figures}
[storage]
least_free_mb = 1.0
reserve_mb = 1.0
[breaker]
first_probe_s = 60.0
[[destination]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = {down}
[[route]]
name = "copies"
destination = "pacs"
action = "pass"
"""
KILLED = """
import os, signal, sys
from dicom_node.cli import main
from dicom_node.queue.handing import Handing

before, when = Handing.take, sys.argv.pop(1)

def take(*given, **more):
    if when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    before(*given, **more)
    os.kill(os.getpid(), signal.SIGKILL)

Handing.take = take
sys.exit(main())
"""


def associated(node: Node) -> Association:
    ae = AE("CT1")
    ae.add_requested_context(uid.CTImageStorage, uid.ExplicitVRLittleEndian)
    return ae.associate(LOOPBACK, node.port, ae_title="GATEWAY")


def numbered(images: Path, number: int) -> Dataset:
    one = dcmread(images / "ct.dcm")
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = uid.UID(
        f"1.2.3.{number}"
    )
    return one


def told(figures: int, path: str) -> tuple[int, str]:
    url = f"http://{LOOPBACK}:{figures}{path}"
    try:
        answer = urllib3.request("GET", url, retries=False, timeout=10)
    except urllib3.exceptions.HTTPError:
        return 0, ""
    return answer.status, answer.data.decode("utf-8")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Two nodes: the one that is emptied lies in the folder of a node."""
    made = Site(tmp_path / "site")
    made.joined("n1", "n2")
    return made


def test_a_node_that_is_drained_takes_in_nothing_and_loses_nothing(
    site: Site, tmp_path: Path, images: Path
) -> None:
    figures, down = free_ports(2)
    tables = TABLES.replace("{figures}", str(figures)).replace("{down}", str(down))
    folder = tmp_path / "node"
    folder.mkdir()
    (site.folder / "n1").rename(folder / "state")
    (folder / "charter.json").write_bytes(site.issue())
    with a_node(folder, tables) as node:
        await_that(lambda: told(figures, "/ready")[0] == 200, "the node to be ready")
        await_that(lambda: "charter 2" in told(figures, "/ready")[1], "the charter")
        open_before = associated(node)
        for number in range(2):
            assert open_before.send_c_store(numbered(images, number)).Status == 0
        started = miadmark(
            *("drain", "start", "--by", "anna", "--why", "disk"),
            *("--config", node.config),
        )
        assert (started.returncode, started.stderr) == (0, "")
        assert "left: 2 instances, 2 jobs (2 waiting)" in started.stdout

        def is_closed() -> bool:
            later = associated(node)
            if later.is_established:
                later.release()
            return bool(later.is_rejected)

        await_that(is_closed, "associations to be rejected")
        assert open_before.send_c_store(numbered(images, 7)).Status == 0xA700
        open_before.release()
        status, said = told(figures, "/ready")
        assert (status, "being drained" in said) == (503, True)
        refused = miadmark(
            *("drain", "pack", "--to", "n2", "--out", tmp_path / "over"),
            *("--config", node.config),
        )
        assert "the node runs on" in refused.stderr
        node.stop()
        packed = miadmark(
            *("drain", "pack", "--to", "n2", "--out", tmp_path / "over"),
            *("--config", node.config),
        )
        assert (packed.returncode, packed.stderr) == (0, "")
    assert "2 instances, 2 jobs, 0 requests" in packed.stdout


def test_who_is_killed_while_he_takes_it_has_each_once(
    site: Site, tmp_path: Path
) -> None:
    """A real kill, before or after each transaction, until all of it is there."""
    figures, down = free_ports(2)
    tables = TABLES.replace("{figures}", str(figures)).replace("{down}", str(down))
    configs = {}
    for name in ("n1", "n2"):
        configs[name] = tmp_path / f"{name}.toml"
        head = f'[node]\nstate = "{site.folder / name}"\n'
        configs[name].write_text(head + tables, "utf-8")
    state = site.node("n1")
    spool = state.spool(state.keys().spool)
    with closing(state.queue({"copies"})) as queue:
        for number in range(2):
            name = spool.write([b"content %d" % number])
            arrival = Arrival(f"1.2.{number}", bytes(32), name)
            queue.add(arrival, [Owed("copies", "pacs")], site.moment)
    site.take("n1", site.issue())
    config = ("--config", configs["n1"])
    miadmark("drain", "start", "--by", "anna", "--why", "disk", *config)
    over = tmp_path / "over"
    packed = miadmark("drain", "pack", "--to", "n2", "--out", over, *config)
    assert (packed.returncode, packed.stderr) == (0, "")
    taking = ["drain", "take", str(over), "--receipt", str(tmp_path / "receipt")]
    taking += ["--config", str(configs["n2"])]
    for when, had in (("before", 0), ("after", 0), ("before", 1), ("after", 1)):
        with closing(site.node("n2").queue()) as queue:
            assert queue.counts()[JobState.WAITING] == had
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, when, *taking],
            check=False,
            capture_output=True,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "receipt").exists()
    done = miadmark(*taking)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 instances, 2 jobs: 2 are owed" in done.stdout
    done = miadmark("drain", "finish", tmp_path / "receipt", *config)
    assert "2 jobs are the other node's" in done.stdout
    for name, expected in (("n1", JobState.DROPPED), ("n2", JobState.WAITING)):
        with closing(site.node(name).queue()) as queue:
            counts = {state: n for state, n in queue.counts().items() if n}
            assert counts == {expected: 2}
            needed = queue.files()
            held = site.node(name).spool(site.keys(name).spool)
            assert all(held.holds(file) for file in needed)
            assert len(needed) == (2 if name == "n2" else 0)
