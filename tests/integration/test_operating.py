"""Routes in operation, through a node and DCMTK: held, studies together, break-glass."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE

from dicom_node.cli import main
from dicom_node.demo.loopback import LOOPBACK, await_that, free_ports
from dicom_node.queue.job import JobState
from dicom_node.state import State
from tests.receivers import storescp

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("peers")]

CONFIG = """\
[node]
ae_title = "GATEWAY"
port = {port}
state = "state"

[break_glass]
allowed = true
names = ["Dr. Who"]

[[destination]]
name = "archive"
ae_title = "ARCHIVE"
host = "127.0.0.1"
port = {archive}

[[route]]
name = "marked"
destination = "archive"
action = "mark"
called_ae_titles = ["MARKED"]
trust_priority = true

[[route]]
name = "quiet"
destination = "archive"
action = "pass"
called_ae_titles = ["QUIET"]
study = "quiet"
study_quiet_s = 4

[[route]]
name = "counted"
destination = "archive"
action = "pass"
called_ae_titles = ["COUNTED"]
study = "count"
study_quiet_s = 3600
"""


@dataclass
class Node:
    folder: Path
    port: int
    archive: Path
    process: subprocess.Popen[str]

    @property
    def config(self) -> Path:
        return self.folder / "node.toml"

    @property
    def state(self) -> State:
        return State(self.folder / "state")

    def ordered(self, *command: str) -> tuple[int, str]:
        """Run a command in this process; return its exit code, and what it said."""
        said = StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            code = main([*command, "--config", str(self.config)])
        return code, said.getvalue()

    def status(self) -> str:
        return self.ordered("status")[1]

    def sent(self) -> int:
        queue = self.state.queue()
        try:
            return queue.counts()[JobState.SENT]
        finally:
            queue.close()

    def send(self, paths: list[Path], called: str) -> None:
        command = ["storescu", "-R", "-aec", called, LOOPBACK, str(self.port)]
        subprocess.run(
            [*command, *map(str, paths)],
            check=True,
            env=os.environ | {"TCP_NODELAY": "1"},
        )

    def audit(self) -> list[dict[str, Any]]:
        return list(self.state.audit(self.state.keys()).entries())

    def got(self, path: Path) -> Path | None:
        """What the archive has under the name of an instance."""
        name = dcmread(path, stop_before_pixels=True).SOPInstanceUID
        for file in self.archive.iterdir():
            if dcmread(file, stop_before_pixels=True).SOPInstanceUID == name:
                return file
        return None


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, peers: None) -> Iterator[Node]:  # noqa: ARG001
    folder = tmp_path_factory.mktemp("operating")
    (port,) = free_ports(1)
    with storescp(folder / "archive", "--bit-preserving") as archive:
        text = CONFIG.format(port=port, archive=archive)
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
        assert process.stdout is not None
        try:
            assert "GATEWAY listens on" in process.stdout.readline()
            yield Node(folder, port, folder / "archive", process)
        finally:
            process.terminate()
            process.wait(timeout=60)
            process.stdout.close()


def a_study(images: Path, folder: Path, count: int, **says: object) -> list[Path]:
    folder.mkdir()
    one = dcmread(images / "ct.dcm")
    one.StudyInstanceUID = generate_uid()
    for name, value in says.items():
        setattr(one, name, value)
    for number in range(count):
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        one.save_as(folder / f"{number}.dcm")
    return sorted(folder.iterdir())


def test_a_held_route_waits_and_break_glass_goes_past_it(
    node: Node, images: Path, tmp_path: Path
) -> None:
    who = ["--by", "Dr. Who", "--why", "trauma in room 2"]
    assert node.ordered("route", "hold", "marked", *who)[0] == 0
    assert node.ordered("route", "hold", "nowhere", *who)[0] == 1
    study = a_study(images, tmp_path / "study", 3)
    node.send(study, "MARKED")
    assert "'marked' is held by Dr. Who" in node.status()
    told = json.loads(node.ordered("status", "--json")[1])
    assert "trauma in room 2" in told["waits"][0]

    code, said = node.ordered("break-glass", "1", "--by", "Eve", "--why", "curious")
    assert (code, "'Eve' is not among those" in said) == (1, True)
    code, said = node.ordered("break-glass", "2", *who)
    assert (code, "UNMARKED" in said) == (0, True)
    await_that(lambda: node.sent() == 1, "the instance to leave")
    got = node.got(study[1])
    assert got is not None
    assert dcmread(got).PixelData == dcmread(study[1]).PixelData
    assert node.got(study[0]) is node.got(study[2]) is None
    entries = [e for e in node.audit() if e["event"] == "break-glass"]
    assert [e["did"] for e in entries] == ["ordered", "sends"]
    assert {(e["by"], e["why"]) for e in entries} == {("Dr. Who", "trauma in room 2")}
    assert node.ordered("break-glass", "2", *who)[0] == 1  # it has left

    # A whole study; and what its sender says of urgency is kept.
    uid = str(dcmread(study[0]).StudyInstanceUID)
    urgent = a_study(images, tmp_path / "urgent", 1)
    ae = AE("CT1")
    ae.add_requested_context(dcmread(urgent[0]).SOPClassUID, ExplicitVRLittleEndian)
    association = ae.associate(LOOPBACK, node.port, ae_title="MARKED")
    association.send_c_store(dcmread(urgent[0]), priority=1)
    association.release()
    assert priorities(node) == [0, 0, 0, 100]
    assert node.ordered("priority", "--study", uid, "7")[0] == 0
    assert priorities(node) == [7, 0, 7, 100]
    assert node.ordered("break-glass", "--study", uid, *who)[0] == 0
    await_that(lambda: node.sent() == 3, "the study to leave")
    assert None not in {node.got(path) for path in study}
    assert "BREAK-GLASS" in (node.folder / "node.log").read_text()
    assert "trauma" not in (node.folder / "node.log").read_text()


def priorities(node: Node) -> list[int]:
    queue = node.state.queue()
    try:
        standing = [queue.standing(number) for number in range(1, 5)]
    finally:
        queue.close()
    return [one.priority for one in standing if one is not None]


def test_a_study_is_sent_once_nothing_more_of_it_comes(
    node: Node, images: Path, tmp_path: Path
) -> None:
    before, study = node.sent(), a_study(images, tmp_path / "study", 3)
    node.send(study[:2], "QUIET")
    assert "on quiet: 2 came, complete at" in node.status()
    assert node.sent() == before
    await_that(lambda: node.sent() == before + 2, "the study")
    node.send(study[2:], "QUIET")  # late, and at once
    await_that(lambda: node.sent() == before + 3, "the supplement")
    log = (node.folder / "node.log").read_text()
    assert "supplement study=" in log
    assert log.count("complete study=") == 1


def test_a_study_is_sent_once_as_many_came_as_it_says(
    node: Node, images: Path, tmp_path: Path
) -> None:
    before = node.sent()
    study = a_study(images, tmp_path / "study", 3, NumberOfStudyRelatedInstances=3)
    node.send(study[:2], "COUNTED")
    assert "on counted: 2 came of 3" in node.status()
    assert node.sent() == before
    node.send(study[2:], "COUNTED")
    await_that(lambda: node.sent() == before + 3, "the study")
    assert "on counted" not in node.status()
