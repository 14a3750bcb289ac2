"""A node, real peers, real associations on loopback; and what a kill loses: nothing.

The archive and the research archive are DCMTK's storescp where it is installed (see
:mod:`dicom_node.demo.loopback`); the PACS is its storescu.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from pydicom import dcmread
from pydicom.uid import generate_uid

from dicom_node.demo.loopback import (
    LOOPBACK,
    MARKING,
    STRIPPING,
    Loopback,
    await_that,
    make_certificate,
)
from dicom_node.demo.selftest import pixels, send
from dicom_node.destination import Destination
from dicom_node.errors import NodeError, SendError, SendRefusedError
from dicom_node.queue.job import JobState
from dicom_node.scu import Sending
from dicom_node.state import State

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("peers")]


@pytest.fixture
def loopback(tmp_path: Path) -> Iterator[Loopback]:
    with Loopback(tmp_path / "loopback", profile="fast") as running:
        yield running


def storescu_command(
    loopback: Loopback, paths: list[Path], called: str = MARKING
) -> list[str]:
    port = str(loopback.ports["node"])
    command = ["storescu", "-v", "-R", "-aet", "PACS", "-aec", called, LOOPBACK, port]
    return [*command, *map(str, paths)]


def storescu(loopback: Loopback, paths: list[Path], called: str = MARKING) -> str:
    """Send as a PACS would; return what it had to say."""
    done = subprocess.run(
        storescu_command(loopback, paths, called),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"TCP_NODELAY": "1"},
    )
    return done.stdout + done.stderr


def a_study(images: Path, folder: Path, copies: int) -> list[Path]:
    """The same small image many times, under names of its own."""
    folder.mkdir()
    paths = []
    for number in range(copies):
        one = dcmread(images / "chest-xray-normal.dcm")
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        one.InstanceNumber = number + 1
        paths.append(folder / f"{number}.dcm")
        one.save_as(paths[-1])
    return paths


def sources(paths: list[Path]) -> list[str]:
    return sorted(
        str(dcmread(p).SourceImageSequence[-1].ReferencedSOPInstanceUID) for p in paths
    )


def values(path: Path) -> dict[str, object]:
    """Every element but the trailing padding, which DCMTK's sender leaves out."""
    return {
        e.keyword or str(e.tag): e.value for e in dcmread(path) if e.tag != 0xFFFCFFFC
    }


def uids(paths: list[Path]) -> list[str]:
    return sorted(str(dcmread(path).SOPInstanceUID) for path in paths)


def worker_of(loopback: Loopback) -> int:
    """The process that filters and sends: the node's only child."""
    node = loopback.processes[-1].pid

    def children() -> list[int]:
        listed = Path(f"/proc/{node}/task/{node}/children").read_text("ascii")
        return [int(pid) for pid in listed.split()]

    await_that(lambda: bool(children()), "a worker")
    return children()[0]


def test_a_study_goes_out_marked_and_comes_back_original(
    loopback: Loopback, images: Path
) -> None:
    study = sorted(images.glob("*.dcm"))
    assert storescu(loopback, study).count("(Success)") == len(study)
    loopback.await_sent(len(study))
    for path in loopback.received("research"):
        if "PixelData" in dcmread(path):
            assert dcmread(path).DerivationCodeSequence[-1].CodeValue == "MARK"
    storescu(loopback, loopback.received("research"), STRIPPING)
    loopback.await_sent(2 * len(study))
    restored = {
        values(path)["SOPInstanceUID"]: values(path)
        for path in loopback.received("archive")
    }
    assert restored == {values(path)["SOPInstanceUID"]: values(path) for path in study}
    clean = {pixels(path) for path in study if "PixelData" in dcmread(path)}
    for path in loopback.received("research"):
        assert "PixelData" not in dcmread(path) or pixels(path) not in clean


LISTED = """
[[route]]
name = "to research, listed"
destination = "research"
action = "mark"
not_images = "hold"
called_ae_titles = ["LISTED"]
listing = true
listing_after_s = 2
"""


def test_a_list_of_what_was_marked_follows_a_study(
    images: Path, tmp_path: Path
) -> None:
    study = a_study(images, tmp_path / "study", 3)
    with Loopback(tmp_path / "loopback", profile="fast", more=LISTED) as loopback:
        storescu(loopback, study[:2], "LISTED")
        loopback.await_sent(3)
        (first,) = listings(loopback)
        storescu(loopback, study[2:], "LISTED")
        loopback.await_sent(5)
        second = next(x for x in listings(loopback) if x != first)
        marked = [p for p in loopback.received("research") if "PixelData" in dcmread(p)]
        assert sorted(listed(first) + listed(second)) == uids(marked)
        assert (len(listed(first)), len(listed(second))) == (2, 1)


def listings(loopback: Loopback) -> list[Path]:
    received = loopback.received("research")
    return [path for path in received if dcmread(path).Modality == "KO"]


def listed(path: Path) -> list[str]:
    (study,) = dcmread(path).CurrentRequestedProcedureEvidenceSequence
    return [
        str(reference.ReferencedSOPInstanceUID)
        for series in study.ReferencedSeriesSequence
        for reference in series.ReferencedSOPSequence
    ]


def test_an_echo_is_answered(loopback: Loopback) -> None:
    port = str(loopback.ports["node"])
    subprocess.run(["echoscu", "-aec", MARKING, LOOPBACK, port], check=True)


NARROW = """
[[route]]
name = "what there is none of"
destination = "research"
action = "pass"
called_ae_titles = ["NARROW"]
modalities = ["XX"]
"""


def test_what_no_route_is_for_is_refused(images: Path, tmp_path: Path) -> None:
    with Loopback(tmp_path / "loopback", profile="fast", more=NARROW) as loopback:

        def send_to(called: str) -> None:
            node = Destination(
                name="node", ae_title=called, host=LOOPBACK, port=loopback.ports["node"]
            )
            with Sending(node, "PACS") as sending:
                sending.send(images / "ct.dcm")

        with pytest.raises(SendRefusedError, match="0124"):
            send_to("NARROW")
        with pytest.raises(SendError):  # nobody has this title
            send_to("SOMEBODY")
        assert sum(loopback.counts().values()) == 0


def test_what_cannot_be_marked_is_held_and_never_sent(
    loopback: Loopback, images: Path, tmp_path: Path
) -> None:
    flat = dcmread(images / "chest-xray-normal.dcm")
    flat.PixelData = bytes(len(flat.PixelData))
    flat.save_as(tmp_path / "flat.dcm")
    storescu(loopback, [tmp_path / "flat.dcm"])
    await_that(lambda: loopback.counts()[JobState.HELD] == 1, "the hold")
    assert loopback.received("research") == []
    report = subprocess.run(
        [sys.executable, "-m", "dicom_node", "status", "--config", loopback.config],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "1 held" in report
    assert "too few for a mark" in report


def test_an_impostor_with_a_valid_certificate_gets_nothing(
    loopback: Loopback, images: Path
) -> None:
    """Title, address and issuer are the archive's; the key is not the granted one."""
    send(loopback, [images / "ct.dcm"], MARKING)
    loopback.await_sent(1)
    archive = loopback.processes[1]
    archive.terminate()
    archive.wait()
    make_certificate(loopback.folder, "archive")
    loopback.start_receiver("archive", "ARCHIVE", tls="archive")
    send(loopback, loopback.received("research"), STRIPPING)
    await_that(lambda: loopback.counts()[JobState.HELD] == 1, "the hold")
    assert "holds no grant" in (loopback.folder / "node.log").read_text("utf-8")
    assert loopback.received("archive") == []


def test_a_released_job_is_tried_again(loopback: Loopback, images: Path) -> None:
    state = State(loopback.folder / "state")
    with state.grants(state.keys()) as grants:
        (grant,) = grants.all()
        grants.revoke(grant.id, by="test", now=datetime.now(UTC))
    send(loopback, [images / "report-sr.dcm"], STRIPPING)
    await_that(lambda: loopback.counts()[JobState.HELD] == 1, "the hold")
    pem = (loopback.folder / "archive-cert.pem").read_bytes()
    loopback.grant(x509.load_pem_x509_certificate(pem))
    command = [sys.executable, "-m", "dicom_node", "release"]
    subprocess.run([*command, "--config", loopback.config], check=True)
    loopback.await_sent(1)
    assert len(loopback.received("archive")) == 1


def test_the_state_is_for_its_owner_only(loopback: Loopback) -> None:
    state = loopback.folder / "state"
    for folder in (state, state / "spool", state / "keys"):
        assert folder.stat().st_mode & 0o077 == 0, folder


@pytest.mark.parametrize("killed", ["worker", "node"])
def test_a_kill_in_mid_study_loses_nothing(
    loopback: Loopback, images: Path, tmp_path: Path, killed: str
) -> None:
    study = a_study(images, tmp_path / "study", 10)
    worker = worker_of(loopback)
    sender = subprocess.Popen(
        storescu_command(loopback, study), stdout=subprocess.PIPE, text=True, stderr=-2
    )
    loopback.await_sent(1)
    if killed == "worker":
        os.kill(worker, signal.SIGKILL)
    else:
        loopback.processes[-1].kill()
        loopback.processes[-1].wait()
    said, _ = sender.communicate(timeout=120)
    acknowledged = said.count("Received Store Response (Success)")
    if killed == "node":
        loopback.start_node()
    # Files are sent in order, so the first so many were acknowledged.
    loopback.await_sent(acknowledged)
    assert set(uids(study[:acknowledged])) <= set(
        sources(loopback.received("research"))
    )

    def is_up() -> bool:
        try:
            send(loopback, study[acknowledged:], MARKING)
        except NodeError:
            return False
        return True

    await_that(is_up, "the node")
    loopback.await_sent(10)
    received = loopback.received("research")
    assert sources(received) == uids(study)
    assert len({dcmread(path).SOPInstanceUID for path in received}) == 10
    await_that(
        lambda: not list((loopback.folder / "state" / "spool").glob("*.sealed")),
        "an empty spool",
    )


def test_an_unreachable_destination_is_tried_again(
    tmp_path: Path, images: Path
) -> None:
    with Loopback(tmp_path / "loopback", profile="fast") as loopback:
        research = loopback.processes[0]
        research.terminate()
        research.wait()
        send(loopback, [images / "chest-xray-normal.dcm"], MARKING)
        log = loopback.folder / "node.log"
        await_that(lambda: "waits instance=" in log.read_text("utf-8"), "a failed try")
        assert loopback.counts()[JobState.SENT] == 0
        loopback.start_receiver("research", "RESEARCH")
        loopback.await_sent(1)
        assert len(loopback.received("research")) == 1


def test_no_patient_is_named_in_a_log(
    loopback: Loopback, images: Path, tmp_path: Path
) -> None:
    canary = dcmread(images / "chest-xray-normal.dcm")
    canary.PatientName, canary.PatientID = "CANARY^BIRD", "CANARY-1"
    canary.PatientBirthDate = "19010203"
    canary.save_as(tmp_path / "canary.dcm")
    send(loopback, [tmp_path / "canary.dcm"], MARKING)
    loopback.await_sent(1)
    log = (loopback.folder / "node.log").read_text("utf-8")
    assert "CANARY" not in log
    assert "19010203" not in log
    assert str(canary.SOPInstanceUID) in log
