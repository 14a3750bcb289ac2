"""What passes does not wait for marks: it has a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from dicom_node.demo.loopback import MARKING, Loopback, await_that
from dicom_node.demo.selftest import send
from dicom_node.queue.job import JobState

pytestmark = [
    pytest.mark.alone,
    pytest.mark.peers,
    pytest.mark.usefixtures("peers"),
]

PLAIN = """
[[destination]]
name = "neighbour"
ae_title = "RESEARCH"
host = "127.0.0.1"
port = {research}

[[route]]
name = "as it came"
destination = "neighbour"
action = "pass"
called_ae_titles = ["PLAIN"]
"""


@pytest.fixture
def loopback(tmp_path: Path) -> Iterator[Loopback]:
    with Loopback(tmp_path / "loopback", more=PLAIN) as running:
        yield running


def copies(image: Path, folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    paths = []
    for number in range(count):
        one = dcmread(image)
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        paths.append(folder / f"{number}.dcm")
        one.save_as(paths[-1])
    return paths


def test_what_passes_overtakes_what_is_to_be_marked(
    loopback: Loopback, images: Path, tmp_path: Path
) -> None:
    image = images / "chest-xray-normal.dcm"
    send(loopback, copies(image, tmp_path / "marked", 12), MARKING)
    plain = copies(image, tmp_path / "plain", 4)
    send(loopback, plain, "PLAIN")
    names = {str(dcmread(path).SOPInstanceUID) for path in plain}

    def arrived() -> set[str]:
        return {
            name
            for name in names
            for f in loopback.received("research")
            if f.name.endswith(name)
        }

    await_that(lambda: arrived() == names, "what passes", within=timedelta(minutes=2))
    counts = loopback.counts()
    assert counts[JobState.WAITING] + counts[JobState.WORKING] > 0
    loopback.await_sent(16)
