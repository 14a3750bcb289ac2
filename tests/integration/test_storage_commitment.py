"""Storage commitment with Orthanc at the other end: asked by the node, and asking it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pynetdicom import AE, build_role

from dicom_node.commitment import SOP_CLASS
from dicom_node.demo.loopback import LOOPBACK, await_that
from dicom_node.queue.job import JobState
from tests.nodes import Node, a_node
from tests.orthanc import Orthanc, an_orthanc
from tests.studies import copies

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("peers")]

CT = "1.2.840.10008.5.1.4.1.1.2"
TABLES = """
[retry]
first_wait_s = 0.5

[[peer]]
ae_title = "ORTHANC"
addresses = ["127.0.0.0/8"]
commitment = true
host = "127.0.0.1"
port = {orthanc}

[[destination]]
name = "archive"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = {orthanc}
commitment = true
commitment_attempts = 1

[[route]]
name = "archive"
destination = "archive"
action = "pass"
"""


@pytest.fixture(scope="module")
def files(images: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return copies(images / "ct.dcm", tmp_path_factory.mktemp("files"), 4)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Orthanc]]:
    folder = tmp_path_factory.mktemp("both")
    (folder / "node").mkdir()
    node = Node(folder / "node")
    with an_orthanc(folder, {"GATEWAY": node.port}) as orthanc:
        tables = TABLES.replace("{orthanc}", str(orthanc.dicom_port))
        with a_node(folder / "node", tables, node):
            yield node, orthanc


def spooled(node: Node) -> list[Path]:
    return [f for f in (node.folder / "state" / "spool").iterdir() if f.is_file()]


def test_what_is_sent_is_settled_once_it_is_promised(
    both: tuple[Node, Orthanc], files: list[Path]
) -> None:
    node, orthanc = both
    assert node.send(*files[:2]) == 0
    node.await_count(JobState.SENT, 2)
    assert len(orthanc.instances()) == 2
    await_that(lambda: spooled(node) == [], "an empty spool")
    assert node.log.count("committed to=archive instances=2 again=0") == 1


def test_orthanc_is_told_what_is_safe_here(
    both: tuple[Node, Orthanc], files: list[Path]
) -> None:
    node, orthanc = both
    node.send(*files[:1])
    wanted = {
        "1.2.3.0": (CT, "Success"),
        "1.2.3.99": (CT, "Failure"),
    }
    for uid, (sop_class, status) in wanted.items():
        one = {"SOPClassUID": sop_class, "SOPInstanceUID": uid}
        asked = json.dumps({"DicomInstances": [one]}).encode()
        answer = orthanc.post("/modalities/GATEWAY/storage-commitment", asked)
        path = json.loads(answer)["Path"]

        def told(path: str = path) -> bool:
            return bool(json.loads(orthanc.get(path))["Status"] != "Pending")

        await_that(told, "a report")
        assert json.loads(orthanc.get(path))["Status"] == status


def test_what_is_not_kept_is_sent_again_and_then_held(
    both: tuple[Node, Orthanc], files: list[Path]
) -> None:
    node, orthanc = both
    known = set(orthanc.instances())
    sent = node.counts()[JobState.SENT]
    assert node.send(files[3]) == 0
    thrown_away = 0
    end = time.monotonic() + 60
    while not node.held() and time.monotonic() < end:
        for new in set(orthanc.instances()) - known:
            orthanc.delete(new)
            thrown_away += 1
        time.sleep(0.05)
    (held,) = node.held()
    assert "will not keep it: 0x0112 no such object instance" in held.reason
    assert thrown_away == 2
    assert len(spooled(node)) == 1
    # A person lets it go, and Orthanc is left alone this time.
    queue = node.state.queue()
    assert queue.release(held.id, node.state.clock())
    queue.close()
    node.await_count(JobState.SENT, sent + 1)


@pytest.mark.parametrize("title", ["STRANGER", "ORTHANC"])
def test_only_who_is_known_by_more_than_a_title_may_say_anything(
    both: tuple[Node, Orthanc], title: str
) -> None:
    node, _ = both
    ae = AE(title)
    ae.add_requested_context(SOP_CLASS)
    role = build_role(SOP_CLASS, scp_role=True)
    association = ae.associate(LOOPBACK, node.port, ae_title="GATEWAY", ext_neg=[role])
    accepted = [str(one.abstract_syntax) for one in association.accepted_contexts]
    association.release()
    assert accepted == ([] if title == "STRANGER" else [SOP_CLASS])
