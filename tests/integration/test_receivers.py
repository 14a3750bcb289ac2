"""Several processes that receive behind one port, and what becomes of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from dicom_node.demo.loopback import LOOPBACK, await_that, free_ports
from dicom_node.queue.job import JobState
from dicom_node.state import State
from tests.callers import ACCEPTED, ECHO, answer, associate, connected

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("peers")]

CONFIG = """\
[node]
ae_title = "GATEWAY"
port = {port}
state = "state"
receivers = 3

[retry]
first_wait_s = 3600.0

[[destination]]
name = "nowhere"
ae_title = "NOWHERE"
host = "127.0.0.1"
port = {nowhere}

[[route]]
name = "onwards"
destination = "nowhere"
action = "pass"
"""
FEW_MB = 100


@dataclass
class Node:
    folder: Path
    port: int
    process: subprocess.Popen[str]

    @property
    def state(self) -> State:
        return State(self.folder / "state")

    def receivers(self) -> list[int]:
        """The processes that receive."""
        pid = self.process.pid
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
        return [int(c) for c in listed.split() if b"\0receiver\0" in command_of(int(c))]

    def instances(self) -> int:
        queue = self.state.queue()
        try:
            return sum(queue.counts().values())
        finally:
            queue.close()

    def send(self, paths: list[Path]) -> int:
        """Send, and return how many were acknowledged."""
        done = subprocess.run(
            [
                *("storescu", "-v", "-R", "-aec", "GATEWAY"),
                *("--max-send-pdu", "131072", LOOPBACK, str(self.port)),
                *map(str, paths),
            ],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"TCP_NODELAY": "1"},
        )
        return (done.stdout + done.stderr).count("Received Store Response (Success)")


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def started(config: Path) -> subprocess.Popen[str]:
    with (config.parent / "node.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dicom_node", "serve", "--config", str(config)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    assert "GATEWAY listens on" in process.stdout.readline()
    process.stdout.close()
    return process


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    port, nowhere = free_ports(2)
    config = tmp_path / "node.toml"
    config.write_text(CONFIG.format(port=port, nowhere=nowhere))
    made = Node(tmp_path, port, started(config))
    try:
        yield made
    finally:
        made.process.terminate()
        made.process.wait(timeout=60)


def studies(images: Path, folder: Path, count: int, each: int) -> list[list[Path]]:
    """The same small image many times, under names of its own."""
    one = dcmread(images / "ct.dcm")
    made: list[list[Path]] = [[] for _ in range(count)]
    for number in range(count * each):
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        path = folder / f"{number}.dcm"
        one.save_as(path)
        made[number % count].append(path)
    return made


def test_several_receive_at_once_and_nothing_is_lost_or_twice(
    node: Node, images: Path, tmp_path: Path
) -> None:
    await_that(lambda: len(node.receivers()) == 3, "three receivers")
    made = studies(images, tmp_path, 6, 10)
    with ThreadPoolExecutor(6) as pool:
        acknowledged = list(pool.map(node.send, made))
        # The same once more, all at once: none of it is new.
        acknowledged += pool.map(node.send, made)
    assert acknowledged == [10] * 12
    assert node.instances() == 60


def test_a_receiver_that_dies_costs_its_associations_and_no_more(
    node: Node, images: Path, tmp_path: Path
) -> None:
    made = studies(images, tmp_path, 3, 30)
    await_that(lambda: len(node.receivers()) == 3, "three receivers")
    before = node.receivers()
    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(node.send, paths) for paths in made]
        await_that(lambda: node.instances() > 5, "a few instances")
        os.kill(before[0], signal.SIGKILL)
        acknowledged = [one.result() for one in running]
    assert node.instances() >= sum(acknowledged)
    await_that(
        lambda: len(node.receivers()) == 3 and node.receivers() != before,
        "another receiver",
    )
    for paths in made:
        assert node.send(paths) == 30
    assert node.instances() == 90
    incoming = node.state.spool().incoming
    await_that(lambda: not list(incoming.glob("*/*")), "what it has left to be gone")


def test_a_receiver_that_is_started_again_goes_by_the_same_rules(node: Node) -> None:
    await_that(lambda: len(node.receivers()) == 3, "three receivers")
    before = node.receivers()
    config = node.folder / "node.toml"
    other = config.read_text().replace('"GATEWAY"', '"OTHER"')
    config.write_text(other.replace('"state"', '"elsewhere"'))  # that, no node can
    for pid in before:
        os.kill(pid, signal.SIGKILL)

    def answers() -> bool:
        with connected(node.port, timeout=60) as connection:
            connection.sendall(associate("CT1"))
            return answer(connection)[0] == ACCEPTED

    await_that(lambda: not set(before) & set(node.receivers()), "other receivers")
    await_that(answers, "an answer under the old title")
    with connected(node.port) as connection:
        connection.sendall(associate("CT1", "OTHER"))
        assert answer(connection)[0] == 0x03


def test_a_node_that_is_killed_leaves_no_receiver_behind(
    node: Node, images: Path, tmp_path: Path
) -> None:
    (study,) = studies(images, tmp_path, 1, 5)
    assert node.send(study) == 5
    left = node.receivers()
    node.process.kill()
    node.process.wait()
    node.process = started(node.folder / "node.toml")
    assert not any(b"\0receiver\0" in command_of(pid) for pid in left)
    assert node.send(study) == 5
    assert node.instances() == 5
    assert node.state.queue().counts()[JobState.WAITING] <= 5


def test_what_stops_says_goodbye(node: Node) -> None:
    with connected(node.port) as connection:
        connection.sendall(associate("CT1") + ECHO)
        assert answer(connection)[0] == ACCEPTED
        assert answer(connection)[0] == 0x04
        node.process.terminate()
        assert answer(connection)[0] == 0x07
    assert node.process.wait(timeout=60) == 0


def peak_mb(pid: int) -> float:
    """The most memory that a process has had, in megabytes."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def test_memory_stays_flat_however_large_an_object_is(
    node: Node, images: Path, tmp_path: Path
) -> None:
    """385 megabytes, as a breast tomosynthesis or a long loop of ultrasound has."""
    large = dcmread(images / "ct.dcm")
    large.Rows, large.Columns, large.NumberOfFrames = 512, 512, 770
    large.PixelData = np.random.default_rng(1).bytes(512 * 512 * 2 * 770)
    large.SOPInstanceUID = large.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    large.save_as(tmp_path / "large.dcm")
    del large
    await_that(lambda: len(node.receivers()) == 3, "three receivers")
    for _ in range(6):
        assert node.send([images / "ct.dcm"]) == 1
    idle = {pid: peak_mb(pid) for pid in node.receivers()}
    assert node.send([tmp_path / "large.dcm"]) == 1
    risen = {pid: peak_mb(pid) - idle[pid] for pid in node.receivers()}
    print(f"peak memory has risen by {max(risen.values()):.0f} MB")  # noqa: T201
    assert max(risen.values()) < FEW_MB
