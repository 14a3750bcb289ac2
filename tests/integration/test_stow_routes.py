"""A node that sends by STOW-RS: to Orthanc's plugin, and originals by a grant."""

from __future__ import annotations

from datetime import timedelta
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from dicom_node.authorising import GrantMode, Terms
from dicom_node.demo.loopback import LOOPBACK, await_that
from dicom_node.queue.job import JobState
from dicom_node.state import State, now
from tests.certificates import Authority
from tests.nodes import Node, a_node
from tests.orthanc import an_orthanc
from tests.stow_server import Asked, Said, a_stow_server, stored

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("peers")]

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
TABLES = """
[retry]
first_wait_s = 0.5

[breaker]
first_probe_s = 0.5

[[destination]]
name = "web"
kind = "stow"
url = "{url}"
{more}

[[route]]
name = "web"
destination = "web"
action = "{action}"
"""


def tables(url: str, more: str = "", action: str = "pass") -> str:
    told = TABLES.replace("{url}", url).replace("{more}", more)
    return told.replace("{action}", action)


@pytest.fixture(scope="module")
def files(images: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, made = tmp_path_factory.mktemp("files"), []
    for number in range(3):
        dataset = dcmread(images / "ct.dcm")
        dataset.SOPInstanceUID = f"1.2.3.{number}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        made.append(folder / f"{number}.dcm")
        dataset.save_as(made[-1])
    return made


def content(file: bytes) -> Dataset:
    """Every element, but for padding at the end, which DCMTK leaves out."""
    dataset = dcmread(BytesIO(file))
    if "DataSetTrailingPadding" in dataset:
        del dataset.DataSetTrailingPadding
    return dataset


def test_orthanc_has_what_was_sent(tmp_path: Path, files: list[Path]) -> None:
    if not PLUGIN.exists():
        pytest.skip("left out: apt-get install orthanc-dicomweb")
    plugin = [str(PLUGIN)]
    with an_orthanc(tmp_path, {}, Plugins=plugin) as orthanc:
        url = f"http://{LOOPBACK}:{orthanc.http_port}/dicom-web"
        with a_node(tmp_path / "node", tables(url)) as node:
            assert node.send(*files) == 0
            node.await_count(JobState.SENT, 3)
            kept = [orthanc.get(f"/instances/{i}/file") for i in orthanc.instances()]
    found = {one.SOPInstanceUID: one for one in map(content, kept)}
    sent = [content(file.read_bytes()) for file in files]
    assert found == {one.SOPInstanceUID: one for one in sent}


def test_a_server_in_trouble_gets_everything_once_it_is_over(
    tmp_path: Path, files: list[Path]
) -> None:
    token = tmp_path / "token"
    token.write_text("wrong", "ascii")
    busy, accepted = 2, list[str]()

    def moody(asked: Asked) -> Said:
        nonlocal busy
        if asked.headers["Authorization"] != "Bearer right":
            return Said(401)
        if asked.method == "OPTIONS":
            return Said(405)
        if not asked.files:
            return stored(asked)  # asked before the body is read
        busy -= 1
        if busy >= 0:
            return Said(503)
        accepted.extend(asked.instances)
        return stored(asked)

    with a_stow_server() as server:
        server.answer = moody
        told = tables(server.url, f'token_file = "{token}"')
        with a_node(tmp_path / "node", told) as node:
            assert node.send(*files) == 0
            await_that(lambda: len(server.posted()) >= 3, "three tries")
            assert node.counts()[JobState.HELD] == 0
            token.write_text("right", "ascii")
            node.await_count(JobState.SENT, 3)
            assert "wrong" not in node.log
            assert "right" not in node.log.replace("right one", "")
    assert sorted(accepted) == ["1.2.3.0", "1.2.3.1", "1.2.3.2"]


def grant(state: State, fingerprint: str) -> None:
    today = now()
    terms = Terms(
        mode=GrantMode.MEDIATED,
        ae_titles=("WEB",),
        purposes=("treatment",),
        not_before=today,
        not_after=today + timedelta(days=1),
        fingerprint=fingerprint,
    )
    with state.grants(state.keys()) as grants:
        number = grants.propose(terms, by="a", now=today)
        grants.approve(number, by="b", now=today)


def test_originals_go_only_to_the_certificate_that_a_grant_names(
    tmp_path: Path, images: Path
) -> None:
    authority = Authority(tmp_path, "ca")
    right, other = authority.certify("right"), authority.certify("other")
    marking = """
[[route]]
name = "mark"
destination = "web"
action = "mark"
called_ae_titles = ["MARK"]
"""
    strip = 'called_ae_titles = ["STRIP"]\n'
    node = Node(tmp_path / "node")
    more = f'ca = "{authority.own.file}"\nae_title = "WEB"'
    with a_stow_server(right) as server:
        told = tables(server.url, more, "strip") + strip + marking
        told = told.replace("[retry]", 'profile = "fast"\nweak_marks = "send"\n[retry]')
        with a_node(tmp_path / "node", told, node):
            assert node.send(images / "ct.dcm", called="MARK") == 0
            await_that(lambda: node.counts()[JobState.SENT] == 1, "a marked object")
            (marked,) = server.asked[-1].files
            file = tmp_path / "marked.dcm"
            file.write_bytes(marked)
            # Nobody has a grant yet.
            assert node.send(file, called="STRIP") == 0
            await_that(lambda: len(node.held()) == 1, "a held object")
            assert len(server.posted()) == 1
            grant(node.state, other.fingerprint)
            queue = node.state.queue()
            assert queue.release(node.held()[0].id, now())
            await_that(lambda: len(node.held()) == 1, "a held object")
            assert "another certificate key" in node.held()[0].reason
            assert len(server.posted()) == 1
            grant(node.state, right.fingerprint)
            assert queue.release(node.held()[0].id, now())
            queue.close()
            node.await_count(JobState.SENT, 2)
    (original,) = server.asked[-1].files
    assert content(original) == content((images / "ct.dcm").read_bytes())
    assert content(marked).PixelData != content(original).PixelData
    events = [entry["event"] for entry in node.state.audit(node.state.keys()).entries()]
    assert events.count("released") == 1
