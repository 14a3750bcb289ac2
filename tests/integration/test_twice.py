"""What comes in twice: as DCMTK sends it, through a node that marks, to an archive."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.demo.loopback import LOOPBACK, MARKING, Loopback
from dicom_node.demo.selftest import send
from dicom_node.errors import SendRefusedError
from dicom_node.queue.job import JobState

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("peers")]


@pytest.fixture
def loopback(tmp_path: Path) -> Iterator[Loopback]:
    with Loopback(tmp_path / "loopback", profile="fast") as running:
        yield running


def storescu(loopback: Loopback, path: Path) -> str:
    port = str(loopback.ports["node"])
    done = subprocess.run(
        ["storescu", "-v", "-aet", "PACS", "-aec", MARKING, LOOPBACK, port, str(path)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"TCP_NODELAY": "1"},
    )
    return done.stdout + done.stderr


def test_what_comes_twice_goes_once_and_other_bytes_overwrite_nothing(
    loopback: Loopback, images: Path, tmp_path: Path
) -> None:
    path = images / "chest-xray-normal.dcm"
    assert "(Success)" in storescu(loopback, path)
    loopback.await_sent(1)
    assert "(Success)" in storescu(loopback, path)  # sent already: no work
    other = dcmread(path)
    other.PatientComments = "corrected"
    other.save_as(tmp_path / "other.dcm")
    assert "(Success)" not in storescu(loopback, tmp_path / "other.dcm")
    with pytest.raises(SendRefusedError, match="0x0111"):
        send(loopback, [tmp_path / "other.dcm"], MARKING)
    counts = loopback.counts()
    assert (counts[JobState.SENT], counts[JobState.QUARANTINED]) == (1, 1)
    assert counts[JobState.WAITING] + counts[JobState.WORKING] == 0
    (first,) = loopback.received("research")
    before = dcmread(first)
    # A person decides that the correction goes out: with the same mark, by its memory.
    queue_of = ["-m", "dicom_node", "release", "--config", str(loopback.config), "2"]
    subprocess.run([sys.executable, *queue_of], check=True)
    loopback.await_sent(2)
    # DCMTK's receiver names files by their UIDs: the same one, so in place of the first.
    (second,) = loopback.received("research")
    after = dcmread(second)
    assert after.PatientComments == "corrected"
    assert after.SOPInstanceUID == before.SOPInstanceUID
    assert after.PixelData == before.PixelData
