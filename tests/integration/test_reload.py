"""A node takes another configuration as it works: nobody is refused, nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from dicom_node.cli import main
from dicom_node.demo.loopback import LOOPBACK, await_that, free_ports
from dicom_node.queue.job import JobState
from dicom_node.state import State
from tests.callers import ACCEPTED, ECHO, RELEASE, answer, associate, connected
from tests.receivers import storescp

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("peers")]

NODE = """\
[node]
ae_title = "GATEWAY"
state = "state"

[[listener]]
port = {first}
"""
ROUTE = """
[[destination]]
name = "{name}"
ae_title = "ARCHIVE"
host = "127.0.0.1"
port = {port}

[[route]]
name = "{name}"
destination = "{name}"
action = "pass"
called_ae_titles = ["{title}"]
"""
MORE = """
[[listener]]
port = {second}
"""


@dataclass
class Node:
    folder: Path
    ports: list[int]
    archive: int
    process: subprocess.Popen[str]

    @property
    def config(self) -> Path:
        return self.folder / "node.toml"

    @property
    def state(self) -> State:
        return State(self.folder / "state")

    def counts(self) -> dict[JobState, int]:
        queue = self.state.queue()
        try:
            return queue.counts()
        finally:
            queue.close()

    def route(self, name: str, title: str) -> str:
        return ROUTE.format(name=name, title=title, port=self.archive)

    def reload(self) -> tuple[int, str]:
        """Have the configuration taken; the exit code, and what was said."""
        return self.told("config", "reload", "--config", str(self.config))

    def told(self, *command: str) -> tuple[int, str]:
        """Run a command in this process; its exit code, and what was said."""
        said = StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            code = main([*command])
        return code, said.getvalue()

    def listener(self, which: int) -> str:
        return NODE.format(first=self.ports[which])

    def configured(self) -> list[dict[str, str]]:
        """What the audit says of configurations."""
        entries = self.state.audit(self.state.keys()).entries()
        return [entry for entry in entries if entry["event"] == "configuration"]

    def send(self, paths: list[Path], called: str, port: int) -> int:
        """Send as DCMTK does; return how many were acknowledged."""
        command = ["storescu", "-v", "-R", "-aec", called, LOOPBACK, str(port)]
        done = subprocess.run(
            [*command, *map(str, paths)],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"TCP_NODELAY": "1"},
        )
        return (done.stdout + done.stderr).count("Received Store Response (Success)")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, peers: None) -> Iterator[Node]:  # noqa: ARG001
    ports, tmp_path = free_ports(2), tmp_path_factory.mktemp("reload")
    with storescp(tmp_path / "archive") as archive:
        folder = tmp_path / "node"
        folder.mkdir()
        text = NODE.format(first=ports[0])
        text += ROUTE.format(name="old", title="OLD", port=archive)
        (folder / "node.toml").write_text(text)
        with (folder / "node.log").open("ab") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "dicom_node", "serve"),
                    *("--config", str(folder / "node.toml")),
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            assert process.stdout is not None
            assert "GATEWAY listens on" in process.stdout.readline()
            yield Node(folder, ports, archive, process)
        finally:
            process.terminate()
            process.wait(timeout=60)
            assert process.stdout is not None
            process.stdout.close()


def copies(images: Path, folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    one = dcmread(images / "ct.dcm")
    for number in range(count):
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        one.save_as(folder / f"{number}.dcm")
    return sorted(folder.iterdir())


def accepts(port: int, called: str) -> bool:
    try:
        with connected(port) as connection:
            connection.sendall(associate("CT1", called))
            if answer(connection)[0] != ACCEPTED:
                return False
            connection.sendall(RELEASE)
            return answer(connection)[0] == 0x06
    except ConnectionRefusedError:
        return False


def refusals(node: Node) -> int:
    """How many kinds of them."""
    return len({e["reason"] for e in node.configured() if e["did"] == "refused"})


def test_a_configuration_that_cannot_work_changes_nothing(
    node: Node, images: Path, tmp_path: Path
) -> None:
    first, _ = node.ports
    good = node.config.read_text()
    node.config.write_text(good + "[nonsense]\n")
    os.kill(node.process.pid, signal.SIGHUP)
    await_that(lambda: refusals(node) == 1, "a refusal to be written down")
    node.config.write_text(good.replace('"state"', '"elsewhere"'))
    await_that(lambda: refusals(node) == 2, "a file to be noticed")
    node.config.write_text(good + MORE.format(second=node.archive))
    code, said = node.reload()
    assert (code, "cannot be listened on" in said) == (1, True)
    node.config.write_text(good.replace("[node]", '[node]\nfingerprint = "00"'))
    code, said = node.reload()
    assert (code, "fingerprint" in said) == (1, True)
    assert refusals(node) == 4
    # What is noticed and asked for is refused twice.
    assert {entry["did"] for entry in node.configured()} == {"refused"}
    log = (node.folder / "node.log").read_text()
    assert log.count("configuration refused") == len(node.configured())
    assert "starting another" not in log
    assert node.send(copies(images, tmp_path / "study", 3), "OLD", first) == 3
    node.config.write_text(good)
    code, said = node.reload()
    assert (code, "goes by" in said) == (0, True)


def test_what_waits_for_a_route_that_is_gone_is_told(
    node: Node, images: Path, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    lost = ROUTE.format(name="lost", title="LOST", port=port)
    good = node.config.read_text()
    node.config.write_text(good + lost)
    assert node.reload()[0] == 0
    study = copies(images, tmp_path / "study", 2)
    assert node.send(study, "LOST", node.ports[0]) == 2
    node.config.write_text(good)
    check = ("config", "check", str(node.config), "--json", "--against-state")
    (warning,) = json.loads(node.told(*check)[1])["warnings"]
    assert "'lost' is not there, and 2 jobs wait" in warning
    assert node.reload()[0] == 0
    assert warning in (node.folder / "node.log").read_text()
    await_that(lambda: node.counts()[JobState.HELD] == 2, "both to be held")


def test_a_node_goes_over_to_another_configuration_as_it_works(
    node: Node, images: Path, tmp_path: Path
) -> None:
    first, second = node.ports
    made = [copies(images, tmp_path / str(n), 12) for n in range(6)]
    before, archive = node.counts(), node.folder.parent / "archive"
    sent, files = before[JobState.SENT], len(list(archive.iterdir()))
    with connected(first) as connection, ThreadPoolExecutor(1) as pool:
        connection.sendall(associate("CT1", "OLD"))
        assert answer(connection)[0] == ACCEPTED
        sending = pool.submit(lambda: [node.send(m, "OLD", first) for m in made[:4]])
        await_that(lambda: node.counts()[JobState.SENT] > sent, "something to be sent")
        text = node.listener(0) + MORE.format(second=second)
        node.config.write_text(
            text + node.route("old", "OLD") + node.route("new", "NEW")
        )
        assert node.reload()[0] == 0
        # Whoever was there goes on, by the rules that it came in under.
        connection.sendall(ECHO)
        assert answer(connection)[0] == 0x04
        assert sending.result() == [12] * 4
        assert node.send(made[4], "NEW", second) == 12
        assert node.send(made[5], "NEW", first) == 12
        connection.sendall(RELEASE)
        assert answer(connection)[0] == 0x06
    await_that(lambda: node.counts()[JobState.SENT] == sent + 72, "all to be sent")
    assert sum(node.counts().values()) == sum(before.values()) + 72
    assert len(list(archive.iterdir())) == files + 72
    assert node.configured()[-1]["did"] == "taken"

    # The file is noticed, too; a port that is not named any more is closed.
    node.config.write_text(node.listener(1) + node.route("new", "NEW"))
    await_that(lambda: not accepts(first, "NEW"), "the first port to be closed")
    assert accepts(second, "NEW")
    assert not accepts(second, "OLD")
